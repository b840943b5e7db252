"""Which images must stay together: the groups the readers know, joined with the duplicates found in the pixels.

Two images are duplicates when their prepared pixels are identical, or when their perceptual hashes (pHash, 64 bits)
differ in at most ``HASH_DISTANCE`` bits and the structural similarity of their thumbnails confirms it. A hash alone is
unsafe: on BUSI it would chain most of the set together. Similarity is taken where either image shows something: two
small breasts on black would else be alike for their background.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.metrics import structural_similarity

THUMBNAIL = 64
HASH_DISTANCE = 8
SSIM_LIMIT = 0.95
BLACK = 0.02
"""Grey level, in 0..1, up to which a pixel counts as background."""
BLOCK = 512
"""Images compared at a time, which bounds the memory of the distance table."""


def thumbnails(images_u8: np.ndarray) -> np.ndarray:
    """Return [N, 64, 64] float32 thumbnails in 0..1 of ``images_u8`` [N, 1, H, W]."""
    result = np.empty((len(images_u8), THUMBNAIL, THUMBNAIL), dtype=np.float32)
    for start in range(0, len(images_u8), BLOCK):
        block = torch.from_numpy(np.array(images_u8[start : start + BLOCK])).float() / 255.0
        small = F.interpolate(block, size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
        result[start : start + BLOCK] = small[:, 0].numpy()
    return result


def perceptual_hashes(thumbnails_f32: np.ndarray) -> np.ndarray:
    """Return the pHash, [N, 64] bool, of [N, 64, 64] thumbnails (Zauner 2010).

    A bit tells whether one of the 8 x 8 lowest frequencies of the cosine transform is above their median.
    """
    frequencies = dctn(thumbnails_f32[:, ::2, ::2], axes=(1, 2))[:, :8, :8].reshape(len(thumbnails_f32), 64)
    return frequencies > np.median(frequencies[:, 1:], axis=1, keepdims=True)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean structural similarity of two thumbnails over the pixels that are not black in both."""
    _, local = structural_similarity(first, second, data_range=1.0, full=True)
    shown = np.maximum(first, second) > BLACK
    return float(local[shown].mean()) if shown.any() else 1.0


def duplicate_pairs(
    images_u8: np.ndarray, modality: np.ndarray, *, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of duplicates among ``images_u8`` [N, 1, H, W] of one modality each [N]."""
    pairs: set[tuple[int, int]] = set()
    first_of: dict[str, int] = {}
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images_u8]
    for i, digest in enumerate(digests):
        if digest in first_of:
            pairs.add((first_of[digest], i))
        first_of.setdefault(digest, i)
    small = thumbnails(images_u8)
    hashes = np.where(perceptual_hashes(small), 1.0, -1.0).astype(np.float32)
    count = len(small)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        # The dot product of two vectors of +-1 is 64 minus twice their Hamming distance.
        near = hashes[block] @ hashes.T >= 64 - 2 * HASH_DISTANCE
        near &= modality[block, None] == modality[None, :]
        for row, j in np.argwhere(near):
            i = int(row) + start
            if i < j and digests[i] != digests[j] and similarity(small[i], small[j]) >= SSIM_LIMIT:
                pairs.add((i, int(j)))
        if progress:
            progress(block.stop, count)
    return sorted(pairs)


def join_groups(catalog: pd.DataFrame, pairs: Iterable[tuple[int, int]]) -> pd.DataFrame:
    """Return the catalog with groups joined by ``pairs`` and class conflicts marked.

    A joined group takes the first of its names. Detected duplicates of different labels are in conflict, and so is all
    that is their duplicate in turn; a patient with images of both classes is not.
    """
    linked = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    labels = catalog["label"].to_numpy()
    copies = _components(len(catalog), linked)
    per_copy = pd.Series(labels).groupby(copies).transform("nunique").to_numpy()
    conflict = catalog["class_conflict"].to_numpy(dtype=bool) | (per_copy > 1)
    own = catalog["group_id"].factorize()[0]
    first = pd.Series(np.arange(len(catalog))).groupby(own).transform("first").to_numpy()
    groups = _components(len(catalog), np.concatenate([linked, np.stack([np.arange(len(catalog)), first], axis=1)]))
    return catalog.assign(
        group_id=catalog["group_id"].groupby(groups).transform("min"),
        class_conflict=pd.Series(conflict).groupby(copies).transform("any").to_numpy(),
    )


def _components(count: int, links: np.ndarray) -> np.ndarray:
    table = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(table, directed=False)[1]
