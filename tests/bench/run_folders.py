"""The cells of the tiny matrix, and what a run leaves of them."""

from pathlib import Path

import pandas as pd

TRAINED = {
    "model2/mobilenet_v2+sgdm": 1,
    "model3/cnn17+e1+b8": 1,
    "model3/cnn17+e2+b8": 2,
    "ablation/cnn17+ultrasound": 1,
    "ablation/cnn17+mammography": 1,
    "ablation/cnn17+fused": 1,
    "transfer/cnn17+mammography-to-ultrasound": 1,
    "transfer/cnn17+ultrasound-to-mammography": 1,
}
"""Cells that train a network, with the epochs they have."""
EXTRACTED = ["model1/mobilenet_v2+lr", "model1/mobilenet_v2+nb", "model1/mobilenet_v2+svm"]
BASELINES = ["baseline/majority", "baseline/modality", "baseline/source", "baseline/thumbnail"]
CELLS = [*EXTRACTED, *TRAINED, *BASELINES]
SMALL = ["model3/cnn17+e1+b8", "model3/cnn17+e2+b8"]
PROTOCOLS = ("paper", "clean")


def cell_folder(out: Path, cell: str, protocol: str = "paper", seed: int = 0) -> Path:
    return out / "cells" / protocol / str(seed) / cell


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv", keep_default_na=False, na_values={"value": [""], "low": [""], "high": [""]})


def predictions_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")
