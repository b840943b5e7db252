"""The metrics of the paper (2.4) and of calibration, with intervals over groups; malignant is the positive class."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bench.intervals import Estimate, bca, bootstrap, delong_auc, group_codes, wilson

THRESHOLD = 0.5
"""A row is decided malignant when its probability is at least this."""
BINS = 15
"""Of the expected calibration error: equally wide, over the probability of malignancy."""
PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
SUMMED = (*PROPORTIONS, "kappa", "brier", "ece")
"""Functions of sums over rows, in the order of ``_statistics``."""
SCORES = (*PROPORTIONS, "kappa", "auc", "brier", "ece")
COUNTS = ("tp", "fp", "tn", "fn")
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of one cell."""

    metric: str
    value: float
    """NaN where the metric is undefined, e.g. ppv without a positive decision."""
    unit: str
    low: float
    """Lower end of the 95 % interval; NaN where none is given."""
    high: float
    n: int
    """What the value was computed over: rows, or the rows in the denominator of a proportion."""
    subset: str = ALL
    """Of the test rows: ``all``, or e.g. ``modality=ultrasound``, ``source=busi``."""


def decide(probability: np.ndarray) -> np.ndarray:
    """Return the decision, 1 malignant and 0 benign, [R] int64, for probabilities [R] of malignancy."""
    return (np.asarray(probability) >= THRESHOLD).astype(np.int64)


def subset_metrics(predictions: pd.DataFrame) -> list[Measured]:
    """Return the metrics of all rows, of each modality and of each source.

    Args:
        predictions: columns ``modality``, ``source``, ``group_id``, ``label`` and ``probability``.
    """
    found = []
    for name, rows in subsets(predictions):
        columns = (rows[column].to_numpy() for column in ("label", "probability", "group_id"))
        found += [replace(one, subset=name) for one in classification_metrics(*columns)]
    return found


def subsets(predictions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield ``all`` and its rows, then each modality and each source that occurs, by name."""
    yield ALL, predictions
    for column in ("modality", "source"):
        for value, rows in predictions.groupby(column, sort=True):
            yield f"{column}={value}", rows


def classification_metrics(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> list[Measured]:
    """Return sensitivity, specificity, ppv, npv, accuracy, kappa, auc, brier, ece and the four confusion counts.

    brier is the mean squared difference of probability and label (Brier 1950). ece is the expected calibration error
    (Naeini et al., AAAI 2015) of the probability of malignancy in ``BINS`` equally wide bins.

    Intervals: BCa over groups, the AUC's by clustered DeLong, that of ece by ``_calibration_error``. Where resamples
    don't vary (all right, all wrong, one group), a proportion has Wilson's interval for as many trials as there are
    groups in its denominator, and kappa the one that these ends of sensitivity and specificity give; brier and ece
    have none for a single group.

    Args:
        label: [R] 0 benign, 1 malignant.
        probability: [R] probability of malignancy.
        group: [R] group of each row.
    """
    label, probability = np.asarray(label), np.asarray(probability, dtype=np.float64)
    sums = _group_sums(label, probability, group)
    estimates = _estimates(sums) | {"auc": delong_auc(label, probability, group)}
    rows = len(label)
    tp, fp, tn, fn = (int(count) for count in sums[:, :4].sum(axis=0))
    of = dict(zip(PROPORTIONS, (tp + fn, tn + fp, tp + fp, tn + fn, rows), strict=True))
    return [
        *(measured(name, estimates[name], "1", of.get(name, rows)) for name in SCORES),
        *(
            measured(name, Estimate(count, math.nan, math.nan), "rows", rows)
            for name, count in zip(COUNTS, (tp, fp, tn, fn), strict=True)
        ),
    ]


def subset_values(predictions: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the values alone of ``subset_metrics``, by subset and metric: without intervals they take no time."""
    found: dict[tuple[str, str], float] = {}
    for name, rows in subsets(predictions):
        columns = [rows[column].to_numpy() for column in ("label", "probability", "group_id")]
        sums = _group_sums(*columns).sum(axis=0)
        values = dict(zip(SUMMED, _statistics(sums), strict=True)) | {"auc": delong_auc(*columns)[0]}
        values |= dict(zip(COUNTS, sums[:4], strict=True))
        found |= {(name, metric): float(value) for metric, value in values.items()}
    return found


def _group_sums(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return tp, fp, tn, fn, squared error, and label - probability in each bin, summed over each group: [G, 5 + B]."""
    codes, groups = group_codes(group)
    decision = decide(probability)
    bins = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    sums = np.zeros((groups, 5 + BINS))
    outcomes = np.where(decision == 1, np.where(label == 1, 0, 1), np.where(label == 0, 2, 3))
    np.add.at(sums, (codes, outcomes), 1)
    np.add.at(sums[:, 4], codes, (probability - label) ** 2)
    np.add.at(sums, (codes, 5 + bins), label - probability)
    return sums


def _statistics(sums: np.ndarray) -> np.ndarray:
    """Return the metrics ``SUMMED`` [..., 8] of sums [..., 5 + B]; NaN where undefined."""
    tp, fp, tn, fn, squared = np.moveaxis(sums[..., :5], -1, 0)
    rows = tp + fp + tn + fn
    both = ((tp + fn) > 0) & ((tn + fp) > 0)
    # Cohen's kappa of two classes without its division, so that it is exactly 0 where it is 0
    beyond_chance = 2 * (tp * tn - fp * fn)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                tp / (tp + fn),
                tn / (tn + fp),
                tp / (tp + fp),
                tn / (tn + fn),
                (tp + tn) / rows,
                np.where(both, beyond_chance / ((tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)), math.nan),
                squared / rows,
                np.abs(sums[..., 5:]).sum(axis=-1) / rows,
            ],
            axis=-1,
        )


def _estimates(sums: np.ndarray) -> dict[str, Estimate]:
    """Return the metrics ``SUMMED`` of the sums [G, 5 + B] of each group, with their intervals."""
    in_bins = sums[:, 5:].sum(axis=0)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        chance = np.abs(drawn[..., 5:] - in_bins).sum(axis=-1) / drawn[..., :4].sum(axis=-1)
        return np.concatenate([_statistics(drawn), chance[..., None]], axis=-1)

    with np.errstate(invalid="ignore", divide="ignore"):  # a single group left out leaves no row
        value, drawn, left_out = bootstrap(sums, statistic)
    ends = {name: bca(*one) for name, *one in zip(SUMMED, value, drawn.T, left_out.T, strict=False)}
    ends["ece"] = _calibration_error(value[-2], drawn[:, -2], drawn[:, -1])
    tp, fp, tn, fn = (sums[:, :4] > 0).T
    wilsons = {}
    for name, side in zip(PROPORTIONS, (tp | fn, tn | fp, tp | fp, tn | fn, tp | fp | tn | fn), strict=True):
        if groups := int(side.sum()):
            wilsons[name] = wilson(value[SUMMED.index(name)] * groups, groups)
    if ends["kappa"][0] == ends["kappa"][1]:
        rates = zip(wilsons["sensitivity"], wilsons["specificity"], strict=True)
        ends["kappa"] = tuple(_kappa(*pair, sums) for pair in rates)  # type: ignore[assignment]
    ends |= {name: wilsons[name] for name in PROPORTIONS if ends[name][0] == ends[name][1]}
    if len(sums) == 1:
        ends["brier"] = ends["ece"] = (math.nan, math.nan)
    return {name: Estimate(value[place], *ends[name]) for place, name in enumerate(SUMMED)}


def _calibration_error(value: float, drawn: np.ndarray, chance: np.ndarray) -> tuple[float, float]:
    """Return the ends of the interval of the expected calibration error.

    The differences in the bins are taken without sign, so chance makes the error too large, and in the resamples again:
    the basic bootstrap interval takes this out, BCa does not. The lower end is 0 where perfect calibration is not
    refuted: where the error is no larger than 95 % of what the resamples differ by from the data.
    """
    low, high = np.quantile(drawn, (0.025, 0.975))
    is_refuted = value > np.quantile(chance, 0.95)
    return (max(0.0, 2 * value - high) if is_refuted else 0.0), min(1.0, max(value, 2 * value - low))


def _kappa(sensitivity: float, specificity: float, sums: np.ndarray) -> float:
    tp, fp, tn, fn = sums[:, :4].sum(axis=0)
    tp, tn, malignant, benign = sensitivity * (tp + fn), specificity * (tn + fp), tp + fn, tn + fp
    return float(_statistics(np.array([tp, benign - tn, tn, malignant - tp, *np.zeros(1 + BINS)]))[5])


def measured(name: str, estimate: Estimate, unit: str, n: int) -> Measured:
    """Return an estimate as one metric of a cell."""
    value, low, high = (float(number) for number in estimate)
    return Measured(metric=name, value=value, unit=unit, low=low, high=high, n=n)
