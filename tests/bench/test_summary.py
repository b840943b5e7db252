import math

import numpy as np
import pytest
from scipy.stats import t as student

from bench.report.summary import mean_interval


def ends(value: list[float], low: list[float], high: list[float], least: float = 0.0) -> tuple[float, float]:
    return mean_interval(np.array(value), np.array(low), np.array(high), least)


def test_one_seed_keeps_its_interval() -> None:
    assert ends([0.8], [0.7], [0.85]) == (0.7, 0.85)


def test_seeds_that_agree_have_the_interval_of_one() -> None:
    assert ends([0.8] * 3, [0.7] * 3, [0.85] * 3) == pytest.approx((0.7, 0.85))


def test_seeds_without_doubt_of_their_own_have_students_interval() -> None:
    value = [0.7, 0.8, 0.75]
    half = student.ppf(0.975, 2) * np.std(value, ddof=1) / math.sqrt(3)
    assert ends(value, value, value) == pytest.approx((0.75 - half, 0.75 + half))


def test_both_doubts_make_more_than_each_alone() -> None:
    low, high = ends([0.78, 0.80, 0.82], [0.70, 0.72, 0.74], [0.84, 0.86, 0.88])
    assert low < 0.72
    assert high > 0.86
    assert high - low < 0.14 + 2 * student.ppf(0.975, 2) * 0.02 / math.sqrt(3)


def test_ends_stay_within_what_the_metric_can_be() -> None:
    assert ends([0.1, 0.9], [0, 0.8], [0.2, 1]) == (0, 1)
    assert ends([-0.9, 0.9], [-1, 0.8], [-0.8, 1], least=-1) == (-1, 1)


def test_an_undefined_value_has_no_interval() -> None:
    assert all(math.isnan(end) for end in ends([0.8, math.nan], [0.7, math.nan], [0.9, math.nan]))
