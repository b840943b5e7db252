"""Two cells on the same test rows: which is right more often, and which ranks better, by tests over groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import binom

from bench.intervals import AucParts, Estimate, Z, auc_parts, auc_variance, wilson
from bench.metrics import decide

ALPHA = 0.05
"""Two cells are told apart where Holm's p is below it."""
EXACT = 20_000
"""Up to so many changed rows a sign-flip test is exact; beyond, normal."""
NOTHING = Estimate(math.nan, math.nan, math.nan)
BETTER, WORSE, NOT_SEPARATED, NOT_TESTED = "better", "worse", "not separated", "not tested"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two cells of one protocol; differences are ``first`` - ``second``, means over the seeds that both have."""

    first: str
    second: str
    seeds: int = 0
    n: int = 0
    """Test rows of all these seeds."""
    groups: int = 0
    reason: str = ""
    """Why there is no test; else empty."""
    accuracy_difference: Estimate = NOTHING
    accuracy_p: float = math.nan
    accuracy_p_holm: float = math.nan
    """Holm's correction over all pairs that are compared under this protocol."""
    auc_difference: Estimate = NOTHING
    auc_p: float = math.nan

    @property
    def verdict(self) -> str:
        """Return what may be said of the accuracy of ``first``: better, worse, not separated or not tested."""
        if math.isnan(self.accuracy_p_holm):
            return NOT_TESTED
        if self.accuracy_p_holm >= ALPHA:
            return NOT_SEPARATED
        return BETTER if self.accuracy_difference.value > 0 else WORSE

    def reverse(self) -> "Comparison":
        """Return the same of ``second`` against ``first``."""
        accuracy, auc = (
            Estimate(-one.value, -one.high, -one.low) for one in (self.accuracy_difference, self.auc_difference)
        )
        return replace(self, first=self.second, second=self.first, accuracy_difference=accuracy, auc_difference=auc)


class _Answers(NamedTuple):
    """What one cell answered under one seed, by group."""

    rows: bytes
    """The same for two cells that were tested on the same rows."""
    n: np.ndarray
    """[G] rows of each group."""
    right: np.ndarray
    """[G] rows of each group that are decided rightly."""
    auc: AucParts | None
    """None with one class only."""


def compare_cells(predictions: Mapping[int, Mapping[str, pd.DataFrame]], cells: Sequence[str]) -> list[Comparison]:
    """Return every pair of ``cells``, in their order, under one protocol.

    Accuracy: the sign-flip test over groups (``sign_flip_p``), which is the exact McNemar test where every group has
    one row; several seeds are pooled by group. AUC: DeLong's test for groups. Both say something of the models that
    were trained, not of training once more. Intervals are Wald's over groups (Obuchowski, Statistics in Medicine 1998);
    where no group differs, as far to each side as Wilson's interval of no difference in so many groups.

    Args:
        predictions: by seed and cell: columns ``image_id``, ``copy``, ``group_id``, ``label`` and ``probability``.
        cells: cells without predictions are not tested.
    """
    answers = _answers(predictions)
    compared = [_compare(first, second, answers) for first, second in combinations(cells, 2)]
    corrected = holm([one.accuracy_p for one in compared])
    return [replace(one, accuracy_p_holm=float(p)) for one, p in zip(compared, corrected, strict=True)]


def sign_flip_p(difference: np.ndarray) -> float:
    """Return the two-sided p of whole differences [G] whose signs are as likely + as -, exactly.

    Args:
        difference: of each group, rows that only the one cell decides rightly, less rows that only the other does.
    """
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    total, observed = int((sizes * counts).sum()), abs(int(difference.sum()))
    if total > EXACT:
        return float(2 * ndtr(-observed / math.sqrt((sizes**2 * counts).sum())))
    positive = np.ones(1)  # of the sum of the positive differences: the probability of 0, 1, 2, ...
    for size, count in zip(sizes, counts, strict=True):
        steps = np.zeros(size * count + 1)
        steps[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        positive = np.convolve(positive, steps)
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(positive[np.abs(sums) >= observed].sum()))


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p values corrected for their number (Holm, Scandinavian Journal of Statistics 1979); NaN is no test."""
    corrected = np.array(p, dtype=np.float64)
    order = np.argsort(corrected)[: np.count_nonzero(~np.isnan(corrected))]  # NaN is sorted to the end
    left = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(corrected[order] * left))
    return corrected


def _answers(predictions: Mapping[int, Mapping[str, pd.DataFrame]]) -> dict[str, dict[int, _Answers]]:
    """Return the answers of every cell by seed; the groups of all are numbered alike."""
    frames = [(seed, cell, frame) for seed, cells in predictions.items() for cell, frame in cells.items()]
    names = pd.Index(sorted({name for *_, frame in frames for name in frame["group_id"]}))
    answers: dict[str, dict[int, _Answers]] = {}
    for seed, cell, frame in frames:
        codes, label = names.get_indexer(pd.Index(frame["group_id"])), frame["label"].to_numpy()
        probability = frame["probability"].to_numpy()
        right = np.bincount(codes, decide(probability) == label, minlength=len(names)).astype(np.int64)
        rows = pd.util.hash_pandas_object(frame[["image_id", "copy", "group_id", "label"]], index=False)
        auc = auc_parts(label, probability, codes, len(names)) if 0 < label.sum() < len(label) else None
        n = np.bincount(codes, minlength=len(names))
        answers.setdefault(cell, {})[seed] = _Answers(rows.to_numpy().tobytes(), n, right, auc)
    return answers


def _compare(first: str, second: str, answers: Mapping[str, Mapping[int, _Answers]]) -> Comparison:
    one, other = answers.get(first, {}), answers.get(second, {})
    seeds = [seed for seed in one if seed in other]
    pairs = [(one[seed], other[seed]) for seed in seeds]
    if not pairs:
        return Comparison(first=first, second=second, reason="no seed under which both are finished")
    if any(a.rows != b.rows for a, b in pairs):
        return Comparison(first=first, second=second, reason="tested on other rows")
    n = np.sum([a.n for a, _ in pairs], axis=0)
    difference = np.sum([a.right - b.right for a, b in pairs], axis=0)
    auc = [(a.auc, b.auc) for a, b in pairs if a.auc and b.auc]
    auc_difference, auc_p = _auc_difference(auc) if len(auc) == len(pairs) else (NOTHING, math.nan)
    return Comparison(
        first=first,
        second=second,
        seeds=len(seeds),
        n=int(n.sum()),
        groups=int((n > 0).sum()),
        accuracy_difference=_difference(difference[n > 0], n[n > 0]),
        accuracy_p=sign_flip_p(difference),
        auc_difference=auc_difference,
        auc_p=auc_p,
    )


def _difference(difference: np.ndarray, n: np.ndarray) -> Estimate:
    """Return the difference of two accuracies from sums [G] over the rows of each group."""
    groups, value = len(n), float(difference.sum() / n.sum())
    if not difference.any():
        half = wilson(0, groups)[1]
    elif groups == 1:
        half = math.nan
    else:
        half = Z * math.sqrt(groups / (groups - 1) * ((difference - value * n) ** 2).sum()) / n.sum()
    return _around(value, half)


def _auc_difference(pairs: list[tuple[AucParts, AucParts]]) -> tuple[Estimate, float]:
    """Return the difference of the mean AUCs over the seeds, and its p."""
    value = float(np.mean([a.auc - b.auc for a, b in pairs]))
    parts = np.mean([a.parts - b.parts for a, b in pairs], axis=0)
    error = math.sqrt(auc_variance(parts, np.any([a.has for a, _ in pairs], axis=0)))
    # without error the two are the same, or one is perfect and the other the same for every row: no test
    p = float(2 * ndtr(-abs(value) / error)) if error > 0 else (1.0 if value == error == 0 else math.nan)
    return _around(value, Z * error), p


def _around(value: float, half: float) -> Estimate:
    low, high = np.clip([value - half, value + half], -1, 1)  # NaN stays
    return Estimate(value, float(low), float(high))
