import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from bench.intervals import RESAMPLES, SEED
from bench.metrics import BINS, COUNTS, SCORES, Measured, classification_metrics, decide, subset_metrics

NAMES = [*("sensitivity", "specificity", "ppv", "npv", "accuracy", "kappa", "auc", "brier", "ece"), *COUNTS]
PROPORTIONS = NAMES[:5]


def measure(label: ArrayLike, probability: ArrayLike, group: ArrayLike | None = None) -> dict[str, Measured]:
    """Return the metrics by name; without ``group`` every row is a group of its own."""
    group = np.arange(len(np.array(label))) if group is None else np.array(group)
    measured = classification_metrics(np.array(label), np.array(probability, dtype=np.float64), group)
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
        "brier": brier_score_loss(label, probability),
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
    for name in ("sensitivity", "specificity", "ppv", "npv", "accuracy", "kappa", "auc", "brier"):
        assert measured[name].low < measured[name].value < measured[name].high
    for name in COUNTS:
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


# -- calibration -----------------------------------------------------------------------------------------------------


def test_the_calibration_error_is_that_of_scikit_learns_curve() -> None:
    label, probability = random_case(0, 500, 10**9)
    of_bins, mean = calibration_curve(label, probability, n_bins=BINS)
    rows = np.histogram(probability, BINS, (0, 1))[0]
    expected = (np.abs(of_bins - mean) * rows[rows > 0]).sum() / 500
    assert measure(label, probability)["ece"].value == pytest.approx(expected)


def test_probabilities_at_the_ends_lie_in_the_outer_bins() -> None:
    assert measure([0, 1, 0, 1], [0, 1, 1, 0])["ece"].value == 0.5
    assert measure([0, 1, 1, 0], [0, 1, 1, 0])["ece"].value == 0
    assert measure([0, 0], [0.9, 0.9])["ece"].value == pytest.approx(0.9)


def test_a_calibrated_model_may_be_perfectly_calibrated_and_a_wrong_one_may_not() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random(400)
    label = (draw.random(400) < truth).astype(int)
    calibrated, wrong = measure(label, truth)["ece"], measure(label, truth**3)["ece"]
    assert calibrated.low == 0 < calibrated.value <= calibrated.high
    assert 0.1 < wrong.low < wrong.value <= wrong.high


# -- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "brier"])
def test_where_every_row_is_a_group_the_interval_is_scipys_bca(name: str) -> None:
    label, probability = random_case(1, 80, 10**9)
    per_row = {"accuracy": decide(probability) == label, "brier": (probability - label) ** 2}[name]
    by_scipy = bootstrap(
        (per_row,), np.mean, n_resamples=RESAMPLES, batch=RESAMPLES, rng=np.random.default_rng(SEED), method="BCa"
    )
    measured = measure(label, probability)[name]
    assert (measured.low, measured.high) == pytest.approx(tuple(by_scipy.confidence_interval), abs=1e-9)


def test_where_every_row_is_a_group_kappas_interval_is_scipys_bca() -> None:
    label, probability = random_case(2, 80, 10**9)

    by_scipy = bootstrap(
        (label, decide(probability)),
        lambda *columns: float(cohen_kappa_score(*columns)),
        paired=True,
        vectorized=False,
        n_resamples=1000,
        rng=np.random.default_rng(5),
        method="BCa",
    )
    measured = measure(label, probability)["kappa"]
    assert (measured.low, measured.high) == pytest.approx(tuple(by_scipy.confidence_interval), abs=0.03)


def test_copies_in_one_group_change_no_interval() -> None:
    label, probability = random_case(3, 60, 10**9)
    once = measure(label, probability)
    copied = measure(np.tile(label, 4), np.tile(probability, 4), np.tile(np.arange(60), 4))
    for name in NAMES[:9]:
        assert (copied[name].low, copied[name].high) == pytest.approx((once[name].low, once[name].high), abs=1e-9)


@pytest.mark.parametrize(("probability", "value"), [(0.9, 1), (0.1, 0)])
def test_all_right_and_all_wrong_have_wilsons_interval_for_the_number_of_groups(
    probability: float, value: float
) -> None:
    sensitivity = measure([1] * 40 + [0], [probability] * 40 + [0.2], [*np.arange(40) // 2, 99])["sensitivity"]
    assert (sensitivity.n, sensitivity.value) == (40, value)
    expected = binomtest(20 * value, 20).proportion_ci(0.95, method="wilson")
    assert (sensitivity.low, sensitivity.high) == pytest.approx((expected.low, expected.high))


def test_perfect_agreement_is_not_certain() -> None:
    label = np.array([0, 1] * 20)
    kappa = measure(label, label * 0.8 + 0.1)["kappa"]
    share = binomtest(20, 20).proportion_ci(0.95, method="wilson").low
    assert (kappa.low, kappa.value, kappa.high) == pytest.approx((2 * share - 1, 1, 1))


def test_one_group_tells_little() -> None:
    measured = measure([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.45], ["a"] * 4)
    assert measured["accuracy"].low < 0.4 < 0.99 > measured["accuracy"].high
    for name in ("auc", "brier", "ece"):
        assert not math.isnan(measured[name].value)
        assert math.isnan(measured[name].low)
        assert math.isnan(measured[name].high)


def test_the_same_predictions_have_the_same_intervals_in_any_order() -> None:
    label, probability = random_case(4, 50, 100)
    group, order = np.arange(50) // 2, np.random.default_rng(0).permutation(50)
    one, other = measure(label, probability, group), measure(label[order], probability[order], group[order])
    for name in NAMES[:9]:
        assert (one[name].low, one[name].high) == pytest.approx((other[name].low, other[name].high), abs=1e-12)


# -- subsets ---------------------------------------------------------------------------------------------------------


def test_every_modality_and_source_that_occurs_is_measured_alone() -> None:
    label, probability = random_case(5, 90, 10**9)
    source = np.resize(["rsna", "busi", "oasbud"], 90)
    modality = np.where(source == "rsna", "mammography", "ultrasound")
    columns = {"modality": modality, "source": source, "group_id": [f"{number}" for number in range(90)]}
    measured = subset_metrics(pd.DataFrame(columns | {"label": label, "probability": probability}))
    assert list(dict.fromkeys(one.subset for one in measured)) == [
        "all",
        *("modality=mammography", "modality=ultrasound"),
        *("source=busi", "source=oasbud", "source=rsna"),
    ]
    assert [one.metric for one in measured] == NAMES * 6
    found = {(one.subset, one.metric): one for one in measured}
    assert found["modality=mammography", "auc"].value == found["source=rsna", "auc"].value
    assert found["source=busi", "auc"].value == pytest.approx(
        roc_auc_score(label[source == "busi"], probability[source == "busi"])
    )
    assert found["modality=ultrasound", "accuracy"].n == 60


def test_ends_lie_within_what_a_score_can_be() -> None:
    label, group = np.arange(12) % 2, np.arange(12)
    for probability in (1 - label, np.where(group == 0, 0.5, 1 - label), np.full(12, 1.0)):
        for one in classification_metrics(label, probability.astype(float), group):
            if one.metric in SCORES:
                assert not np.abs([one.low, one.high]).max() > 1, one
