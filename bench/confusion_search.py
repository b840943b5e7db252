"""Every confusion matrix that could have given six printed scores, searched exhaustively over integer counts.

Scores are those of malignant, in the order of ``bench.paper.SCORES``; matrices are ``tp, fn, fp, tn``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING = 0.0005
"""Largest distance of a score from its value printed with three decimals."""
EPSILON = 1e-9
"""For sums of decimal fractions that binary ones miss."""
STAND_INS = {2: 1.0, 3: 0.0}
"""What undefined ppv and npv are taken for by the bisection: so both rise with tn throughout."""


@dataclass(frozen=True, kw_only=True)
class ClassSizes:
    """The test sets that are admissible: every pair of a size of each class."""

    malignant: tuple[int, ...]
    benign: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("malignant", "benign"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise UserError(f"class sizes: {name} is {sizes}; give one or more whole numbers from 1")

    @property
    def middle(self) -> "ClassSizes":
        """The one test set in the middle."""
        malignant, benign = (sizes[len(sizes) // 2] for sizes in (self.malignant, self.benign))
        return ClassSizes(malignant=(malignant,), benign=(benign,))


def matrix_scores(tp: Floats, fn: Floats, fp: Floats, tn: Floats) -> Floats:
    """Return the six scores [6, ...] of confusion matrices of one shape [...]; NaN where one is undefined."""
    total = tp + fn + fp + tn
    observed = (tp + tn) / total
    chance = ((tp + fn) * (tp + fp) + (tn + fp) * (tn + fn)) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = (observed - chance) / (1 - chance)
        return np.stack([tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn), observed, kappa])


def fitting_matrices(scores: Floats, sizes: ClassSizes, *, truncated: bool = False) -> Integers:
    """Return every matrix [M, 4] that gives all scores [6] within rounding.

    Args:
        scores: NaN for one that is not asked for.
        sizes: test sets to try.
        truncated: the scores were cut behind the third decimal, not rounded.
    """
    scores = scores + ROUNDING if truncated else scores
    positives, tp = (values[:, None] for values in _recalled(scores[0], sizes.malignant))
    negatives, tn = (values[None, :] for values in _recalled(scores[1], sizes.benign))
    matrices = np.stack(np.broadcast_arrays(tp, positives - tp, negatives - tn, tn), axis=-1).reshape(-1, 4)
    return matrices[_residual(scores, matrices.T.astype(float)) <= ROUNDING + EPSILON]


def nearest_matrix(scores: Floats, sizes: ClassSizes) -> tuple[Integers, float]:
    """Return the matrix [4] nearest to ``scores`` [6] and its residual: its largest distance in any score.

    It is the nearest of all matrices of all ``sizes``. With the class sizes and tp held, every score rises with tn or
    stays, so the best tn is where the largest excess meets the largest deficit: a bisection finds it. Of equally near
    matrices the one with the smallest tp is returned, then the smallest tn, fn, fp.
    """
    _, bound = _nearest_within(scores, sizes.middle, np.inf)
    # what is nearer than the nearest of one test set has a sensitivity and a specificity nearer than that
    return _nearest_within(scores, sizes, bound + EPSILON)


def _recalled(recall: float, sizes: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Return class sizes [K] and hits among them [K], all pairs that give ``recall`` within rounding; NaN is any."""
    size, hits = np.meshgrid(np.array(sizes), np.arange(max(sizes) + 1), indexing="ij")
    given = (hits <= size) & (np.isnan(recall) | (np.abs(hits / size - recall) <= ROUNDING + EPSILON))
    return size[given], hits[given]


def _residual(scores: Floats, matrices: Floats) -> Floats:
    """Return the largest distance [...] of ``matrices`` [4, ...] in any score asked; inf where one is undefined."""
    asked = ~np.isnan(scores)
    found = matrix_scores(*matrices)[asked]
    distance = np.abs(found - scores[asked].reshape(-1, *[1] * (found.ndim - 1)))
    return np.where(np.isnan(distance), np.inf, distance).max(axis=0)


def _nearest_within(scores: Floats, sizes: ClassSizes, bound: float) -> tuple[Integers, float]:
    """Search the matrices [K] that are within ``bound`` in every score; there must be one."""
    size, hits = np.meshgrid(np.array(sizes.malignant), np.arange(max(sizes.malignant) + 1), indexing="ij")
    tried = (hits <= size) & (np.abs(hits / size - scores[0]) <= bound)
    p, tp, n = (
        values.ravel().astype(float)
        for values in np.broadcast_arrays(size[tried][:, None], hits[tried][:, None], np.array(sizes.benign))
    )
    low, high = (np.clip(end, 0, n) for end in (np.floor(n * (scores[1] - bound)), np.ceil(n * (scores[1] + bound))))
    while (low < high).any():
        tn = np.floor((low + high) / 2)
        found = matrix_scores(tp, p - tp, n - tn, tn)
        for score, stand_in in STAND_INS.items():
            found[score] = np.where(np.isnan(found[score]), stand_in, found[score])
        distance = found - scores[:, None]
        excess, deficit = distance.max(axis=0), -distance.min(axis=0)
        crossed = excess >= deficit
        low, high = np.where(crossed, low, np.minimum(tn + 1, high)), np.where(crossed, tn, high)
        # the deficit only grows with fewer tn, the excess with more
        hopeful = np.where(crossed, deficit, excess) <= bound
        p, tp, n, low, high = (values[hopeful] for values in (p, tp, n, low, high))
    tn = np.clip(low + np.array([-1, 0, 1])[:, None], 0, n)
    matrices = np.stack(np.broadcast_arrays(tp, p - tp, n - tn, tn)).reshape(4, -1)
    residual = _residual(scores, matrices)
    near = matrices[:, residual <= residual.min() + EPSILON]
    best = near[:, np.lexsort(near[[2, 1, 3, 0]])[0]]
    return best.astype(np.int64), float(_residual(scores, best))
