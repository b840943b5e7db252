"""The metrics of the paper (2.4), by scikit-learn; malignant is the positive class."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, roc_auc_score

THRESHOLD = 0.5
"""A row is decided malignant when its probability is at least this."""


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


def decide(probability: np.ndarray) -> np.ndarray:
    """Return the decision, 1 malignant and 0 benign, [R] int64, for probabilities [R] of malignancy."""
    return (np.asarray(probability) >= THRESHOLD).astype(np.int64)


def classification_metrics(label: np.ndarray, probability: np.ndarray) -> list[Measured]:
    """Return sensitivity, specificity, ppv, npv, accuracy, kappa, auc and the four confusion counts.

    Proportions carry Wilson's 95 % interval for independent rows (Wilson, JASA 1927).

    Args:
        label: [R] 0 benign, 1 malignant.
        probability: [R] probability of malignancy.
    """
    label, decision = np.asarray(label), decide(probability)
    rows = len(label)
    tn, fp, fn, tp = (int(count) for count in confusion_matrix(label, decision, labels=[0, 1]).ravel())
    both = 0 < label.sum() < rows
    kappa = float(cohen_kappa_score(label, decision)) if both else math.nan
    auc = float(roc_auc_score(label, probability)) if both else math.nan
    return [
        _proportion("sensitivity", tp, tp + fn),
        _proportion("specificity", tn, tn + fp),
        _proportion("ppv", tp, tp + fp),
        _proportion("npv", tn, tn + fn),
        _proportion("accuracy", tp + tn, rows),
        _number("kappa", kappa, "1", rows),
        _number("auc", auc, "1", rows),
        *(_number(name, count, "rows", rows) for name, count in (("tp", tp), ("fp", fp), ("tn", tn), ("fn", fn))),
    ]


def _proportion(name: str, hits: int, of: int) -> Measured:
    if of == 0:
        return _number(name, math.nan, "1", 0)
    interval = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Measured(metric=name, value=hits / of, unit="1", low=float(interval.low), high=float(interval.high), n=of)


def _number(name: str, value: float, unit: str, n: int) -> Measured:
    return Measured(metric=name, value=value, unit=unit, low=math.nan, high=math.nan, n=n)
