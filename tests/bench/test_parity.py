import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from bench.parity import TOLERANCES, compare, largest_difference
from bench.sessions import ENGINES, RefusedError

DRAW = np.random.default_rng(0)
LABEL = DRAW.integers(0, 2, 200)
REFERENCE = np.clip(0.5 + 0.2 * (LABEL - 0.5) + 0.2 * DRAW.standard_normal(200), 0, 1)


def values(probability: np.ndarray, precision: str = "fp32", label: np.ndarray = LABEL) -> dict[str, float]:
    return {
        one.metric: one.value
        for one in compare(label, REFERENCE[: len(label)], probability, np.arange(len(label)), precision)
    }


def test_the_same_answers_differ_in_nothing() -> None:
    found = values(REFERENCE)
    assert found["probability_difference"] == found["decision_flips"] == found["auc_difference"] == 0


def test_differences_flips_and_scores_are_those_of_scikit_learn() -> None:
    probability = np.clip(REFERENCE + 0.1 * DRAW.standard_normal(200), 0, 1)
    found = values(probability, "int8")
    assert found["probability_difference"] == pytest.approx(np.abs(probability - REFERENCE).max())
    assert found["decision_flips"] == ((probability >= 0.5) != (REFERENCE >= 0.5)).sum() > 0
    assert found["accuracy"] == pytest.approx(accuracy_score(LABEL, probability >= 0.5))
    assert found["auc"] == pytest.approx(roc_auc_score(LABEL, probability))
    assert found["auc_difference"] == pytest.approx(found["auc"] - roc_auc_score(LABEL, REFERENCE))
    assert found["probability_tolerance"] == TOLERANCES["int8"]


def test_a_flip_at_the_threshold_counts_however_small_the_difference() -> None:
    reference, probability = np.array([0.5, 0.2]), np.array([0.4999999, 0.2])
    found = {one.metric: one.value for one in compare(np.array([1, 0]), reference, probability, np.arange(2), "fp32")}
    assert found["decision_flips"] == 1
    assert found["probability_difference"] < TOLERANCES["fp32"]


def test_the_auc_of_one_class_is_undefined_and_no_fault() -> None:
    assert math.isnan(values(REFERENCE[:5], label=np.ones(5, dtype=int))["auc"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.1])
def test_answers_that_are_no_probabilities_are_refused(wrong: float) -> None:
    probability = REFERENCE.copy()
    probability[7] = wrong
    with pytest.raises(RefusedError, match="not all probabilities"):
        values(probability)


def test_every_precision_of_every_engine_has_a_tolerance() -> None:
    assert {precision for engine in ENGINES.values() for precision in engine.precisions} == TOLERANCES.keys()


def test_the_largest_difference_of_nothing_is_zero() -> None:
    assert largest_difference(np.empty(0), np.empty(0)) == 0
