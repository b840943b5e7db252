"""Predictions of a cell on its test rows."""

import numpy as np
import pandas as pd

from bench.metrics import decide
from bench.store import PREDICTION_COLUMNS
from fusion.augment import Rows


def prediction_frame(catalog: pd.DataFrame, rows: Rows, probability: np.ndarray) -> pd.DataFrame:
    """Return one line per test row: which image and copy, its label, and the probability and decision for malignant."""
    chosen = catalog.iloc[rows.image].reset_index(drop=True)
    frame = chosen[["image_id", "source", "modality", "group_id", "label"]].assign(
        copy=rows.copy, probability=np.asarray(probability, dtype=np.float64), decision=decide(probability)
    )
    return frame[list(PREDICTION_COLUMNS)]
