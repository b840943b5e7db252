"""Where a run's folder keeps images: names alone, so that the report finds them without the models' libraries."""

from pathlib import Path

import pandas as pd

from fusion.errors import UserError
from fusion.files import content_hash, read_json

TEST = "test"
AUGMENTATION = Path("images") / "augmentation"
"""Of a run's folder: ``0.png`` is an image, ``1.png`` ... its augmented copies."""
AUGMENTATION_FACTS = "copies.json"
"""There: which image it is, and what was drawn for each copy."""


def images_folder(run: Path, cell: Path, rows: pd.DataFrame) -> Path:
    """Return the folder of the test and calibration rows of a finished cell, named by what decides their pixels.

    Args:
        run: the run's folder.
        cell: the cell's folder in it.
        rows: ``image_id`` and ``copy`` of its test rows, in the order of its predictions.

    Raises:
        UserError: the cell's definition is damaged.
    """
    defined = read_json(cell / "cell.json", "a finished cell")
    try:
        # what a cell is trained on decides its calibration rows
        trained_on = [defined["cell"][key] for key in ("modality", "augmented")]
        pixels = [defined["data_hash"], *(defined["constants"][key] for key in ("augmentation", "folds"))]
        name = f"{defined['protocol']}-{defined['seed']}"
    except (KeyError, TypeError) as error:
        raise UserError(f"{cell / 'cell.json'} is damaged (it lacks {error}); delete {cell} to run it again") from None
    content = [rows[["image_id", "copy"]].to_csv(index=False), trained_on, pixels]
    return run / "images" / f"{name}-{content_hash(content)[:12]}"


def row_file(folder: Path, row: int) -> Path:
    """Return the file of a test row, counted in the order of the cell's predictions."""
    return folder / TEST / f"{row:05}.png"
