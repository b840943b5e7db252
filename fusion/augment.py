"""Which rows a catalog becomes: every image once, and the augmented copies of Table 1 beside it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fusion.catalog import BENIGN, MALIGNANT

COPIES = {
    ("mammography", BENIGN): 1,
    ("mammography", MALIGNANT): 1,
    ("ultrasound", BENIGN): 3,
    ("ultrasound", MALIGNANT): 4,
    ("other", BENIGN): 1,
    ("other", MALIGNANT): 1,
}
"""Rows each image becomes, itself included (Wang et al. 2024, Table 1)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A list of samples: ``image[r]`` is the row of the prepared array, ``copy[r]`` the copy (0 the image itself)."""

    image: np.ndarray
    """[R] int64."""
    copy: np.ndarray
    """[R] int64."""

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: np.ndarray | slice) -> "Rows":
        return Rows(np.ascontiguousarray(self.image[index]), np.ascontiguousarray(self.copy[index]))


def expand(catalog: pd.DataFrame, images: np.ndarray, *, augmented: bool) -> Rows:
    """Return the rows of ``images``: one each, or as many as ``COPIES`` says when ``augmented``.

    Args:
        catalog: one row per image, with ``modality`` and ``label``.
        images: [K] positions in the catalog, in the order wanted.
        augmented: whether copies are added; an image's rows stand together, copy 0 first.
    """
    images = np.asarray(images, dtype=np.int64)
    if not augmented:
        return Rows(images, np.zeros_like(images))
    chosen = catalog.iloc[images]
    counts = np.array([COPIES[key] for key in zip(chosen["modality"], chosen["label"], strict=True)], dtype=np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return Rows(np.repeat(images, counts), np.arange(counts.sum()) - starts)
