"""Explaining the finished networks of a run: class-activation maps of test images, from the run's folder alone."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.cell_files import model_hash, reason_of
from bench.class_activation import FEATURE_MAPS, class_activation
from bench.classify import decoded_batches
from bench.environment import set_numerics
from bench.explanation_rows import (
    EXPLANATION_COLUMNS,
    FAMILIES,
    IMAGE_COLUMNS,
    IMAGES,
    ROWS,
    explanation_folder,
    overlay_name,
    predictions_hash,
)
from bench.export import load_classifier
from bench.mask_scores import cell_scores, image_scores
from bench.measure import one_of_each_network
from bench.overlay import overlay
from bench.report.read import read_rows, read_run
from bench.report.read_explanations import read_explanation
from bench.run_images import TestRows, find_test_rows
from bench.store import OF_REPORT, cell_folder
from bench.train import choose_device
from fusion.errors import DiskError, UserError
from fusion.files import clear_leftovers, content_hash, file_hash, replacing_folder, sole_writer
from fusion.images import UnreadableImageError
from fusion.masks import read_mask
from fusion.models import FORWARD_GMACS

FORMAT = 1
"""Raised when the same cell would be explained otherwise than before."""
SHOWN = 24
RUN_SHOWN = 8
"""Of what ``fusebench run`` explains at its end."""
MOST_SHOWN = 1000
SCORED = 1000
"""Images with a mask that are explained at most."""
BATCH = 16
COMMON = ("cell", "protocol", "seed", "weights", "synthetic_sources", "data_hash", "config_hash")

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is explained, and where.

    Raises:
        UserError: a value is unknown or out of range, or the device is not there.
    """

    only: Sequence[str] = ()
    """Patterns of cells, under every protocol and seed; empty for all that can be explained."""
    every: bool = True
    """Without this and ``only``: one cell of each network, as ``fusebench measure`` chooses it."""
    images: int = SHOWN
    """Pictures a cell gets at most; its scores are of all images that have a mask, up to ``SCORED``."""
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``: the GPU where there is one."""
    again: bool = False
    """Explain what has been explained once more, and replace it."""

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_SHOWN:
            raise UserError(f"--images {self.images} is not a whole number from 1 to {MOST_SHOWN}")
        choose_device(self.device)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How it ended."""

    explained: int
    """Cells explained now."""
    found: int
    """Cells that had been explained before."""
    failed: tuple[str, ...]
    """A line for each cell that could not be explained."""


def explain(run_dir: Path, plan: Plan, *, progress: Progress, finished: Callable[[str], None]) -> Summary:
    """Explain finished cells of a run and keep maps and scores in its folder.

    Args:
        run_dir: the run's folder.
        plan: what is explained.
        progress: called as the work goes on.
        finished: called with one line when a cell has ended.

    Raises:
        UserError: the folder is not a run's, has no cell that is meant, or can't be written.
    """
    run = read_run(run_dir)
    cells = _cells(read_rows(run_dir), plan.only)
    if not (plan.every or plan.only):
        cells = one_of_each_network(run, cells)
    device, size = choose_device(plan.device), run["data"]["image_size"]
    set_numerics(device)
    work = [FORWARD_GMACS[cell["network"]] + 1 for cell in cells]  # beside its arithmetic each has its files
    done, explained, failed = 0.0, 0, []
    with sole_writer(run_dir):
        clear_leftovers(run_dir, but=OF_REPORT)
        for cell, cost in zip(cells, work, strict=True):
            name = f"{cell['protocol']}/{cell['seed']}/{cell['cell']}"

            def advance(part: float, name: str = name, before: float = done, cost: float = cost) -> None:
                progress(f"explain {name}", before + part * cost, sum(work))

            advance(0.0)
            started = time.perf_counter()
            try:
                if _explain_cell(run_dir, cell, size, plan, device, advance):
                    explained += 1
                    finished(f"explain {name} done in {time.perf_counter() - started:.0f} s")
            except DiskError:  # the other cells could not be written either
                raise
            except Exception as error:  # one cell's fault must not end the others
                failed.append(f"{name}: {reason_of(error)}")
                finished(f"explain {name} failed: {reason_of(error)}")
            done += cost
            advance(1.0)
    return Summary(explained=explained, found=len(cells) - explained - len(failed), failed=tuple(failed))


def shown_rows(predictions: pd.DataFrame, masked: Sequence[int], count: int) -> list[int]:
    """Return the test rows that are shown: in turn of every modality and class, those with a mask first.

    Among equals the SHA-256 of the image's name decides, so that cells that have an image in common show it in common.
    Copies are never shown.

    Args:
        predictions: rows of ``PREDICTION_COLUMNS``.
        masked: rows that have a mask.
        count: rows at most.
    """
    rows = predictions[predictions["copy"] == 0]
    order = pd.DataFrame(
        {
            "modality": rows["modality"],
            "label": rows["label"],
            "bare": ~rows.index.isin(masked),
            "draw": [hashlib.sha256(name.encode()).hexdigest() for name in rows["image_id"]],
        }
    ).sort_values(["bare", "draw"])
    turn = order.groupby(["modality", "label"]).cumcount()
    return [int(row) for row in order.assign(turn=turn).sort_values(["turn", "modality", "label"]).index[:count]]


def _explain_cell(
    run_dir: Path, cell: dict[str, Any], size: int, plan: Plan, device: torch.device, advance: Callable[[float], None]
) -> bool:
    """Explain one cell, unless it has been; return whether anything was done."""
    place = (cell["protocol"], cell["seed"], cell["cell"])
    source, target = cell_folder(run_dir, *place), explanation_folder(run_dir, *place)
    rows = find_test_rows(run_dir, source)
    shown = shown_rows(rows.predictions, list(rows.mask_files), plan.images)
    by_draw = shown_rows(rows.predictions.loc[list(rows.mask_files)], list(rows.mask_files), SCORED)
    explained = sorted({*shown, *by_draw})
    made_of = _made_of(run_dir, source, cell, rows)
    if not plan.again and _is_explained(target, made_of, explained, shown):
        return False
    classifier = load_classifier(run_dir, source, size).to(device).to(memory_format=torch.channels_last)
    lines: list[dict[str, Any]] = []
    with replacing_folder(target) as partial:
        files = [rows.files[row] for row in explained]
        for images_u8 in decoded_batches(files, size, BATCH):
            part = explained[len(lines) : len(lines) + len(images_u8)]
            maps, even = class_activation(
                classifier, FEATURE_MAPS[cell["network"]], torch.from_numpy(images_u8).to(device)
            )
            if not torch.isfinite(maps).all():
                raise UserError("a class-activation map is not all finite numbers")
            for row, image_u8, activation in zip(part, images_u8[:, 0], maps.numpy(), strict=True):
                mask = _mask(rows.mask_files.get(row), size)
                told = {str(key): value for key, value in rows.predictions.loc[row].items()}
                scores = image_scores(activation, mask, even.numpy())
                lines.append({**told, **scores, "row": row, "shown": int(row in shown)})
                if row in shown:
                    overlay(image_u8, activation, mask).save(partial / overlay_name(row))
            advance(len(lines) / len(explained))
        images = pd.DataFrame(lines, columns=list(IMAGE_COLUMNS)).astype({"zero_map": int})
        images.to_csv(partial / IMAGES, index=False)
        common = {key: cell[key] for key in COMMON}
        common |= {"predictions_hash": predictions_hash(rows.predictions), "explanation_hash": made_of}
        measured = [{**common, **vars(one)} for one in cell_scores(images)]
        pd.DataFrame(measured, columns=list(EXPLANATION_COLUMNS)).to_csv(partial / ROWS, index=False)
    return True


def _mask(file: Path | None, size: int) -> np.ndarray | None:
    try:
        mask = None if file is None else read_mask(file, size, size)
    except UnreadableImageError as error:
        raise UserError(f"{file}: {error}; call the same 'fusebench run' again, which writes it anew") from None
    return mask if mask is not None and mask.any() else None


def _made_of(run_dir: Path, source: Path, cell: dict[str, Any], rows: TestRows) -> str:
    """Return the hash of all that decides the maps and scores of a cell, but not of how many are shown."""
    masks = {str(row): file_hash(file) for row, file in rows.mask_files.items()}
    method = [FORMAT, asdict(FEATURE_MAPS[cell["network"]]), SCORED]
    return content_hash([model_hash(run_dir, source), cell["config_hash"], masks, method])


def _is_explained(target: Path, made_of: str, explained: Sequence[int], shown: Sequence[int]) -> bool:
    try:
        found = read_explanation(target)
    except UserError:  # missing, or damaged: made anew
        return False
    there = set(found.images["row"]) >= set(explained) and set(found.pictures) >= set(shown)
    return there and set(found.rows["explanation_hash"]) == {made_of}


def _cells(rows: pd.DataFrame, only: Sequence[str]) -> list[dict[str, Any]]:
    """Return the finished cells that are meant.

    Raises:
        UserError: there is none.
    """
    done = rows[rows["status"] == "done"].drop_duplicates(["protocol", "seed", "cell"])
    cells = [{str(key): value for key, value in row.items()} for row in done[list(COMMON)].to_dict("records")]
    for cell in cells:
        cell["family"], _, what = cell["cell"].partition("/")
        cell["network"] = what.partition("+")[0]
    able = [cell for cell in cells if cell["family"] in FAMILIES and cell["network"] in FEATURE_MAPS]
    chosen = [cell for cell in able if not only or any(fnmatchcase(cell["cell"], pattern) for pattern in only)]
    if not chosen:
        names = ", ".join(dict.fromkeys(cell["cell"] for cell in able)) or "none"
        asked = f"no finished network fits {' '.join(only)}" if only else "there is no finished network"
        raise UserError(f"{asked}; cells of {', '.join(FAMILIES)} can be explained, finished are: {names[:300]}")
    return chosen
