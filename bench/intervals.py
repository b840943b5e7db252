"""95 % intervals over groups: AUC by DeLong's method, and the band of a ROC curve by the bootstrap.

Rows of one group (patient, lesion, duplicates, copies of one image) are not independent, so the group is the unit of
every interval. ``group`` may be any values that can be sorted.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

RESAMPLES = 2000
SEED = 0
"""Of the resamples: the same number of groups is resampled in the same way, so rows can be made again."""
Z = float(ndtri(0.975))
BLOCK = 2**22
"""Numbers of one block of resamples; bounds the memory."""


class Estimate(NamedTuple):
    """A value and its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


def delong_auc(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> Estimate:
    """Return the AUC with its interval on the logit scale, by the clustered form of DeLong's method.

    A perfect AUC (1 or 0) has no variance; its interval is Wilson's for as many trials as the smaller class has groups.

    Args:
        label: [R] 0 benign, 1 malignant.
        probability: [R] probability of malignancy.
        group: [R] group of each row.

    Returns:
        All NaN with one class only; an interval of NaN where a class lies in a single group.
    """
    label = np.asarray(label)
    if not 0 < label.sum() < len(label):
        return Estimate(math.nan, math.nan, math.nan)
    (auc,), ((variance,),) = delong(label, np.asarray(probability)[None], group)
    groups = min(len(np.unique(np.asarray(group)[label == side])) for side in (0, 1))
    if auc in (0, 1):
        return Estimate(float(auc), *wilson(float(auc) * groups, groups))
    half = Z * math.sqrt(variance) / (auc * (1 - auc)) if groups > 1 else math.nan
    low, high = expit(logit(auc) + np.array([-half, half]))
    return Estimate(float(auc), float(low), float(high))


def delong(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUCs [K] of K models on the same rows, and their covariance [K, K].

    DeLong et al. (Biometrics 1988) in the form of Obuchowski (Biometrics 1997) for rows in groups, which is DeLong's
    where every group has one row; by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Args:
        label: [R] 0 benign, 1 malignant; both occur.
        probability: [K, R] probabilities of malignancy.
        group: [R] group of each row.

    Returns:
        The covariance is NaN where a class lies in a single group.
    """
    label, probability = np.asarray(label).astype(bool), np.asarray(probability, dtype=np.float64)
    codes, groups = group_codes(group)
    positives, negatives = int(label.sum()), int((~label).sum())
    ranks = rankdata(probability, axis=1)
    above = (ranks[:, label] - rankdata(probability[:, label], axis=1)) / negatives  # negatives below each positive
    below = 1 - (ranks[:, ~label] - rankdata(probability[:, ~label], axis=1)) / positives
    auc = above.mean(axis=1)
    # per group: how far its positives (negatives) together lie from what the AUC lets expect
    of_positives = _sums(above - auc[:, None], codes[label], groups)
    of_negatives = _sums(below - auc[:, None], codes[~label], groups)
    with_positives, with_negatives = (len(np.unique(codes[side])) for side in (label, ~label))
    across = of_positives @ of_negatives.T
    covariance = (
        _unbiased(with_positives) * of_positives @ of_positives.T / positives**2
        + _unbiased(with_negatives) * of_negatives @ of_negatives.T / negatives**2
        + _unbiased(groups) * (across + across.T) / (positives * negatives)
    )
    return auc, covariance


def roc_band(
    label: np.ndarray, probability: np.ndarray, group: np.ndarray, false_positive_rate: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the true positive rate [F] at each false positive rate [F], and its pointwise 95 % band.

    Percentiles of the bootstrap over groups; resamples with one class are left out. The curve is interpolated between
    its points, as in ``sklearn.metrics.roc_curve``. Where the bootstrap has no spread (at rates of 0 and 1), Wilson's
    interval for as many trials as groups have positives is taken.

    Args:
        label: [R] 0 benign, 1 malignant.
        probability: [R] probability of malignancy.
        group: [R] group of each row.
        false_positive_rate: [F] in 0 to 1.

    Returns:
        ``tpr, low, high``, [F] each; NaN with one class only.
    """
    label, probability = np.asarray(label).astype(bool), np.asarray(probability, dtype=np.float64)
    rates = np.asarray(false_positive_rate, dtype=np.float64)
    if not 0 < label.sum() < len(label):
        nothing = np.full(len(rates), math.nan)
        return nothing, nothing.copy(), nothing.copy()
    codes, groups = group_codes(group)
    order = np.argsort(-probability, kind="stable")
    label, codes, falling = label[order], codes[order], probability[order]
    last = np.append(
        np.flatnonzero(np.diff(falling)), len(falling) - 1
    )  # of equal probabilities: one point of the curve

    def curve(weight: np.ndarray) -> np.ndarray:
        tp, fp = np.cumsum(weight * label)[last], np.cumsum(weight * ~label)[last]
        return np.interp(rates, np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1]))

    value = curve(np.ones(len(label)))
    curves = [
        curve(weight)
        for block in resamples(groups, len(label))
        for weight in block[:, codes]
        if weight[label].any() and weight[~label].any()
    ]
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    trials = len(np.unique(codes[label]))
    for place in np.flatnonzero((value <= 0) | (value >= 1)):
        ends = wilson(value[place] * trials, trials)
        low[place], high[place] = min(low[place], ends[0]), max(high[place], ends[1])
    return value, low, high


def resamples(groups: int, row_length: int) -> Iterator[np.ndarray]:
    """Yield how often each group was drawn, ``RESAMPLES`` times with replacement: blocks of [B, G] int64.

    Args:
        groups: number of groups G.
        row_length: numbers that a caller holds for each resample; with G it bounds B.
    """
    draw = np.random.default_rng(SEED)
    size = max(1, BLOCK // max(groups, row_length))
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        drawn = draw.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)


def wilson(hits: float, of: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (JASA 1927); ``hits`` and ``of`` may be fractions."""
    share, square = hits / of, Z**2 / of
    middle, half = (share + square / 2) / (1 + square), math.sqrt(square * share * (1 - share) + square**2 / 4)
    return max(0.0, middle - half / (1 + square)), min(1.0, middle + half / (1 + square))


def group_codes(group: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the group of each row as a number, [R], and how many groups there are."""
    names, codes = np.unique(np.asarray(group), return_inverse=True)
    return codes, len(names)


def _sums(numbers: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """Return the sums [K, G] of ``numbers`` [K, R] over the rows of each group."""
    return np.stack([np.bincount(codes, row, minlength=groups) for row in numbers])


def _unbiased(count: int) -> float:
    return count / (count - 1) if count > 1 else math.nan
