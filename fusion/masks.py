"""Lesion masks: which pixels of an image its data set outlines as lesion, in the geometry of the prepared image.

``masks_u8.npy`` of a prepared folder holds [M, S, S] uint8, 1 inside a lesion, for the M images whose reader found mask
files; the catalog's column ``mask`` says which of the M an image has, -1 for none. No number of a cell depends on
masks, so they belong to the plan of a prepared folder, but not to its ``data_hash``.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fusion.cores import cpu_count
from fusion.decode import resize_u8
from fusion.errors import UserError
from fusion.files import content_hash, file_hash
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8

MASKS = "masks_u8.npy"
THRESHOLD = 127
"""Grey values above it are lesion."""
NONE = -1


def read_mask(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """Return the mask in ``path``, [height, width], true inside the lesion; alpha never counts.

    Args:
        path: an image file of any mode.
        width: of the image it belongs to, in pixels.
        height: of the same.

    Raises:
        UnreadableImageError: it can't be read as an image, or has another size.
    """
    facts = inspect_image(path)
    if (facts.width, facts.height) != (width, height):
        raise UnreadableImageError(f"{facts.width} x {facts.height} pixels, but the image has {width} x {height}")
    return read_grey_u8(path) > THRESHOLD


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Return [H, W] as [S, S], resized like the images: lesion where more than half of a pixel's filter is."""
    return resize_u8(np.where(mask, 255, 0).astype(np.uint8), size)[0] > THRESHOLD


def masks_hash(files: Sequence[Sequence[str]]) -> str:
    """Return the hash of the contents of all mask files, a list for each image."""
    return content_hash([[_file_hash(Path(path)) for path in paths] for paths in files])


def fill_masks(
    frame: pd.DataFrame, masks_u8: np.ndarray, *, strict: bool, progress: Callable[[str, int, int], None]
) -> tuple[np.ndarray, list[dict[str, str]], list[str]]:
    """Read, unite and resize the masks of every image.

    An image one of whose masks can't be used has none, as what is left would not be its lesions; it stays in the data
    set all the same. So does one whose mask is empty.

    Args:
        frame: a line for each image, with ``image_id``, ``width``, ``height`` and ``masks``, a list of files.
        masks_u8: [M, S, S] uint8 zeros for the M images that list a file; filled with ones inside the lesions.
        strict: stop at the first mask that can't be used.
        progress: called with the stage, how much is done and how much there is.

    Returns:
        [N] int64 places in ``masks_u8``, -1 for none; ``path`` and ``reason`` of each mask that can't be used; and
        notes for the user.

    Raises:
        UserError: under ``strict``, a mask that can't be used.
    """
    listed = frame[frame["masks"].map(len) > 0]
    places, faults, empty = np.full(len(frame), NONE, dtype=np.int64), [], 0

    def united(paths: list[str], width: int, height: int) -> NDArray[np.bool_] | dict[str, str]:
        whole = np.zeros((height, width), dtype=bool)
        for path in paths:
            try:
                whole |= read_mask(Path(path), width, height)
            except UnreadableImageError as error:
                return {"path": path, "reason": str(error)}
        return resize_mask(whole, masks_u8.shape[-1])

    with ThreadPoolExecutor(cpu_count()) as pool:
        found = pool.map(united, listed["masks"], listed["width"], listed["height"])
        for place, (image, name, mask) in enumerate(zip(listed.index, listed["image_id"], found, strict=True)):
            if isinstance(mask, dict):
                if strict:
                    pool.shutdown(cancel_futures=True)
                    raise UserError(f"{mask['path']}: {mask['reason']} (--strict stops at the first unreadable file)")
                faults.append(mask | {"reason": f"{mask['reason']}; {name} has no mask"})
            elif mask.any():
                masks_u8[place], places[image] = mask, place
            else:
                empty += 1
            progress("read masks", place + 1, len(listed))
    notes = [f"masks: {(places != NONE).sum()} of {len(frame)} images have one"] if len(listed) else []
    if empty:
        notes.append(f"masks: {empty} are empty at {masks_u8.shape[-1]} px, which counts as none")
    return places, faults, notes


def _file_hash(path: Path) -> str:
    try:
        return file_hash(path) if path.is_file() else "no file"  # reading a pipe would wait for ever
    except OSError as error:
        return str(error.strerror)
