"""The files of a run's test rows hold the pixels its predictions were made of."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.run_images import CALIBRATION_ROWS, TestRows, find_test_rows
from bench.runner import Summary
from fusion.augment import Rows
from fusion.errors import UserError
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import Prepared

CELLS = ["model3/cnn17+e1+b8", "model3/cnn17+e2+b8", "ablation/cnn17+ultrasound"]


@pytest.fixture(scope="module")
def out(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under ``paper``, whose test rows are augmented copies too."""
    folder = tmp_path_factory.mktemp("images") / "run"
    assert run_tiny(folder, CELLS, seeds=(0, 1)).done == 6
    return folder


def rows_of(out: Path, cell: str, seed: int = 0) -> TestRows:
    return find_test_rows(out, out / "cells" / "paper" / str(seed) / cell)


def pixels(files: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in files])


def test_a_file_holds_the_row_the_run_has_seen(out: Path, tiny_prepared: Prepared) -> None:
    rows = rows_of(out, CELLS[0])
    kept = pd.read_parquet(out / "cells" / "paper" / "0" / CELLS[0] / "predictions.parquet")
    place = {image_id: number for number, image_id in enumerate(tiny_prepared.catalog["image_id"])}
    served = Rows(kept["image_id"].map(place).to_numpy(copy=True), kept["copy"].to_numpy(copy=True))
    loader = make_loader("resident", tiny_prepared, BatchSpec(seed=0, mean=(0.0,), std=(1.0,)))
    seen = torch.cat(list(loader.batches(served, 16, epoch=0)))[:, 0].numpy()
    found = pixels(rows.files)
    assert 0 < rows.unaugmented.sum() < len(rows.files)
    assert np.abs(found / 255 - seen).max() <= 0.5 / 255 + 1e-6
    untouched = tiny_prepared.images_u8[served.image[rows.unaugmented], 0]
    assert (found[rows.unaugmented] == untouched).all()
    assert (rows.label == kept["label"]).all()
    assert (rows.probability == kept["probability"]).all()


def test_calibration_rows_are_training_rows(out: Path) -> None:
    rows = rows_of(out, CELLS[0])
    calibration, test = pixels(rows.calibration_files), pixels(rows.files)
    assert len(calibration) == CALIBRATION_ROWS
    assert not {image.tobytes() for image in calibration} & {image.tobytes() for image in test}


def test_cells_with_the_same_rows_share_files_and_others_do_not(out: Path) -> None:
    first = rows_of(out, CELLS[0]).files
    assert rows_of(out, CELLS[1]).files == first
    assert rows_of(out, CELLS[2]).files != first
    assert rows_of(out, CELLS[0], seed=1).files != first
    assert len(list((out / "images").glob("paper-*"))) == 4


def test_missing_files_are_named_and_written_by_the_same_call(
    out: Path, tmp_path: Path, run_tiny: Callable[..., Summary]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(out, copied)
    before = [file.read_bytes() for file in rows_of(copied, CELLS[0]).files]
    shutil.rmtree(copied / "images")
    with pytest.raises(UserError, match=r"00000\.png is missing: call the same 'fusebench run' again"):
        rows_of(copied, CELLS[0])
    assert run_tiny(copied, CELLS[:1]) == Summary(done=0, found=1, failed=())
    assert [file.read_bytes() for file in rows_of(copied, CELLS[0]).files] == before


def test_a_single_file_that_is_lost_is_written_again(
    out: Path, tmp_path: Path, run_tiny: Callable[..., Summary]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(out, copied)
    file = rows_of(copied, CELLS[0]).files[3]
    before = file.read_bytes()
    file.unlink()
    run_tiny(copied, CELLS[:1])
    assert file.read_bytes() == before


def test_damaged_predictions_are_named(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "cells" / "paper" / "0" / CELLS[0], tmp_path / "cell")
    (tmp_path / "cell" / "predictions.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"predictions\.parquet is damaged: it was changed"):
        find_test_rows(out, tmp_path / "cell")
