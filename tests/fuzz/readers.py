"""Every reader of files that may come from outside: what it reads, how to make it valid, and how it is called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.cell_files import model_hash
from bench.export import load_classifier
from bench.matrix import load_matrix
from bench.predict import predict
from bench.report import build_tables, read_results
from bench.report.formats import FORMATS
from bench.run_images import find_test_rows
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8
from fusion.models.backbones import build_backbone, weights_identity
from fusion.prepare import prepare
from fusion.prepared import load_prepared
from fusion.sources.busi import read_busi
from fusion.sources.folder import read_folder
from fusion.sources.oasbud import read_oasbud
from fusion.sources.rsna import read_rsna
from tests.fuzz import seeds_images, seeds_runs
from tests.fuzz.seeds_runs import CELL, HEADED, SIZE


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One row of ``READERS``."""

    make: Callable[[Path], None]
    """Writes valid files into an empty folder."""
    damaged: str
    """Glob of the files that are damaged, one at a time."""
    read: Callable[[Path, Path], Any]
    """Reads the folder, of which one file is damaged; what it returns has been checked to be of use."""
    checked: bool = False
    """The format has a checksum over all that is read, so what is damaged must be refused or read unchanged."""
    renewed: bool = False
    """The folder's checksums are renewed after the damage, as a stranger would who means harm."""


def _image(_folder: Path, file: Path) -> Any:
    facts, pixels = inspect_image(file), read_grey_u8(file)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (facts.height, facts.width)
    return pixels


def _prepare(folder: Path, file: Path) -> Any:
    records, notes = read_folder("mine", folder)
    options: dict[str, Any] = {"image_size": 16, "notes": notes, "progress": lambda *_: None}
    prepared = prepare(records, folder / "out", **options)
    for _, row in pd.read_csv(folder / "out" / "quarantine.csv").iterrows():
        assert Path(row["path"]) == file
        raise UnreadableImageError(row["reason"])
    return [prepared.images_u8, prepared.catalog["image_id"].tolist()]


def _oasbud(folder: Path, file: Path) -> Any:
    records, _ = read_oasbud(file, folder / "bmode")
    return [[record, read_grey_u8(record.path), *map(read_grey_u8, record.masks)] for record in records]


def _prepared(folder: Path, _file: Path) -> Any:
    prepared = load_prepared(folder)
    masks = [prepared.mask(image) for image in range(len(prepared.catalog))]
    return [prepared.images_u8, prepared.catalog, masks, prepared.counts, prepared.duplicates, prepared.manifest]


def _report(folder: Path, _file: Path) -> Any:
    results = read_results(folder)
    for table in build_tables(results).values():
        for text_of in FORMATS.values():
            text_of(table).encode("utf-8")
    return results


def _cell(cell: str, folder: Path, _file: Path) -> Any:
    place = folder / "cells" / "paper" / "0" / cell
    rows = find_test_rows(folder, place)
    classifier = load_classifier(folder, place, SIZE)
    images = torch.from_numpy(np.stack([read_grey_u8(file)[None] for file in rows.files]))
    with torch.inference_mode():
        return [rows.predictions, model_hash(folder, place), images.numpy(), classifier(images).numpy()]


def _cells(folder: Path, file: Path) -> Any:
    return [_cell(cell, folder, file) for cell in (CELL, HEADED)]


def _weights(folder: Path, _file: Path) -> Any:
    state = build_backbone("mobilenet_v2", str(folder)).state_dict()
    identity = weights_identity("mobilenet_v2", str(folder))
    return [identity, {key: value.numpy() for key, value in state.items() if not key.startswith("classifier.")}]


def _onnx(folder: Path, _file: Path) -> Any:
    return predict(folder / "model.onnx", [folder / "image.png"])


REPORTED = partial(Reader, make=seeds_runs.write_report_run, read=_report, renewed=True)
MEASURED = partial(Reader, make=seeds_runs.write_cells, renewed=True)
READERS = {
    "PNG": Reader(make=seeds_images.write_pngs, damaged="*.png", read=_image, checked=True),
    "JPEG": Reader(make=seeds_images.write_jpegs, damaged="*.jpg", read=_image),
    "TIFF": Reader(make=seeds_images.write_tiffs, damaged="*.tif", read=_image),
    "PGM": Reader(make=seeds_images.write_pgms, damaged="*.pgm", read=_image),
    "DICOM": Reader(make=seeds_images.write_dicoms, damaged="*.dcm", read=_image),
    "prepare": Reader(make=seeds_images.write_folder, damaged="*.png", read=_prepare, checked=True),
    "OASBUD": Reader(make=seeds_images.write_mats, damaged="plain.mat", read=_oasbud),
    "OASBUD, compressed": Reader(make=seeds_images.write_mats, damaged="compressed.mat", read=_oasbud, checked=True),
    "folder": Reader(make=seeds_images.write_folder, damaged="*.csv", read=lambda at, _: read_folder("mine", at)),
    "RSNA": Reader(make=seeds_images.write_rsna, damaged="*.csv", read=lambda at, _: read_rsna(at)),
    "BUSI": Reader(make=seeds_images.write_busi, damaged="*.json", read=lambda at, _: read_busi(at)),
    "matrix": Reader(make=seeds_runs.write_matrix, damaged="*.toml", read=lambda _, file: load_matrix(str(file))),
    "prepared": Reader(make=seeds_runs.write_prepared, damaged="*.*", read=_prepared, checked=True),
    "run.json": REPORTED(damaged="run.json"),
    "rows": REPORTED(damaged="cells/**/rows.csv"),
    "history": REPORTED(damaged="cells/**/history.csv"),
    "predictions": REPORTED(damaged="cells/**/*.parquet"),
    "measurements": REPORTED(damaged="measurements/**/*.*"),
    "explanations": REPORTED(damaged="explanations/**/*.csv"),
    "straddling": REPORTED(damaged="straddling.csv"),
    "cell, trained": MEASURED(damaged=f"cells/*/*/{CELL}/*.*", read=partial(_cell, CELL)),
    "cell, head": MEASURED(damaged=f"cells/*/*/{HEADED}/*.*", read=partial(_cell, HEADED)),
    "cell, backbone": MEASURED(damaged="features/*/*.*", read=partial(_cell, HEADED)),
    "images of a run": MEASURED(damaged="images/*/test/*", read=partial(_cell, CELL), checked=True),
    "run with its checksums": REPORTED(damaged="**/*", checked=True, renewed=False),
    "cells with their checksums": MEASURED(damaged="**/*", read=_cells, checked=True, renewed=False),
    "weights": Reader(make=seeds_runs.write_weights, damaged="*.safetensors", read=_weights),
    "ONNX": Reader(make=seeds_runs.write_onnx, damaged="*.onnx", read=_onnx),
}
"""Name -> reader."""
TEXTS = (".csv", ".json", ".toml")
"""Endings of files that are texts."""
