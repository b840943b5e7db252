"""Model 1's classifiers on pooled features: logistic regression, naive Bayes and support vector machine.

Hyperparameters as the paper states them (Wang et al. 2024, 2.3). Features are not standardised: the paper does not
say they are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

PLATT_FOLDS = 5

HEADS: dict[str, Callable[[int], Any]] = {
    "lr": lambda seed: LogisticRegression(C=1.0, max_iter=5000, random_state=seed),
    "nb": lambda seed: GaussianNB(var_smoothing=1e-9),  # noqa: ARG005
    # gamma "auto" is 1 / number of features; Platt's sigmoid is fitted on out-of-fold decision values.
    "svm": lambda seed: CalibratedClassifierCV(
        SVC(C=1.0, kernel="rbf", gamma="auto", random_state=seed), method="sigmoid", cv=PLATT_FOLDS, ensemble=False
    ),
}


def fit_head(name: str, features: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Fit the classifier ``name`` in float64 on [R, D] features and [R] labels 0 or 1; return its estimator."""
    return HEADS[name](seed).fit(np.asarray(features, dtype=np.float64), labels)


def malignant_probability(head: Any, features: np.ndarray) -> np.ndarray:
    """Return the probability of malignancy, [R] float64, of [R, D] features."""
    return np.asarray(head.predict_proba(np.asarray(features, dtype=np.float64)))[:, 1]


def head_tensors(name: str, head: Any) -> dict[str, np.ndarray]:
    """Return what a fitted classifier has learnt as named arrays, enough to compute its probabilities again.

    ``lr``: ``coef``, ``intercept``. ``nb``: ``theta``, ``var``, ``class_prior``. ``svm``: ``support_vectors``,
    ``dual_coef``, ``intercept``, ``gamma``, and Platt's ``sigmoid_a`` and ``sigmoid_b``: p = 1 / (1 + exp(a f + b)).
    """
    if name == "lr":
        arrays = {"coef": head.coef_, "intercept": head.intercept_}
    elif name == "nb":
        arrays = {"theta": head.theta_, "var": head.var_, "class_prior": head.class_prior_}
    else:
        calibrated = head.calibrated_classifiers_[0]
        machine, sigmoid = calibrated.estimator, calibrated.calibrators[0]
        arrays = {
            "support_vectors": machine.support_vectors_,
            "dual_coef": machine.dual_coef_,
            "intercept": machine.intercept_,
            "gamma": np.array([1.0 / machine.n_features_in_]),
            "sigmoid_a": np.array([sigmoid.a_]),
            "sigmoid_b": np.array([sigmoid.b_]),
        }
    return {key: np.ascontiguousarray(value, dtype=np.float64) for key, value in arrays.items()}
