"""95 % intervals over groups: by the bootstrap (BCa), the AUC's by DeLong's method, and the band of a ROC curve.

Rows of one group (patient, lesion, duplicates, copies of one image) are not independent, so the group is the unit of
every interval. ``group`` may be any values that can be sorted.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata
from scipy.stats import t as student

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


def bootstrap(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return statistics [M] of all rows, of each resample of groups [B, M] and with each group left out [G, M].

    A statistic is a function of sums over rows, so that all resamples are one matrix product; ``scipy.stats.bootstrap``
    draws rows, and groups of several rows only by a call of the statistic for each resample.

    Args:
        sums: [G, C] sums over the rows of each group.
        statistic: from sums [..., C] to statistics [..., M], NaN where undefined.
    """
    total = sums.sum(axis=0)
    drawn = [statistic(block @ sums) for block in resamples(*sums.shape)]
    return statistic(total), np.concatenate(drawn), statistic(total - sums)


def bca(value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """Return the ends of the bias-corrected and accelerated interval (Efron, JASA 1987) of one statistic.

    Resamples in which the statistic is undefined are left out. Both ends are the same where the resamples don't vary:
    the caller must say what holds then.

    Args:
        value: of all rows.
        drawn: [B] of each resample.
        left_out: [G] with each group left out, for the acceleration.
    """
    drawn, left_out = drawn[~np.isnan(drawn)], left_out[~np.isnan(left_out)]
    if math.isnan(value) or not len(drawn):
        return math.nan, math.nan
    share = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    away = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = (away**2).sum() ** 1.5
    acceleration = (away**3).sum() / (6 * spread) if spread else 0.0
    shifted = bias + np.array([-Z, Z])
    low, high = np.quantile(drawn, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def delong_auc(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> Estimate:
    """Return the AUC with its interval on the logit scale, by the clustered form of DeLong's method.

    Student's t with as many degrees of freedom as the smaller class has groups, less one, covers few groups better.
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
    one = auc_parts(label, probability, *group_codes(group))
    groups = min(int(has.sum()) for has in one.has)
    if one.auc in (0, 1):
        return Estimate(one.auc, *wilson(one.auc * groups, groups))
    half = student.ppf(0.975, groups - 1) * math.sqrt(auc_variance(one.parts, one.has)) / (one.auc * (1 - one.auc))
    low, high = expit(logit(one.auc) + np.array([-half, half]))
    return Estimate(one.auc, float(low), float(high))


class AucParts(NamedTuple):
    """An AUC, and how each group moves it."""

    auc: float
    parts: np.ndarray
    """[2, G] by its negatives and by its positives: summed DeLong components less the AUC, over the rows of the class.
    """
    has: np.ndarray
    """[2, G] bool: whether the group has negatives, positives."""


def auc_parts(label: np.ndarray, probability: np.ndarray, codes: np.ndarray, groups: int) -> AucParts:
    """Return the AUC of one model taken apart by group, from which ``auc_variance`` is made.

    DeLong et al. (Biometrics 1988) by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Args:
        label: [R] 0 benign, 1 malignant; both occur.
        probability: [R] probability of malignancy.
        codes: [R] group of each row, from 0 to ``groups`` - 1.
        groups: number of groups G.
    """
    is_positive = np.asarray(label).astype(bool)
    sides = (~is_positive, is_positive)
    ranks = rankdata(probability)
    # of each row, the share of the other class that is below it
    below = [(ranks[side] - rankdata(np.asarray(probability)[side])) / np.count_nonzero(~side) for side in sides]
    auc = float(below[1].mean())
    components = (1 - below[0], below[1])
    parts = [
        np.bincount(codes[side], of_side - auc, minlength=groups) / len(of_side)
        for side, of_side in zip(sides, components, strict=True)
    ]
    has = np.stack([np.bincount(codes[side], minlength=groups) > 0 for side in sides])
    return AucParts(auc, np.stack(parts), has)


def auc_variance(parts: np.ndarray, has: np.ndarray) -> float:
    """Return the variance of an AUC, or of a difference or mean of AUCs whose ``parts`` [2, G] are added likewise.

    Obuchowski (Biometrics 1997) for rows in groups, which is DeLong's where every group has one row. NaN where a class
    lies in a single group.
    """
    with_negatives, with_positives = has.sum(axis=1)
    variance = (
        _unbiased(with_negatives) * (parts[0] ** 2).sum()
        + _unbiased(with_positives) * (parts[1] ** 2).sum()
        + 2 * _unbiased(has.any(axis=0).sum()) * (parts[0] * parts[1]).sum()
    )
    return float(np.maximum(0, variance))  # the last term may be below zero; NaN stays


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
    """Yield how often each group was drawn, ``RESAMPLES`` times with replacement: blocks of [B, G] float64.

    Args:
        groups: number of groups G.
        row_length: numbers that a caller holds for each resample; with G it bounds B.
    """
    size = max(1, BLOCK // max(groups, row_length))
    if size >= RESAMPLES:
        yield _resamples(groups)
        return
    draw = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, size):
        yield _drawn(draw, min(size, RESAMPLES - start), groups)


@lru_cache(maxsize=2)
def _resamples(groups: int) -> np.ndarray:
    """Return all resamples of so many groups, kept as the cells of a run have the same."""
    drawn = _drawn(np.random.default_rng(SEED), RESAMPLES, groups)
    drawn.flags.writeable = False
    return drawn


def _drawn(draw: np.random.Generator, rows: int, groups: int) -> np.ndarray:
    drawn = draw.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def wilson(hits: float, of: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (JASA 1927); ``hits`` and ``of`` may be fractions."""
    share, square = hits / of, Z**2 / of
    middle, half = (share + square / 2) / (1 + square), math.sqrt(square * share * (1 - share) + square**2 / 4)
    low, high = middle - half / (1 + square), middle + half / (1 + square)
    return 0.0 if hits == 0 else low, 1.0 if hits == of else high  # exactly, as it must hold the share


def group_codes(group: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the group of each row as a number, [R], and how many groups there are."""
    names, codes = np.unique(np.asarray(group), return_inverse=True)
    return codes, len(names)


def _unbiased(count: int) -> float:
    return count / (count - 1) if count > 1 else math.nan
