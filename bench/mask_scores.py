"""How much of a class-activation map lies inside the lesions."""

import math

import numpy as np
import pandas as pd

from bench.intervals import wilson
from bench.metrics import Measured

RESAMPLES = 2000
CONFIDENCE = (2.5, 97.5)


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

    Intervals are percentiles of a bootstrap over groups, as images of one group are alike (Field and Welsh, JRSS B
    2007); none for a single group, nor where a draw has no area in a lesion.

    Args:
        images: ``group_id`` and what ``image_scores`` returns, a line for each image.
    """
    sound = images[images["mask_share"].notna()]
    sums = sound.groupby("group_id")[["mask_share", "mask_area", "pointing_hit"]].sum()
    share, area, hit = (sums[name].to_numpy() for name in sums)
    count = sound.groupby("group_id").size().to_numpy()
    drawn = np.random.default_rng(0).integers(max(len(sums), 1), size=(RESAMPLES, len(sums)))

    def ratio(name: str, above: np.ndarray, below: np.ndarray) -> Measured:
        value, low, high = math.nan, math.nan, math.nan
        if below.sum() > 0:  # no image, or no lesion where the maps have cells
            value = float(above.sum() / below.sum())
        if len(sums) > 1 and (divisors := below[drawn].sum(axis=1)).all():
            low, high = np.percentile(above[drawn].sum(axis=1) / divisors, CONFIDENCE).tolist()
        if low == high:  # draws that don't vary say nothing
            low, high = wilson(value * len(sums), len(sums)) if name == "pointing_hit" else (math.nan, math.nan)
        return Measured(metric=name, value=value, unit="1", low=low, high=high, n=len(sound))

    zeros = Measured(
        metric="zero_maps",
        value=float(images["zero_map"].sum()),
        unit="images",
        low=math.nan,
        high=math.nan,
        n=len(images),
    )
    return [
        ratio("mask_share", share, count),
        ratio("mask_area", area, count),
        ratio("mask_gain", share, area),
        ratio("pointing_hit", hit, count),
        zeros,
    ]
