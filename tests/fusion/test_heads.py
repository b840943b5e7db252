import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.svm import SVC

from fusion.models.heads import HEADS, PLATT_FOLDS, fit_head, head_tensors, malignant_probability

FEATURES = 7


def data(rows: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features, as the backbones give them, of two overlapping classes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.4).astype(np.int64)
    centres = np.array([[0.0] * FEATURES, [0.8] * FEATURES])
    return (centres[labels] + rng.normal(size=(rows, FEATURES))).astype(np.float32), labels


def by_hand(name: str, arrays: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    x = features.astype(np.float64)
    if name == "lr":
        return expit(x @ arrays["coef"][0] + arrays["intercept"][0])
    if name == "nb":
        likelihood = norm.logpdf(x[:, None], arrays["theta"], np.sqrt(arrays["var"])).sum(axis=2)
        joint = likelihood + np.log(arrays["class_prior"])
        return expit(joint[:, 1] - joint[:, 0])
    distance = ((x[:, None] - arrays["support_vectors"][None]) ** 2).sum(axis=2)
    decision = np.exp(-arrays["gamma"] * distance) @ arrays["dual_coef"][0] + arrays["intercept"]
    return 1 / (1 + np.exp(arrays["sigmoid_a"] * decision + arrays["sigmoid_b"]))


@pytest.mark.parametrize("name", HEADS)
def test_the_tensors_are_enough_to_compute_the_probabilities(name: str) -> None:
    features, labels = data()
    head = fit_head(name, features, labels, 0)
    fresh = data(40, seed=1)[0]
    probability = malignant_probability(head, fresh)
    assert probability.shape == (40,)
    assert probability.dtype == np.float64
    arrays = head_tensors(name, head)
    assert all(array.dtype == np.float64 and array.flags.c_contiguous for array in arrays.values())
    np.testing.assert_allclose(by_hand(name, arrays, fresh), probability, rtol=0, atol=1e-9)
    assert probability.std() > 0.1


@pytest.mark.parametrize("name", HEADS)
def test_malignant_images_get_the_higher_probability(name: str) -> None:
    features, labels = data(200)
    probability = malignant_probability(fit_head(name, features, labels, 0), features)
    assert probability[labels == 1].mean() > probability[labels == 0].mean() + 0.2


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_probabilities(name: str) -> None:
    features, labels = data()
    first, second = (malignant_probability(fit_head(name, features, labels, 3), features) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_hyperparameters_are_those_of_the_paper() -> None:
    features, labels = data()
    heads = {name: fit_head(name, features, labels, 0) for name in HEADS}
    assert set(heads) == {"lr", "nb", "svm"}
    assert heads["lr"].C == 1
    assert heads["nb"].var_smoothing == 1e-9
    machine = heads["svm"].calibrated_classifiers_[0].estimator
    assert (machine.C, machine.kernel) == (1, "rbf")
    assert head_tensors("svm", heads["svm"])["gamma"] == [1 / FEATURES]
    assert machine._gamma == pytest.approx(1 / FEATURES)
    assert heads["svm"].cv == PLATT_FOLDS


def test_logistic_regression_is_l2_regularised() -> None:
    features, labels = data()
    head = fit_head("lr", features, labels, 0)
    x, w = features.astype(np.float64), head.coef_[0]
    residual = expit(x @ w + head.intercept_) - labels
    np.testing.assert_allclose(x.T @ residual + w, 0, atol=1e-2)  # gradient of the loss plus |w|^2 / 2, at its minimum
    assert abs(residual.sum()) < 1e-2


def test_the_support_vector_machine_is_fitted_on_all_rows() -> None:
    features, labels = data()
    alone = SVC(C=1.0, kernel="rbf", gamma=1 / FEATURES).fit(features, labels)
    arrays = head_tensors("svm", fit_head("svm", features, labels, 0))
    np.testing.assert_allclose(arrays["dual_coef"], alone.dual_coef_)
    np.testing.assert_array_equal(arrays["support_vectors"], alone.support_vectors_)
