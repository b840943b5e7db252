"""Where a run's folder keeps the class-activation maps of its cells, and the schema of what was found of them.

``explanations/<protocol>/<seed>/<cell>/`` holds ``rows.csv`` (a row for each metric), ``images.csv`` (a row for each
image that was explained) and ``NNNNN.png``, the map over the test row of that number. It needs no torch.
"""

from pathlib import Path

import pandas as pd

from bench.store import PREDICTION_COLUMNS
from fusion.files import content_hash

EXPLANATIONS, ROWS, IMAGES = "explanations", "rows.csv", "images.csv"
FAMILIES = ("model2", "model3", "ablation", "transfer")
"""Cells that are a network from pixels to logits. Model 1 and the baselines are not explained: a map needs a gradient
from the decision to the last feature map, and most of their classifiers have none."""
EXPLANATION_COLUMNS = (
    *("cell", "protocol", "seed"),
    "metric",  # a key of EXPLANATION_METRICS
    "value",  # a number; empty where no image has a mask
    "unit",
    "low",  # 95 % interval, by the bootstrap over groups of images
    "high",
    "n",  # images the value was computed over
    *("weights", "synthetic_sources", "data_hash", "config_hash"),  # as in the rows of the cell
    "predictions_hash",  # of the cell that was explained: one that is trained anew has other maps
    "explanation_hash",  # of what the maps were made of: weights, predictions, masks, method
)
EXPLANATION_METRICS = {
    "mask_share": "1",  # of the map's mass, what lies inside the lesions; mean over images (Wang et al., CVPRW 2020)
    "mask_area": "1",  # of the area that the map covers; what the share of an even map is
    "mask_gain": "1",  # mean share / mean area; above 1 the maps favour the lesions
    "pointing_hit": "1",  # share of images whose map is largest inside a lesion (Zhang et al., IJCV 2018)
    "zero_maps": "images",  # of all explained images, those nothing in which speaks for malignancy
}
"""Metric -> unit. All but the last are over the images that have a mask and a map that is not zero everywhere."""
IMAGE_COLUMNS = (
    "row",  # number of the test row, also of its files
    *("image_id", "source", "modality", "group_id", "label", "probability"),  # as in predictions.parquet
    "mask_area",  # of the area that the map covers, empty without a mask
    "mask_share",  # empty without a mask, or where the map is zero
    "pointing_hit",  # 1 or 0, between them where the map is largest both inside and outside; empty likewise
    "zero_map",  # 1 where no place speaks for malignancy
    "shown",  # 1 where the map lies in a picture, NNNNN.png
)


def predictions_hash(predictions: pd.DataFrame) -> str:
    """Return the hash of a cell's predictions, rows of ``PREDICTION_COLUMNS``."""
    return content_hash(predictions[list(PREDICTION_COLUMNS)].to_csv(index=False))


def explanation_folder(run_dir: Path, protocol: str, seed: int, cell: str) -> Path:
    """Return the folder of a cell's explanations in the run's folder."""
    return run_dir / EXPLANATIONS / protocol / str(seed) / cell


def overlay_name(row: int) -> str:
    """Return the name of the picture of a test row."""
    return f"{row:05}.png"
