"""The test rows of a run as PNG files, and a few of its training rows to calibrate int8 on.

With them a run's folder can be measured and explained on any machine, from files to decisions, without the data set.
They lie in ``images/<protocol>-<seed>-<hash>/``, named by what decides their pixels; cells trained and tested on the
same rows share them. ``mask/`` beside them holds the lesions of those test rows that are the image itself, where the
data set outlines them, under the same numbers.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bench.cell import Job, Settings, rows_of
from bench.image_files import TEST, images_folder, row_file
from bench.report.read_cells import read_cell_predictions
from bench.store import DEFINITION, cell_folder, require_cell
from fusion.checksums import problems, require_intact
from fusion.errors import UserError
from fusion.files import make_folder, replacing_folder
from fusion.images import UnreadableImageError
from fusion.loaders import BatchSpec, make_loader
from fusion.masks import read_mask
from fusion.prepared import Prepared

CALIBRATION, MASK = "calibration", "mask"
CALIBRATION_ROWS = 64
BATCH = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TestRows:
    """The test rows of a finished cell."""

    __test__ = False  # no class of tests, though its name begins like one

    files: list[Path]
    """[R] PNG files of S x S grey pixels, in the order of the cell's predictions."""
    calibration_files: list[Path]
    """PNG files of training rows."""
    mask_files: dict[int, Path]
    """Row -> PNG file of its lesions, S x S of one bit a pixel."""
    predictions: pd.DataFrame
    """[R] rows of ``PREDICTION_COLUMNS``, as the run has kept them."""
    label: np.ndarray
    """[R] 0 benign, 1 malignant."""
    group: np.ndarray
    """[R] the group of each row, the unit of intervals."""
    probability: np.ndarray
    """[R] float64, as the run has kept it."""
    unaugmented: np.ndarray
    """[R] bool: rows that are the image itself, whose pixels in the file are exactly those the run has seen."""


def write_run_images(job: Job, prepared: Prepared, out: Path, settings: Settings, checked: set[Path]) -> None:
    """Write a finished cell's test rows with their masks, and its calibration rows, as files, unless they are there.

    Args:
        job: the cell, its protocol and seed.
        prepared: the data set of the run.
        out: the run's folder.
        settings: with the loader that is meant.
        checked: folders that this call has found whole or written; those of the cell are added.

    Raises:
        UserError: they can't be written.
    """
    folder = _folder(out, cell_folder(out, job.protocol, job.seed, job.cell.name))
    if folder in checked:  # by the hash of what decides their pixels: other cells share them
        return
    checked.add(folder)
    split = rows_of(job.cell, prepared, job.protocol, job.seed)
    count = min(CALIBRATION_ROWS, len(split.train))
    chosen = np.random.default_rng(job.seed).choice(len(split.train), count, replace=False)
    parts = {TEST: split.test, CALIBRATION: split.train[np.sort(chosen)]}
    masks = {
        number: mask
        for number, (image, copy) in enumerate(zip(split.test.image, split.test.copy, strict=True))
        if copy == 0 and (mask := prepared.mask(image)) is not None
    }
    whole = all(len(list((folder / name).glob("*.png"))) == len(rows) for name, rows in parts.items())
    if whole and _holds_masks(folder / MASK, masks, prepared.image_size):
        if not (wrong := problems(folder)):
            return
        log.warning("note: %s is %s; the images of the run are written anew", wrong[0].path, wrong[0].kind)
    spec = BatchSpec(seed=job.seed, mean=(0.0,), std=(1.0,), device=settings.torch_device())
    loader = make_loader(settings.loader, prepared, spec)
    with replacing_folder(folder) as partial:
        for name, rows in parts.items():
            make_folder(partial / name)
            start = 0
            for pixels in loader.batches(rows, BATCH, epoch=0):
                images_u8 = (pixels * 255).round().byte().cpu().numpy()
                for number, image_u8 in enumerate(images_u8[:, 0], start=start):
                    Image.fromarray(image_u8).save(partial / name / f"{number:05}.png")
                start += len(images_u8)
        make_folder(partial / MASK)
        for number, mask in masks.items():
            Image.fromarray(mask).save(partial / MASK / f"{number:05}.png")


def find_test_rows(run: Path, cell: Path) -> TestRows:
    """Return the test rows of a finished cell.

    Args:
        run: the run's folder.
        cell: the cell's folder in it.

    Raises:
        UserError: the cell's predictions are damaged, or its images are missing.
    """
    predictions = read_cell_predictions(cell)
    folder = _folder(run, cell)
    files = [row_file(folder, number) for number in range(len(predictions))]
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise UserError(f"{missing} is missing: call the same 'fusebench run' again, which writes it from the data")
    if not (folder / MASK).is_dir():  # it is empty where no image has a lesion
        raise UserError(
            f"{folder / MASK} is missing: call the same 'fusebench run' again, which writes it from the data"
        )
    calibration_files = sorted((folder / CALIBRATION).glob("*.png"))
    mask_files = {
        number: mask
        for number, mask in enumerate(folder / MASK / file.name for file in files)
        if mask.is_file() and predictions["copy"].iloc[number] == 0
    }
    way_out = "call the same 'fusebench run' again, which writes it anew"
    require_intact(*files, *calibration_files, *mask_files.values(), way_out=way_out)
    return TestRows(
        files=files,
        calibration_files=calibration_files,
        mask_files=mask_files,
        predictions=predictions,
        label=predictions["label"].to_numpy(),
        group=predictions["group_id"].to_numpy(),
        probability=predictions["probability"].to_numpy(),
        unaugmented=predictions["copy"].to_numpy() == 0,
    )


def _holds_masks(folder: Path, masks: dict[int, np.ndarray], size: int) -> bool:
    """Return whether the folder holds these masks; a data set may be prepared anew with others and the same pixels."""
    try:
        return len(list(folder.glob("*.png"))) == len(masks) and all(
            (read_mask(folder / f"{number:05}.png", size, size) == mask).all() for number, mask in masks.items()
        )
    except UnreadableImageError:
        return False


def _folder(run: Path, cell: Path) -> Path:
    require_cell(cell, DEFINITION)
    return images_folder(run, cell, read_cell_predictions(cell))
