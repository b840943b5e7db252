import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from bench.comparisons import NOT_TESTED, Comparison, compare_cells, holm, sign_flip_p
from bench.intervals import auc_parts, auc_variance


def answers(right: np.ndarray, group: np.ndarray | None = None) -> pd.DataFrame:
    """Return predictions that are right where ``right`` is; every second group is malignant."""
    rows = len(right)
    group = np.arange(rows) if group is None else group
    label = group % 2
    probability = np.where(right, label, 1 - label) * 0.6 + 0.2 + np.linspace(0, 0.1, rows)
    names = [f"rsna/{number}" for number in range(rows)]
    columns = {"image_id": names, "copy": 0, "group_id": [f"g{number}" for number in group], "label": label}
    return pd.DataFrame({**columns, "probability": probability})


def compare(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    (one,) = compare_cells({0: {"a": first, "b": second}}, ["a", "b"])
    return one


# -- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 5), (12, 3), (3, 20), (150, 100)])
def test_groups_of_one_row_have_the_exact_mcnemar_test(only_first: int, only_second: int) -> None:
    difference = np.array([1] * only_first + [-1] * only_second + [0] * 30)
    of = only_first + only_second
    expected = binomtest(only_first, of).pvalue if of else 1
    assert sign_flip_p(difference) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("difference", [[3, -1, 2, 0, 1], [2, 2, -1, 4, -3, 1, 1, 1], [4], [1, 1, -2]])
def test_groups_of_several_rows_have_the_share_of_all_signs(difference: list[int]) -> None:
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(difference))).reshape(len(difference), -1)
    sums = np.abs(np.array(difference) @ signs)
    assert sign_flip_p(np.array(difference)) == pytest.approx((sums >= abs(sum(difference))).mean())


def test_very_many_differences_are_normal_and_quick() -> None:
    difference = np.array([1] * 10_200 + [-1] * 10_000)
    assert sign_flip_p(difference) == pytest.approx(binomtest(10_200, 20_200).pvalue, abs=5e-3)


def test_holm_is_the_papers_step_down() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9]) == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert len(holm([])) == 0


# -- cells -----------------------------------------------------------------------------------------------------------


def test_a_cell_that_is_right_more_often_is_better_and_the_other_worse() -> None:
    rows = np.arange(200)
    one = compare(answers(rows % 10 > 0), answers(rows % 10 > 3))
    assert one.accuracy_difference.value == pytest.approx(0.3)
    assert one.accuracy_difference.low < 0.3 < one.accuracy_difference.high
    assert (one.verdict, one.reverse().verdict) == ("better", "worse")
    assert one.reverse().accuracy_difference.low == -one.accuracy_difference.high
    assert one.accuracy_p == pytest.approx(binomtest(60, 60).pvalue)
    assert (one.n, one.groups, one.seeds, one.reason) == (200, 200, 1, "")


def test_cells_that_answer_alike_are_not_told_apart_and_not_certain_to_be_the_same() -> None:
    one = compare(answers(np.arange(50) % 3 > 0), answers(np.arange(50) % 3 > 0))
    assert (one.verdict, one.accuracy_p, one.auc_p) == ("not separated", 1, 1)
    assert one.accuracy_difference.low < 0 < one.accuracy_difference.high


def test_copies_of_a_row_are_one_witness() -> None:
    right = np.arange(40) % 8 > 0
    other = np.arange(40) % 8 > 1
    once = compare(answers(right), answers(other))
    group = np.tile(np.arange(40), 4)
    copied = compare(answers(np.tile(right, 4), group), answers(np.tile(other, 4), group))
    assert copied.accuracy_p == pytest.approx(once.accuracy_p)
    assert copied.accuracy_difference == pytest.approx(once.accuracy_difference)
    assert (copied.n, copied.groups) == (160, 40)


def test_the_auc_is_compared_by_delong() -> None:
    draw = np.random.default_rng(0)
    first, second = (answers(draw.random(100) < share) for share in (0.9, 0.7))
    one = compare(first, second)
    a, b = (auc_parts(f["label"].to_numpy(), f["probability"].to_numpy(), np.arange(100), 100) for f in (first, second))
    z = (a.auc - b.auc) / math.sqrt(auc_variance(a.parts - b.parts, a.has))
    assert one.auc_difference.value == pytest.approx(a.auc - b.auc)
    assert one.auc_p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


def test_several_seeds_are_pooled_by_group() -> None:
    rows = np.arange(60)
    first, second = answers(rows % 6 > 0), answers(rows % 6 > 1)
    once = compare(first, second)
    (twice,) = compare_cells({0: {"a": first, "b": second}, 1: {"a": first, "b": second}}, ["a", "b"])
    assert (twice.seeds, twice.n, twice.groups) == (2, 120, 60)
    assert twice.accuracy_p == pytest.approx(once.accuracy_p)
    assert twice.accuracy_difference == pytest.approx(once.accuracy_difference)
    assert twice.auc_difference == pytest.approx(once.auc_difference)


def test_only_cells_on_the_same_rows_are_tested() -> None:
    whole = answers(np.arange(40) % 8 > 0)
    found = compare_cells({0: {"a": whole, "b": whole[::2]}, 1: {"c": whole}}, ["a", "b", "c", "d"])
    assert {(one.first, one.second): one.reason for one in found}["a", "b"] == "tested on other rows"
    assert {one.reason for one in found[1:]} == {"no seed under which both are finished"}
    assert {one.verdict for one in found} == {NOT_TESTED}
    assert all(math.isnan(one.accuracy_p_holm) for one in found)


def test_one_class_has_no_test_of_the_auc() -> None:
    frame = answers(np.arange(20) % 4 > 0).assign(label=1)
    assert math.isnan(compare(frame, frame).auc_p)


def test_a_class_in_one_group_and_a_single_group_have_no_interval() -> None:
    frame = answers(np.arange(20) % 4 > 0)
    lone = frame.assign(group_id=np.where(frame["label"] == 1, "g", frame["group_id"]))
    changed = lone.assign(probability=lone["probability"].to_numpy()[::-1])
    one = compare(lone, changed)
    assert math.isnan(one.auc_p)
    assert math.isnan(one.auc_difference.low)
    single = compare(frame.assign(group_id="g"), answers(np.arange(20) % 2 > 0).assign(group_id="g"))
    assert single.reason == ""
    assert math.isnan(single.accuracy_difference.low)
    assert single.verdict == "not separated"


def test_cells_of_the_same_accuracy_are_rarely_told_apart() -> None:
    draw = np.random.default_rng(1)
    told = 0
    for _ in range(20):
        cells = {f"{number}": answers(draw.random(80) < 0.7) for number in range(6)}
        told += any(one.verdict in ("better", "worse") for one in compare_cells({0: cells}, list(cells)))
    assert told <= 3  # 5 % of 20 runs is 1; binomial, 3 or fewer has 98 %
