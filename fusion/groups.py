"""Which images must stay together: the groups the readers know, joined with the duplicates found in the pixels."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IDENTICAL, SIMILAR = "identical", "similar"
"""How two images were found to be duplicates, see ``fusion.duplicates``."""


def join_groups(catalog: pd.DataFrame, pairs: Iterable[tuple[int, int]]) -> pd.DataFrame:
    """Return the catalog with groups joined by ``pairs`` and class conflicts marked.

    A joined group takes the first of its names. Detected duplicates of different labels are in conflict, and so is all
    that is their duplicate in turn; a patient with images of both classes is not.
    """
    linked = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    labels = catalog["label"].to_numpy()
    copies = components(len(catalog), linked)
    per_copy = pd.Series(labels).groupby(copies).transform("nunique").to_numpy()
    conflict = catalog["class_conflict"].to_numpy(dtype=bool) | (per_copy > 1)
    own = catalog["group_id"].factorize()[0]
    first = pd.Series(np.arange(len(catalog))).groupby(own).transform("first").to_numpy()
    groups = components(len(catalog), np.concatenate([linked, np.stack([np.arange(len(catalog)), first], axis=1)]))
    return catalog.assign(
        group_id=catalog["group_id"].groupby(groups).transform("min"),
        class_conflict=pd.Series(conflict).groupby(copies).transform("any").to_numpy(),
    )


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Return [count] which connected component each image is in, given the pairs ``links`` [P, 2] of images."""
    links = np.asarray(links, dtype=np.int64).reshape(-1, 2)
    table = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(table, directed=False)[1]
