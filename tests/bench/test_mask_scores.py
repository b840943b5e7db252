"""The scores of maps against lesions, by hand, and their intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from bench.explanation_rows import EXPLANATION_METRICS
from bench.mask_scores import cell_scores, image_scores

SIDE = 6
EVEN = np.ones((SIDE, SIDE), np.float32)


def test_an_image_by_hand() -> None:
    activation, mask = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), bool)
    mask[:2, :3] = True
    activation[0, 0], activation[5, 5], activation[1, 2] = 2, 1, 1
    scores = image_scores(activation, mask, EVEN)
    assert scores == {"mask_area": pytest.approx(6 / 36), "mask_share": 0.75, "pointing_hit": 1.0, "zero_map": 0.0}
    activation[5, 5] = 2
    assert image_scores(activation, mask, EVEN)["pointing_hit"] == 0.5


def test_a_map_that_tells_nothing_has_the_area_for_every_score() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:4, 1:5] = True
    even = np.pad(np.ones((4, 4), np.float32), 1)  # a map that does not cover the border
    scores = image_scores(even * 0.1, mask, even)
    assert scores["mask_area"] == scores["pointing_hit"] == 0.5
    assert scores["mask_share"] == pytest.approx(0.5)


def test_a_zero_map_has_no_share_and_is_counted() -> None:
    mask = np.ones((SIDE, SIDE), bool)
    zero = image_scores(np.zeros((SIDE, SIDE), np.float32), mask, EVEN)
    assert math.isnan(zero["mask_share"])
    assert math.isnan(zero["pointing_hit"])
    sound = image_scores(EVEN, mask, EVEN)
    images = pd.DataFrame([zero, sound, sound, image_scores(EVEN, None, EVEN)]).assign(group_id=list("abcd"))
    found = {one.metric: one for one in cell_scores(images)}
    assert (found["zero_maps"].value, found["zero_maps"].n) == (1, 4)
    assert (found["mask_share"].value, found["mask_share"].n) == (1, 2)


@given(
    arrays(np.float32, (SIDE, SIDE), elements=st.floats(0, 1e6, width=32)),
    arrays(bool, (SIDE, SIDE)).filter(lambda mask: bool(mask.any())),
)
def test_scores_lie_within_0_and_1(activation: np.ndarray, mask: np.ndarray) -> None:
    for value in image_scores(activation, mask, EVEN).values():
        assert math.isnan(value) or 0 <= value <= 1


def images_of(share: np.ndarray, group: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {"group_id": group, "mask_share": share, "mask_area": 0.1, "pointing_hit": 1.0 * (share > 0.3), "zero_map": 0.0}
    )


def test_values_and_intervals_of_a_cell() -> None:
    share = np.random.default_rng(0).uniform(0, 0.6, 200)
    found = {one.metric: one for one in cell_scores(images_of(share, np.arange(200)))}
    assert list(found) == list(EXPLANATION_METRICS)
    assert all(one.unit == EXPLANATION_METRICS[name] for name, one in found.items())
    assert found["mask_share"].value == pytest.approx(share.mean())
    assert found["mask_gain"].value == pytest.approx(share.mean() / 0.1)
    assert found["pointing_hit"].value == pytest.approx((share > 0.3).mean())
    half = 1.96 * share.std() / np.sqrt(200)  # for groups of one image the interval of a mean
    assert found["mask_share"].low == pytest.approx(share.mean() - half, abs=0.1 * half)
    assert found["mask_share"].high == pytest.approx(share.mean() + half, abs=0.1 * half)


def test_images_of_one_group_count_as_one_draw() -> None:
    share = np.random.default_rng(0).uniform(0, 0.6, 50)
    alone = next(iter(cell_scores(images_of(share, np.arange(50)))))
    four_each = next(iter(cell_scores(images_of(np.repeat(share, 4), np.repeat(np.arange(50), 4)))))
    assert (four_each.low, four_each.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert four_each.n == 200


def test_hits_that_are_all_alike_are_not_certain() -> None:
    found = {one.metric: one for one in cell_scores(images_of(np.full(13, 0.2), np.arange(13)))}
    hit = found["pointing_hit"]
    assert (hit.value, hit.low, hit.high) == (0, *binomtest(0, 13).proportion_ci(0.95, method="wilson"))
    assert math.isnan(found["mask_share"].low)


@pytest.mark.parametrize("count", [0, 1])
def test_without_several_groups_there_is_no_interval(count: int) -> None:
    found = {one.metric: one for one in cell_scores(images_of(np.full(count, 0.5), np.zeros(count)))}
    assert math.isnan(found["mask_share"].low)
    assert math.isnan(found["mask_share"].value) == (count == 0)


def test_lesions_that_no_map_reaches_have_no_gain() -> None:
    images = images_of(np.zeros(3), np.arange(3)).assign(mask_area=[0.0, 0.0, 0.0])
    found = {one.metric: one for one in cell_scores(images)}
    assert (found["mask_share"].value, found["mask_area"].value) == (0, 0)
    assert math.isnan(found["mask_gain"].value)
    some = {
        one.metric: one for one in cell_scores(images.assign(mask_area=[0.0, 0.0, 0.3], mask_share=[0.0, 0.0, 0.6]))
    }
    assert some["mask_gain"].value == pytest.approx(2)
    assert math.isnan(some["mask_gain"].low)  # some draws lack the one image
