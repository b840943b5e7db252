"""Parity before speed: what an engine answers on the whole test set, held against PyTorch in fp32."""

import numpy as np

from bench.engine_rows import Found
from bench.intervals import delong_auc
from bench.metrics import classification_metrics, decide
from bench.sessions import RefusedError

TOLERANCES = {
    "fp32": 1e-4,  # the order of additions differs, nothing else
    "fp16": 1e-2,  # 10 bits behind the point
    "bf16": 5e-2,  # 7 bits
    "int8": 1e-1,  # activations and weights in 256 and 128 steps
}
"""Largest difference of a probability that still counts as the same model."""


def compare(
    label: np.ndarray, reference: np.ndarray, probability: np.ndarray, group: np.ndarray, precision: str
) -> list[Found]:
    """Return differences, flips and the engine's own accuracy and AUC.

    Args:
        label: [R] 0 benign, 1 malignant.
        reference: [R] probabilities of PyTorch in fp32.
        probability: [R] probabilities of the engine.
        group: [R] group of each row, the unit of the intervals.
        precision: a key of ``TOLERANCES``.

    Raises:
        RefusedError: the engine's answers are not all probabilities.
    """
    if not ((probability >= 0) & (probability <= 1)).all():
        raise RefusedError("its answers are not all probabilities")
    rows = len(label)
    scores = {one.metric: one for one in classification_metrics(label, probability, group)}
    accuracy, auc, before = scores["accuracy"], scores["auc"], delong_auc(label, reference, group)
    return [
        Found(metric="probability_difference", value=largest_difference(probability, reference), n=rows),
        Found(metric="probability_tolerance", value=TOLERANCES[precision], n=rows),
        Found(metric="decision_flips", value=float((decide(probability) != decide(reference)).sum()), n=rows),
        Found(metric="auc_difference", value=auc.value - before.value, n=rows),
        Found(metric="accuracy", value=accuracy.value, low=accuracy.low, high=accuracy.high, n=rows),
        Found(metric="auc", value=auc.value, low=auc.low, high=auc.high, n=rows),
    ]


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest absolute difference of two [R] arrays; 0 where R is 0."""
    return float(np.abs(np.asarray(one, dtype=np.float64) - other).max(initial=0.0))
