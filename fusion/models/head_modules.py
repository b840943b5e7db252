"""Model 1's fitted classifiers as torch modules, of the arrays that ``heads.head_tensors`` keeps: they can be exported.

Each maps [R, D] features to the probability of malignancy, [R] float32, and computes in float64 as scikit-learn does:
sums over thousands of features would not keep five decimals in float32.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fusion.errors import UserError


class _Head(nn.Module):
    """Holds the arrays of a classifier as float64 buffers."""

    names: tuple[str, ...]

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        if arrays.keys() != set(self.names):
            raise UserError(
                f"a {type(self).__name__} needs the arrays {', '.join(self.names)}, not {', '.join(arrays)}"
            )
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array, dtype=np.float64)))


class LogisticRegressionHead(_Head):
    """p = sigmoid(w x + b)."""

    names = ("coef", "intercept")
    coef: Tensor
    intercept: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities."""
        return torch.sigmoid(features.double() @ self.coef[0] + self.intercept).float()


class NaiveBayesHead(_Head):
    """Gaussian naive Bayes: p = sigmoid(log N(x; theta_1, var_1) prior_1 - log N(x; theta_0, var_0) prior_0)."""

    names = ("theta", "var", "class_prior")
    theta: Tensor
    var: Tensor
    class_prior: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities."""
        squares = (features.double()[:, None] - self.theta) ** 2 / self.var
        joint = torch.log(self.class_prior) - 0.5 * (torch.log(self.var) + squares).sum(dim=2)
        return torch.sigmoid(joint[:, 1] - joint[:, 0]).float()


class SupportVectorHead(_Head):
    """RBF machine with Platt's sigmoid: f = sum_i a_i exp(-gamma |x - s_i|^2) + b, p = sigmoid(-(A f + B))."""

    names = ("support_vectors", "dual_coef", "intercept", "gamma", "sigmoid_a", "sigmoid_b")
    support_vectors: Tensor
    dual_coef: Tensor
    intercept: Tensor
    gamma: Tensor
    sigmoid_a: Tensor
    sigmoid_b: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities."""
        x, s = features.double(), self.support_vectors
        # |x - s|^2 without an array of [R, support vectors, D]
        distances = (x**2).sum(dim=1, keepdim=True) + (s**2).sum(dim=1) - 2 * x @ s.T
        decision = torch.exp(-self.gamma * distances.clamp(min=0)) @ self.dual_coef[0] + self.intercept
        return torch.sigmoid(-(self.sigmoid_a * decision + self.sigmoid_b)).float()


HEAD_MODULES: dict[str, type[_Head]] = {
    "lr": LogisticRegressionHead,
    "nb": NaiveBayesHead,
    "svm": SupportVectorHead,
}


def head_module(name: str, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """Return the classifier ``name`` as a module.

    Args:
        name: a key of ``fusion.models.heads.HEADS``.
        arrays: as ``fusion.models.heads.head_tensors`` returns them, and a cell's ``model.safetensors`` holds them.

    Raises:
        UserError: the arrays are not those of the classifier.
    """
    return HEAD_MODULES[name](arrays)
