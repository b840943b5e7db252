"""The search is held to a plain loop over all matrices, and the scores to scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_score, recall_score

from bench.confusion_search import ROUNDING, ClassSizes, fitting_matrices, matrix_scores, nearest_matrix
from fusion.errors import UserError

SIZES = ClassSizes(malignant=(6, 7, 8), benign=(8, 9, 10))
EVERY = [
    (tp, p - tp, n - tn, tn)
    for p, n in itertools.product(SIZES.malignant, SIZES.benign)
    for tp, tn in itertools.product(range(p + 1), range(n + 1))
]


def scores_of(*matrix: float) -> np.ndarray:
    return matrix_scores(*np.array(matrix, dtype=float))


def residual_of(scores: np.ndarray, matrix: tuple[int, ...]) -> float:
    distance = np.abs(scores_of(*matrix) - scores)[~np.isnan(scores)]
    return math.inf if np.isnan(distance).any() else float(distance.max())


@pytest.mark.parametrize("matrix", [(3, 4, 2, 9), (0, 5, 1, 6), (5, 0, 6, 1), (120, 1, 30, 300)])
def test_scores_are_those_of_scikit_learn(matrix: tuple[int, int, int, int]) -> None:
    tp, fn, fp, tn = matrix
    label = np.repeat([1, 1, 0, 0], matrix)
    decision = np.repeat([1, 0, 1, 0], matrix)
    expected = [
        recall_score(label, decision),
        recall_score(label, decision, pos_label=0),
        precision_score(label, decision),
        precision_score(label, decision, pos_label=0),
        accuracy_score(label, decision),
        cohen_kappa_score(label, decision),
    ]
    assert scores_of(tp, fn, fp, tn) == pytest.approx(expected)


def test_a_score_without_a_denominator_is_not_a_number() -> None:
    assert np.isnan(scores_of(0, 5, 0, 6)).tolist() == [False, False, True, False, False, False]
    assert np.isnan(scores_of(5, 0, 6, 0)).tolist() == [False, False, False, True, False, False]


# -- fitting ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([matrix for matrix in EVERY if not np.isnan(scores_of(*matrix)).any()]))
def test_exactly_the_matrices_of_a_loop_are_found(matrix: tuple[int, int, int, int]) -> None:
    printed = np.round(scores_of(*matrix), 3)
    expected = {one for one in EVERY if residual_of(printed, one) <= ROUNDING + 1e-9}
    found = [tuple(one) for one in fitting_matrices(printed, SIZES).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert matrix in expected


def test_a_score_left_out_is_not_asked_for() -> None:
    printed = np.round(scores_of(5, 2, 1, 8), 3)
    misprinted = printed.copy()
    misprinted[0] = 0.1
    assert len(fitting_matrices(misprinted, SIZES)) == 0
    misprinted[0] = np.nan
    assert [5, 2, 1, 8] in fitting_matrices(misprinted, SIZES).tolist()


def test_scores_that_were_cut_are_found_as_cut() -> None:
    exact = scores_of(438, 43, 143, 412)
    cut = np.floor(exact * 1000) / 1000
    sizes = ClassSizes(malignant=(481,), benign=(555,))
    assert [438, 43, 143, 412] in fitting_matrices(cut, sizes, truncated=True).tolist()
    assert [438, 43, 143, 412] not in fitting_matrices(cut, sizes).tolist()


# -- nearest ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 1000), min_size=6, max_size=6))
def test_no_matrix_of_a_loop_is_nearer(thousandths: list[int]) -> None:
    scores = np.array(thousandths) / 1000
    matrix, residual = nearest_matrix(scores, SIZES)
    assert tuple(matrix.tolist()) in EVERY
    assert residual == residual_of(scores, tuple(matrix.tolist()))
    assert residual == pytest.approx(min(residual_of(scores, one) for one in EVERY))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([matrix for matrix in EVERY if not np.isnan(scores_of(*matrix)).any()]))
def test_the_nearest_of_exact_scores_gives_them(matrix: tuple[int, int, int, int]) -> None:
    _, residual = nearest_matrix(scores_of(*matrix), SIZES)
    assert residual == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scores", [[0.0] * 6, [1.0] * 6, [1, 0, 0, 0, 0, -1], [0, 1, 1, 0.5, 0.5, 0]])
def test_the_ends_of_the_range_have_a_nearest_matrix_with_all_scores(scores: list[float]) -> None:
    matrix, residual = nearest_matrix(np.array(scores, dtype=float), SIZES)
    assert math.isfinite(residual)
    assert residual == pytest.approx(min(residual_of(np.array(scores, dtype=float), one) for one in EVERY))
    assert not np.isnan(scores_of(*matrix)).any()


@pytest.mark.parametrize(("malignant", "benign"), [((), (5,)), ((5,), (0, 1)), ((-1,), (5,))])
def test_class_sizes_that_no_test_set_has_are_refused(malignant: tuple[int, ...], benign: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"class sizes: .* give one or more whole numbers from 1"):
        ClassSizes(malignant=malignant, benign=benign)
