import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from bench.metrics import Measured, classification_metrics, decide

NAMES = ["sensitivity", "specificity", "ppv", "npv", "accuracy", "kappa", "auc", "tp", "fp", "tn", "fn"]
PROPORTIONS = NAMES[:5]


def measure(label: list[int] | np.ndarray, probability: list[float] | np.ndarray) -> dict[str, Measured]:
    measured = classification_metrics(np.array(label), np.array(probability, dtype=np.float64))
    assert [one.metric for one in measured] == NAMES
    return {one.metric: one for one in measured}


def random_case(seed: int, rows: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of both classes, and probabilities on a grid of ``levels`` steps, so that many are equal."""
    draw = np.random.default_rng(seed)
    label = np.concatenate([[0, 1], draw.integers(0, 2, rows - 2)])
    return label, np.round(np.clip(0.3 * label + 0.7 * draw.random(rows), 0, 1) * levels) / levels


@pytest.mark.parametrize("levels", [2, 10, 10**9])
@pytest.mark.parametrize("rows", [2, 7, 300])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_scikit_learns(seed: int, rows: int, levels: int) -> None:
    label, probability = random_case(seed, rows, levels)
    decision = (probability >= 0.5).astype(int)
    tn, fp, fn, tp = confusion_matrix(label, decision, labels=[0, 1]).ravel()
    expected = {
        "sensitivity": recall_score(label, decision, pos_label=1, zero_division=np.nan),
        "specificity": recall_score(label, decision, pos_label=0, zero_division=np.nan),
        "ppv": precision_score(label, decision, pos_label=1, zero_division=np.nan),
        "npv": precision_score(label, decision, pos_label=0, zero_division=np.nan),
        "accuracy": accuracy_score(label, decision),
        "kappa": cohen_kappa_score(label, decision),
        "auc": roc_auc_score(label, probability),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }
    measured = measure(label, probability)
    for name, value in expected.items():
        assert measured[name].value == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_counts_units_and_n() -> None:
    measured = measure([1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.4])
    assert {name: measured[name].value for name in ("tp", "fn", "fp", "tn")} == {"tp": 2, "fn": 1, "fp": 1, "tn": 3}
    assert {name: measured[name].n for name in PROPORTIONS} == {
        "sensitivity": 3,
        "specificity": 4,
        "ppv": 3,
        "npv": 4,
        "accuracy": 7,
    }
    assert {measured[name].n for name in NAMES if name not in PROPORTIONS} == {7}
    assert {one.metric: one.unit for one in measured.values()} == dict.fromkeys(NAMES, "1") | dict.fromkeys(
        ("tp", "fp", "tn", "fn"), "rows"
    )
    for name in PROPORTIONS:
        assert measured[name].low < measured[name].value < measured[name].high
    for name in NAMES[5:]:
        assert math.isnan(measured[name].low)
        assert math.isnan(measured[name].high)


def test_a_half_is_malignant() -> None:
    assert decide(np.array([0.0, np.nextafter(0.5, 0), 0.5, 1.0])).tolist() == [0, 0, 1, 1]
    measured = measure([0, 1], [0.5, 0.5])
    assert (measured["sensitivity"].value, measured["specificity"].value) == (1, 0)
    assert (measured["auc"].value, measured["kappa"].value) == (0.5, 0)


@pytest.mark.parametrize(
    ("probability", "undefined", "defined"), [(0.9, "npv", ("ppv", 0.25)), (0.1, "ppv", ("npv", 0.75))]
)
def test_one_decision_for_all_leaves_a_predictive_value_undefined(
    probability: float, undefined: str, defined: tuple[str, float]
) -> None:
    measured = measure([0, 0, 1, 0], [probability] * 4)
    assert math.isnan(measured[undefined].value)
    assert math.isnan(measured[undefined].low)
    assert measured[undefined].n == 0
    assert measured[defined[0]].value == defined[1]
    assert (measured["kappa"].value, measured["auc"].value) == (0, 0.5)


@pytest.mark.parametrize(("label", "undefined"), [(0, "sensitivity"), (1, "specificity")])
def test_one_class_leaves_agreement_and_ranking_undefined(label: int, undefined: str) -> None:
    measured = measure([label] * 3, [0.2, 0.7, 0.6])
    for name in ("kappa", "auc", undefined):
        assert math.isnan(measured[name].value)
    assert measured["accuracy"].value == pytest.approx(2 / 3 if label else 1 / 3)


# Newcombe, Statistics in Medicine 17 (1998) 857, table I: the score method without continuity correction.
@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    sensitivity = measure([1] * of + [0], [0.9] * hits + [0.1] * (of - hits + 1))["sensitivity"]
    assert (sensitivity.n, sensitivity.value) == (of, hits / of)
    assert round(sensitivity.low, 4) == low
    assert round(sensitivity.high, 4) == high
    specificity = measure([0] * of + [1], [0.1] * hits + [0.9] * (of - hits + 1))["specificity"]
    assert (specificity.low, specificity.high) == (sensitivity.low, sensitivity.high)
