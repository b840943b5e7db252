import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from bench.intervals import Estimate, auc_parts, auc_variance, delong_auc, roc_band, wilson


def scored(seed: int, rows: int, levels: int = 10**9) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of both classes, and probabilities on a grid of ``levels`` steps, so that many are equal."""
    draw = np.random.default_rng(seed)
    label = np.concatenate([[0, 1], draw.integers(0, 2, rows - 2)])
    return label, np.round(np.clip(0.3 * label + 0.7 * draw.random(rows), 0, 1) * levels) / levels


def kernel(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return [positives, negatives]: 1 where the positive is above the negative, a half where they are equal."""
    difference = probability[label == 1][:, None] - probability[label == 0]
    return (np.sign(difference) + 1) / 2


# -- AUC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 10, 10**9])
@pytest.mark.parametrize("rows", [4, 7, 300])
def test_the_auc_is_scikit_learns(rows: int, levels: int) -> None:
    label, probability = scored(rows, rows, levels)
    estimate = delong_auc(label, probability, np.arange(rows))
    assert estimate.value == pytest.approx(roc_auc_score(label, probability), abs=1e-12)


@pytest.mark.parametrize("levels", [10, 10**9])
def test_rows_that_are_their_own_groups_have_delongs_covariance(levels: int) -> None:
    label, first = scored(0, 200, levels)
    second = np.clip(first + np.random.default_rng(1).normal(0, 0.2, 200), 0, 1)
    kernels = [kernel(label, one) for one in (first, second)]
    positives, negatives = kernels[0].shape
    # DeLong et al. 1988, equations 4 to 6
    expected = (
        np.cov([k.mean(axis=1) for k in kernels]) / positives + np.cov([k.mean(axis=0) for k in kernels]) / negatives
    )
    one, other = (auc_parts(label, probability, np.arange(200), 200) for probability in (first, second))
    assert (one.auc, other.auc) == pytest.approx([k.mean() for k in kernels])
    assert auc_variance(one.parts, one.has) == pytest.approx(expected[0, 0])
    assert auc_variance(one.parts - other.parts, one.has) == pytest.approx(
        expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
    )


def test_rows_in_groups_have_obuchowskis_variance() -> None:
    label, probability = scored(3, 60, 20)
    group = np.random.default_rng(4).integers(0, 20, 60)
    one = auc_parts(label, probability, group, 20)
    above = kernel(label, probability)
    positives, negatives = above.shape
    # Obuchowski 1997, section 3, written out group by group
    groups = np.unique(group)
    of_positives = np.array([(above.mean(axis=1) - one.auc)[group[label == 1] == g].sum() for g in groups])
    of_negatives = np.array([(above.mean(axis=0) - one.auc)[group[label == 0] == g].sum() for g in groups])
    with_positives, with_negatives = len(set(group[label == 1])), len(set(group[label == 0]))
    expected = (
        with_positives / (with_positives - 1) * (of_positives**2).sum() / positives**2
        + with_negatives / (with_negatives - 1) * (of_negatives**2).sum() / negatives**2
        + 2 * len(groups) / (len(groups) - 1) * (of_positives * of_negatives).sum() / (positives * negatives)
    )
    assert auc_variance(one.parts, one.has) == pytest.approx(expected)


def test_copies_in_one_group_add_no_certainty() -> None:
    label, probability = scored(5, 100)
    once = delong_auc(label, probability, np.arange(100))
    copied = delong_auc(np.tile(label, 4), np.tile(probability, 4), np.tile(np.arange(100), 4))
    np.testing.assert_allclose(copied, once, rtol=1e-12)
    alone = delong_auc(np.tile(label, 4), np.tile(probability, 4), np.arange(400))
    assert alone.high - alone.low < 0.6 * (once.high - once.low)


def test_neither_the_order_nor_the_names_of_groups_matter() -> None:
    label, probability = scored(6, 50)
    order = np.random.default_rng(0).permutation(50)
    names = np.array([f"rsna/{number // 2:02}" for number in range(50)])
    as_is = delong_auc(label, probability, np.arange(50) // 2)
    np.testing.assert_allclose(delong_auc(label[order], probability[order], names[order]), as_is)


def test_a_perfect_auc_is_not_certain() -> None:
    label = np.array([0] * 30 + [1] * 12)
    assert delong_auc(label, label * 0.8, np.arange(42)) == Estimate(1, *wilson(12, 12))
    assert delong_auc(label, 1 - label * 0.8, np.arange(42)) == Estimate(0, *wilson(0, 12))
    assert wilson(12, 12)[0] == pytest.approx(0.7575, abs=1e-4)


def test_what_is_undefined_is_nan() -> None:
    assert all(math.isnan(number) for number in delong_auc([1, 1], [0.2, 0.3], ["a", "b"]))
    alone = delong_auc([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], ["a", "b", "c", "c"])
    assert alone.value == 0.75
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


# -- ROC band --------------------------------------------------------------------------------------------------------


def test_the_band_holds_scikit_learns_curve() -> None:
    label, probability = scored(7, 200, 30)
    rates = np.linspace(0, 1, 21)
    tpr, low, high = roc_band(label, probability, np.arange(200) // 2, rates)
    x, y, _ = roc_curve(label, probability, drop_intermediate=False)
    np.testing.assert_allclose(tpr, np.interp(rates, x, y))
    assert (low <= tpr).all()
    assert (tpr <= high).all()
    assert (np.diff(low) >= 0).all()
    assert (low[:-1] < high[:-1]).all()


def test_the_band_of_a_perfect_curve_is_wilsons() -> None:
    label = np.array([0] * 30 + [1] * 12)
    tpr, low, high = roc_band(label, label * 0.8, np.arange(42), np.array([0, 0.5]))
    assert tpr.tolist() == high.tolist() == [1, 1]
    assert low == pytest.approx([wilson(12, 12)[0]] * 2)


def test_copies_do_not_narrow_the_band_and_it_can_be_made_again() -> None:
    label, probability = scored(8, 60)
    rates = np.array([0.2, 0.5])
    once = roc_band(label, probability, np.arange(60), rates)
    copied = roc_band(np.tile(label, 3), np.tile(probability, 3), np.tile(np.arange(60), 3), rates)
    np.testing.assert_allclose(copied, once)


def test_one_class_has_no_curve() -> None:
    assert np.isnan(roc_band([1, 1], [0.1, 0.9], ["a", "b"], np.array([0, 0.5, 1]))).all()


@pytest.mark.parametrize(("hits", "of"), [(81, 263), (15, 148), (0, 20), (29, 29)])
def test_wilsons_interval_is_scipys(hits: int, of: int) -> None:
    expected = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    assert wilson(hits, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("of", range(1, 50))
def test_wilsons_interval_holds_the_share(of: int) -> None:
    assert (wilson(0, of)[0], wilson(of, of)[1]) == (0, 1)
