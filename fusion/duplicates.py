"""Which images show the same, told by their prepared pixels alone.

Two images are duplicates when their pixels are identical, or when their perceptual hashes (pHash, 64 bits) differ in at
most ``HASH_DISTANCE`` bits and the structural similarity of their thumbnails confirms it. A hash alone is unsafe: on
BUSI it would chain most of the set together. Similarity is taken where either image shows something: two small breasts
on black would else be alike for their background.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from skimage.metrics import structural_similarity

from fusion.groups import IDENTICAL, SIMILAR

THUMBNAIL = 64
HASH_DISTANCE = 8
SSIM_LIMIT = 0.95
BLACK = 0.02
"""Grey level, in 0..1, up to which a pixel counts as background."""
BLOCK = 512
"""Images compared at a time, which bounds the memory of the distance table."""


class Duplicate(NamedTuple):
    """Two images that show the same, by their pixels alone."""

    first: int
    second: int
    """Their rows of the array; ``first`` is the smaller."""
    kind: str
    """``identical``: the same pixels; ``similar``: near by their hashes, and confirmed."""
    hash_distance: int
    """Bits, of 64, in which their perceptual hashes differ."""
    similarity: float
    """Structural similarity of their thumbnails, 1 for identical pixels."""


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
) -> list[Duplicate]:
    """Return the duplicates among ``images_u8`` [N, 1, H, W] of one modality each [N], sorted.

    Identical images are each paired with the first of them; images of different modality are never ``similar``.
    """
    found: list[Duplicate] = []
    first_of: dict[str, int] = {}
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images_u8]
    for i, digest in enumerate(digests):
        if digest in first_of:
            found.append(Duplicate(first_of[digest], i, IDENTICAL, 0, 1.0))
        first_of.setdefault(digest, i)
    small = thumbnails(images_u8)
    hashes = np.where(perceptual_hashes(small), 1.0, -1.0).astype(np.float32)
    count = len(small)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        # The dot product of two vectors of +-1 is 64 minus twice their Hamming distance.
        distance = ((64 - hashes[block] @ hashes.T) / 2).astype(np.int64)
        near = (distance <= HASH_DISTANCE) & (modality[block, None] == modality[None, :])
        for row, j in np.argwhere(near):
            i = int(row) + start
            if i < j and digests[i] != digests[j] and (alike := similarity(small[i], small[j])) >= SSIM_LIMIT:
                found.append(Duplicate(i, int(j), SIMILAR, int(distance[row, j]), alike))
        if progress:
            progress(block.stop, count)
    return sorted(found)
