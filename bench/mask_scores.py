"""How much of a class-activation map lies inside the lesions."""

import math

import numpy as np
import pandas as pd

from bench.intervals import Estimate, bca, bootstrap, wilson
from bench.metrics import Measured, measured

MEANS = ("mask_share", "mask_area", "mask_gain", "pointing_hit")


def image_scores(activation: np.ndarray, mask: np.ndarray | None, even: np.ndarray) -> dict[str, float]:
    """Return ``mask_area``, ``mask_share``, ``pointing_hit`` and ``zero_map`` of one image, NaN where undefined.

    The share is the energy-based pointing game of Wang et al. (Score-CAM, CVPRW 2020), the hit the pointing game of
    Zhang et al. (IJCV 2018) without their tolerance of 15 pixels; where the map is largest in several pixels, it is the
    share of these inside. An even map has ``mask_area`` for both.

    Args:
        activation: [S, S], finite, none negative.
        mask: [S, S] bool, true in at least one pixel; None where no mask is known.
        even: [S, S], the map that tells nothing: 1 in all pixels of the image that the map covers.
    """
    wide = activation.astype(np.float64)
    total = wide.sum()
    zero = not total > 0
    scores = {"mask_area": math.nan, "mask_share": math.nan, "pointing_hit": math.nan, "zero_map": float(zero)}
    if mask is not None:
        scores["mask_area"] = float(even[mask].sum() / even.sum())
        if not zero:
            scores["mask_share"] = min(float(wide[mask].sum() / total), 1.0)
            scores["pointing_hit"] = float(mask[activation == activation.max()].mean())
    return scores


def cell_scores(images: pd.DataFrame) -> list[Measured]:
    """Return ``EXPLANATION_METRICS`` of the images of one cell.

    Intervals: BCa over groups, as images of one group are alike; none where resamples don't vary, as for a single
    group, but for hits that are all alike Wilson's for as many trials as there are groups.

    Args:
        images: ``group_id`` and what ``image_scores`` returns, a line for each image.
    """
    sound = images[images["mask_share"].notna()]
    sums = sound.assign(count=1.0).groupby("group_id")[["mask_share", "mask_area", "pointing_hit", "count"]].sum()
    estimates = [Estimate(math.nan, math.nan, math.nan)] * len(MEANS)
    if groups := len(sums):
        value, drawn, left_out = bootstrap(sums.to_numpy(), _means)
        estimates = [
            _estimate(name, groups, *one) for name, *one in zip(MEANS, value, drawn.T, left_out.T, strict=True)
        ]
    zeros = Estimate(float(images["zero_map"].sum()), math.nan, math.nan)
    return [
        *(measured(name, estimate, "1", len(sound)) for name, estimate in zip(MEANS, estimates, strict=True)),
        measured("zero_maps", zeros, "images", len(images)),
    ]


def _means(sums: np.ndarray) -> np.ndarray:
    """Return ``MEANS`` [..., 4] of sums [..., 4] of share, area, hit and images; NaN where undefined."""
    share, area, hit, images = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.where(area > 0, share / area, math.nan)  # no lesion where the maps have cells
        return np.stack([share / images, area / images, gain, hit / images], axis=-1)


def _estimate(name: str, groups: int, value: float, drawn: np.ndarray, left_out: np.ndarray) -> Estimate:
    low, high = bca(value, drawn, left_out)
    if math.isclose(low, high):  # resamples that differ by rounding alone
        has_trials = name == "pointing_hit" and groups > 1
        low, high = wilson(value * groups, groups) if has_trials else (math.nan, math.nan)
    return Estimate(value, low, high)
