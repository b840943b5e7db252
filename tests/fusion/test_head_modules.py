from collections.abc import Callable

import numpy as np
import pytest
import torch

from fusion.errors import UserError
from fusion.models.head_modules import HEAD_MODULES, head_module
from fusion.models.heads import HEADS, fit_head, head_tensors, malignant_probability

TOLERANCE = 1e-5
Data = tuple[np.ndarray, np.ndarray]


def overlapping(rows: int, features: int, seed: int = 0) -> Data:
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 3 == 0
    return (draw.normal(size=(rows, features)) + 0.6 * labels[:, None]).astype(np.float32), labels.astype(np.int64)


def wide() -> Data:
    """As wide as the widest backbone, and as far from zero as pooled features are."""
    features, labels = overlapping(120, 2048)
    return np.abs(features) * 3, labels


def far_from_zero() -> Data:
    features, labels = overlapping(90, 20)
    return features + 1000, labels


def constant_features() -> Data:
    features, labels = overlapping(90, 10)
    features[:, 3:7] = 0.25
    return features, labels


def of_different_scales() -> Data:
    features, labels = overlapping(90, 8)
    return features * np.float32(10.0) ** np.arange(-4, 4), labels


def one_of_each_side() -> Data:
    """Two groups of equal points: one support vector on each side."""
    labels = np.repeat([0, 1], 20)
    return np.repeat([[0.0, 0.0], [3.0, 1.0]], 20, axis=0).astype(np.float32), labels


def tied() -> Data:
    """The same points under both labels: nothing is known, and all probabilities are the same."""
    points = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    return np.concatenate([points, points]), np.repeat([0, 1], 30)


CASES: list[Callable[[], Data]] = [
    *(wide, far_from_zero, constant_features, of_different_scales, one_of_each_side, tied),
]


@pytest.mark.filterwarnings("ignore:lbfgs failed")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", HEADS)
def test_the_probabilities_are_those_of_scikit_learn(name: str, case: Callable[[], Data]) -> None:
    features, labels = case()
    head = fit_head(name, features, labels, 0)
    module = head_module(name, head_tensors(name, head)).eval()
    fresh = np.concatenate([features, features[::-1] * np.float32(1.1), np.zeros_like(features[:1])])
    served = module(torch.from_numpy(fresh))
    assert served.dtype == torch.float32
    assert served.shape == (len(fresh),)
    np.testing.assert_allclose(served.numpy(), malignant_probability(head, fresh), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", HEADS)
def test_a_row_has_its_probability_in_any_batch(name: str) -> None:
    features, labels = overlapping(60, 6)
    module = head_module(name, head_tensors(name, fit_head(name, features, labels, 0)))
    together = module(torch.from_numpy(features))
    alone = torch.cat([module(torch.from_numpy(features[i : i + 1])) for i in range(len(features))])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    assert float(together.std()) > 0.1


@pytest.mark.parametrize("name", HEADS)
def test_the_wrong_arrays_are_refused(name: str) -> None:
    features, labels = overlapping(30, 4)
    arrays = head_tensors(name, fit_head(name, features, labels, 0))
    lacking = {key: value for key, value in arrays.items() if key != "intercept" and key != "var"}
    with pytest.raises(UserError, match=rf"a {HEAD_MODULES[name].__name__} needs the arrays "):
        head_module(name, lacking)


def test_there_is_a_module_for_every_classifier() -> None:
    assert HEAD_MODULES.keys() == HEADS.keys()
