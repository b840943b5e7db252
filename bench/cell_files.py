"""The exported files of a finished cell, and the hash of what its measurements belong to."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.classify import decoded_batches
from bench.export import BodyGraph, export_onnx, load_classifier
from bench.extract import BACKBONE, features_folder
from bench.onnx_file import read_onnx, require_size
from bench.quantize import quantize_int8
from bench.run_images import TestRows
from bench.sessions import DTYPES, RefusedError
from fusion.checksums import require_intact
from fusion.errors import DiskError, UserError
from fusion.files import content_hash, file_hash, read_json

FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""Precision -> the name of the exported file in a cell's folder."""
DECODED_TOGETHER = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What the cells of a run have in common."""

    folder: Path
    image_size: int
    """S, side of its images in pixels."""
    precision: str
    """A key of ``bench.step.PRECISIONS``: the run's probabilities were computed in it."""
    weights: str
    synthetic_sources: Sequence[str]


def export_cell(
    cell: Path, precisions: set[str], rows: TestRows, run: MeasuredRun, graph: BodyGraph
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the exported files of a cell by precision, and for those that can't be made the reason.

    Files that are missing or of other weights are written.

    Args:
        cell: the cell's folder.
        precisions: those wanted; fp32 is always there, fp16 only on a GPU.
        rows: of the cell; int8 is calibrated on some.
        run: of the cell.
        graph: the traced body of the network, kept from cell to cell.

    Raises:
        UserError: a file of the cell is damaged or can't be written.
    """
    defined = read_json(cell / "cell.json", "a finished cell")
    network, size = defined["cell"]["network"], run.image_size
    wanted = {name: cell / file for name, file in FILES.items() if name in precisions | {"fp32"}}
    wanted = {name: file for name, file in wanted.items() if name != "fp16" or torch.cuda.is_available()}
    metadata = {"cell": f"{defined['protocol']}/{defined['seed']}/{defined['cell']['name']}"}
    metadata |= {"config_hash": content_hash(defined), "weights_sha256": _weights_hash(cell, run.folder, defined)}
    metadata |= {"weights": run.weights, "synthetic_sources": " ".join(run.synthetic_sources)}
    failures: dict[str, str] = {}
    for precision, file in wanted.items():
        if file.exists():
            try:
                require_intact(file, way_out="written anew")
            except UserError as error:
                log.warning("note: %s", error)
                file.unlink()
        with suppress(UserError):  # missing or of an older version: written anew
            kept = read_onnx(file)
            require_size(kept, size)
            same = ("config_hash", "weights_sha256")
            if kept.precision == precision and all(kept.facts.get(key) == metadata[key] for key in same):
                continue
        try:
            if precision == "int8":
                if "fp32" in failures:
                    raise UserError(failures["fp32"])
                if not rows.calibration_files:
                    raise UserError(f"there are no calibration rows: call the same 'fusebench run' again for {cell}")
                calibration_u8 = np.concatenate(list(decoded_batches(rows.calibration_files, size, DECODED_TOGETHER)))
                quantize_int8(wanted["fp32"], file, calibration_u8)
            else:
                classifier = load_classifier(run.folder, cell, size)
                classifier.body.set_dtype(DTYPES[precision])
                export_onnx(classifier, file, network, size, metadata, graph)
            require_size(read_onnx(file), size)
        except DiskError:  # no other file could be written either
            raise
        except Exception as error:  # of the exporter or the quantizer: the other engines are measured
            failures[precision] = reason_of(error)
    return {name: file for name, file in wanted.items() if name not in failures}, failures


def model_hash(run: Path, cell: Path) -> str:
    """Return the hash of a finished cell's weights and predictions: what its measurements belong to.

    Raises:
        UserError: one of its files can't be read.
    """
    defined = read_json(cell / "cell.json", "a finished cell")
    try:
        return content_hash([_weights_hash(cell, run, defined), file_hash(cell / "predictions.parquet")])
    except (OSError, KeyError) as error:
        raise UserError(
            f"{cell} is damaged ({' '.join(str(error).split())[:120]}); delete it to run it again"
        ) from None


def reason_of(error: Exception) -> str:
    """Return why an engine can't be measured, on one line; with its kind where it is no error of ours."""
    kind = "" if isinstance(error, RefusedError | UserError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())[:300]


def _weights_hash(cell: Path, run: Path, defined: dict[str, Any]) -> str:
    """Return the hash of all weights of a cell: for Model 1 those of the backbone, too."""
    paths = [cell / "model.safetensors"]
    if defined["cell"]["head"]:
        paths.append(features_folder(run, defined) / BACKBONE)
    try:
        return content_hash([file_hash(path) for path in paths])
    except OSError as error:
        raise UserError(f"{error.filename} can't be read ({error.strerror}); delete {cell} to run it again") from None
