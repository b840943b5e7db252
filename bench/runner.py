"""Running a matrix: one cell after the other, each isolated, each found again when the run is continued."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

from bench.augmented_image import write_augmented_image
from bench.cell import FORMAT, Job, Outcome, Settings, compute, definition
from bench.environment import describe_environment, set_numerics
from bench.evaluate import prediction_frame
from bench.matrix import Cell, Matrix
from bench.metrics import Measured, subset_metrics
from bench.report.read import read_run
from bench.report.read_straddling import STRADDLING
from bench.run_images import write_run_images
from bench.store import (
    HISTORY_COLUMNS,
    CellKey,
    definition_hash,
    done_rows,
    failed_rows,
    has_backbone,
    is_done,
    write_cell,
)
from fusion.errors import UserError
from fusion.files import content_hash, sole_writer, write_json, write_text
from fusion.prepare import Prepared
from fusion.straddling import straddling

RUN = "run.json"
CHOSEN = ("loader", "precision", "step")
"""What ``auto`` may choose otherwise when a run is continued."""

Progress = Callable[[str, float, float], None]
"""Called with what is under way, the work done and the work there is, in the same unit."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended."""

    done: int
    """Cells finished now."""
    found: int
    """Cells that were finished before."""
    failed: tuple[str, ...]
    """A line for each cell that failed: which, and why."""


def run(
    matrix: Matrix,
    cells: Sequence[Cell],
    prepared: Prepared,
    out: Path,
    settings: Settings,
    *,
    protocols: Sequence[str],
    seeds: Sequence[int],
    progress: Progress,
    finished: Callable[[str], None],
) -> Summary:
    """Run ``cells`` under every protocol and seed into the folder ``out``; finished cells are found and left alone.

    Args:
        matrix: the matrix the cells come from.
        cells: the cells to run.
        prepared: the data set.
        out: the run's folder; made if missing.
        settings: weights, loader, device and precision.
        protocols: ``paper``, ``clean`` or both.
        seeds: one run of every cell for each.
        progress: called as the work goes on.
        finished: called with one line when a cell has ended, or when a choice was made that should be known.

    Raises:
        UserError: the folder can't be written, or holds a run on other data or with other settings.
    """
    device = settings.torch_device()
    set_numerics(device)
    environment = describe_environment(device)
    settings, notes = settings.resolved(prepared)
    for note in notes:
        finished(f"note: {note}")
    jobs = [Job(cell=c, protocol=p, seed=s) for p in protocols for s in seeds for c in cells]
    definitions = [definition(job, prepared, settings) for job in jobs]
    with sole_writer(out):
        written = _write_run(out, matrix, jobs, prepared, settings, environment)
        _write_straddling(out, prepared, written["protocols"], written["seeds"])
        write_augmented_image(prepared, out, settings, seeds[0])
        return _run_jobs(jobs, definitions, prepared, out, settings, environment, progress, finished)


def _run_jobs(
    jobs: Sequence[Job],
    definitions: Sequence[dict[str, Any]],
    prepared: Prepared,
    out: Path,
    settings: Settings,
    environment: dict[str, Any],
    progress: Progress,
    finished: Callable[[str], None],
) -> Summary:
    keys = [_key(job, prepared, settings, d, environment) for job, d in zip(jobs, definitions, strict=True)]
    # Every finished cell is checked before the first is trained: what does not fit is said at once.
    is_found = [is_done(key, d, out) for key, d in zip(keys, definitions, strict=True)]
    done, failed, work = 0, [], 0.0
    total = sum(job.cost for job in jobs)
    for job, key, defined, found in zip(jobs, keys, definitions, is_found, strict=True):

        def report(part: float, job: Job = job, before: float = work) -> None:
            progress(job.name, before + part * job.cost, total)

        started, failure = time.perf_counter(), ""
        if not found:
            failure = _run_cell(job, key, defined, prepared, out, settings, report)
            if failure:
                failed.append(f"{job.name}: {failure}")
                finished(f"{job.name} failed: {failure}")
            else:
                done += 1
                finished(f"{job.name} done in {time.perf_counter() - started:.0f} s")
        if not failure and job.cell.network:
            write_run_images(job, prepared, out, settings)
        work += job.cost
        progress(job.name, work, total)
    return Summary(done=done, found=sum(is_found), failed=tuple(failed))


def _run_cell(
    job: Job,
    key: CellKey,
    defined: dict[str, Any],
    prepared: Prepared,
    out: Path,
    settings: Settings,
    report: Callable[[float], None],
) -> str:
    """Run one cell and write its folder; return why it failed, or nothing."""
    report(0.0)
    started = time.perf_counter()
    trace = ""
    try:
        outcome = compute(job, prepared, out, settings, report)
        if not np.isfinite(outcome.probability).all():
            raise UserError("the predicted probabilities are not all finite numbers")
    except UserError as error:
        reason = str(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason, trace = f"out of memory: {_first_line(error)}", traceback.format_exc()
    except Exception as error:  # one cell's fault must not end the others; the traceback is kept beside its row
        reason, trace = f"{type(error).__name__}: {_first_line(error)}", traceback.format_exc()
    else:
        _write_outcome(key, defined, prepared, out, outcome, time.perf_counter() - started)
        return ""

    def write_trace(folder: Path) -> None:
        if trace:
            (folder / "error.txt").write_text(trace, encoding="utf-8")

    write_cell(key.folder(out), defined, failed_rows(key, reason), write_trace)
    return reason


def _write_outcome(
    key: CellKey, defined: dict[str, Any], prepared: Prepared, out: Path, outcome: Outcome, seconds: float
) -> None:
    predictions = prediction_frame(prepared.catalog, outcome.split.test, outcome.probability)
    training_rows = len(outcome.split.train)
    measured = [
        *subset_metrics(predictions),
        _one("epochs", len(outcome.history), "epochs", training_rows),
        _one("wall_s", seconds, "s", training_rows),
        _one("setup_s", outcome.setup_s, "s", training_rows),
        _one("peak_memory_mib", outcome.peak_memory_mib, "MiB", training_rows),
    ]
    history = pd.DataFrame([asdict(e) for e in outcome.history], columns=list(HISTORY_COLUMNS))

    def write_files(folder: Path) -> None:
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        history.to_csv(folder / "history.csv", index=False)
        save = save_torch if outcome.history else save_numpy  # a classifier has no history, and numpy arrays
        save(outcome.tensors, folder / "model.safetensors")

    write_cell(key.folder(out), defined, done_rows(key, measured), write_files)


def _key(
    job: Job, prepared: Prepared, settings: Settings, defined: dict[str, Any], environment: dict[str, Any]
) -> CellKey:
    return CellKey(
        cell=job.cell.name,
        protocol=job.protocol,
        seed=job.seed,
        weights=settings.weights_name(),
        synthetic_sources=" ".join(prepared.synthetic_sources),
        data_hash=prepared.data_hash,
        config_hash=definition_hash(defined),
        environment_hash=content_hash(environment),
    )


def _write_run(
    out: Path,
    matrix: Matrix,
    jobs: Sequence[Job],
    prepared: Prepared,
    settings: Settings,
    environment: dict[str, Any],
) -> dict[str, Any]:
    """Write ``run.json``, or add to the one of an earlier call on the same data with the same settings; return it."""
    same = {
        "format": FORMAT,
        "matrix": {"name": matrix.name},
        "loader": settings.loader,
        "precision": settings.torch_precision(),
        "step": settings.torch_step(""),
        "data": {
            "data_hash": prepared.data_hash,
            "image_size": prepared.image_size,
            "synthetic_sources": prepared.synthetic_sources,
            "counts": prepared.counts,
        },
    }
    grown: dict[str, Any] = {
        "weights": settings.weights_name(),
        "cells": list(dict.fromkeys(job.cell.name for job in jobs)),
        "protocols": list(dict.fromkeys(job.protocol for job in jobs)),
        "seeds": list(dict.fromkeys(job.seed for job in jobs)),
        "environments": {content_hash(environment): environment},
    }
    if (out / RUN).exists():
        earlier = read_run(out)
        for name, value in same.items():
            if earlier.get(name) != value:
                also = f", or --{name} {earlier.get(name)}" if name in CHOSEN else ""
                raise UserError(
                    f"{out} holds a run with other {name} ({_short(earlier.get(name))}, now {_short(value)}); "
                    f"choose another --out{also}"
                )
        if earlier["weights"] != settings.weights_name() and has_backbone(out):
            raise UserError(
                f"{out} holds cells that started from other weights ({earlier['weights']}, "
                f"now {settings.weights_name()}); choose another --out"
            )
        for name in ("cells", "protocols", "seeds"):
            grown[name] = list(dict.fromkeys([*earlier[name], *grown[name]]))
        grown["environments"] = {**earlier["environments"], **grown["environments"]}
    elif any(not path.name.startswith(".") for path in out.iterdir()):  # a killed call may have left .run.json.*
        raise UserError(f"{out} is not empty and is not a run's folder; choose another --out")
    written = {**same, **grown}
    write_json(out / RUN, written)
    return written


def _write_straddling(out: Path, prepared: Prepared, protocols: Sequence[str], seeds: Sequence[int]) -> None:
    """Write how many groups have rows on both sides of every split of the run."""
    found = [straddling(prepared.catalog, prepared.duplicates, p, s) for p in protocols for s in seeds]
    write_text(out / STRADDLING, pd.concat(found, ignore_index=True).to_csv(index=False))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("data_hash", value.get("name", value))
    return str(value)[:16]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _one(metric: str, value: float, unit: str, n: int) -> Measured:
    return Measured(metric=metric, value=float(value), unit=unit, low=float("nan"), high=float("nan"), n=n)
