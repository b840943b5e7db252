"""A worker: trains and judges cells in its process, and keeps what they share: libraries, data set, compiled steps."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch
from threadpoolctl import threadpool_limits

from bench.cell import Job, Outcome, Settings, compute, definition
from bench.environment import describe_environment, set_numerics
from bench.evaluate import prediction_frame
from bench.extract import features_folder
from bench.metrics import Measured, subset_metrics
from bench.store import HISTORY_COLUMNS, CellKey, definition_hash, difference, done_rows, failed_rows, write_cell
from fusion.errors import DiskError, UserError
from fusion.files import content_hash
from fusion.prepared import Prepared, load_prepared


@dataclass(frozen=True, kw_only=True)
class Described:
    """What the cells of a run are on the machine of a worker."""

    definitions: list[dict[str, Any]]
    """Of each job, as ``bench.cell.definition`` returns it."""
    loader: str
    precision: str
    step: str
    """Those that are meant where the settings say ``auto``."""
    environment: dict[str, Any]
    notes: list[str]
    """What the user should know of the choices made."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a cell ended."""

    reason: str
    """Why it failed; empty when it is done."""
    seconds: float
    environment: dict[str, Any]
    folders: list[str]
    """What was written, relative to the run's folder: the cell's, and that of the features it was made of."""


class Worker:
    """Runs the cells of one run.

    Args:
        prepared: the data set.
        out: the folder its cells are written into.
        settings: weights, loader, device and precision.
        threads: CPU threads of a cell; sums depend on their number.
    """

    def __init__(self, prepared: Prepared, out: Path, settings: Settings, threads: int) -> None:
        self.prepared, self.out, self.threads = prepared, out, threads
        set_numerics(settings.torch_device())
        self.settings, self.notes = settings.resolved(prepared)
        with cpu_threads(threads):
            self.environment = describe_environment(settings.torch_device())

    def describe(self, jobs: Sequence[Job], report: Callable[[float], None]) -> Described:  # noqa: ARG002
        """Return what the jobs are on this machine."""
        return Described(
            definitions=[definition(job, self.prepared, self.settings) for job in jobs],
            loader=self.settings.loader,
            precision=self.settings.torch_precision(),
            step=self.settings.torch_step(""),
            environment=self.environment,
            notes=self.notes,
        )

    def run(self, job: Job, planned: dict[str, Any], report: Callable[[float], None]) -> Ended:
        """Run one cell and write its folder, also when it fails.

        Args:
            job: which cell, protocol and seed.
            planned: its definition as the run has it; another machine may have other weights or another precision.
            report: called with the share of the work done.

        Raises:
            DiskError: the cell's folder can't be written.
        """
        report(0.0)
        started, trace, outcome = time.perf_counter(), "", None
        key = cell_key(job, self.prepared, self.settings, planned, self.environment)
        try:
            here = definition(job, self.prepared, self.settings)
            if definition_hash(here) != key.config_hash:
                raise UserError(f"this machine would run it with other settings ({difference(planned, here)})")
            with cpu_threads(self.threads):
                outcome = compute(job, self.prepared, self.out, self.settings, report)
            if not np.isfinite(outcome.probability).all():
                raise UserError("the predicted probabilities are not all finite numbers")
        except DiskError:  # the other cells could not be written either
            raise
        except UserError as error:
            reason = str(error)
        except (torch.OutOfMemoryError, MemoryError) as error:
            reason, trace = f"out of memory: {_first_line(error)}", traceback.format_exc()
        except Exception as error:  # one cell's fault must not end the others; the traceback is kept beside its row
            reason, trace = f"{type(error).__name__}: {_first_line(error)}", traceback.format_exc()
        else:
            reason = ""
        seconds = time.perf_counter() - started
        if outcome is None or reason:
            write_failure(key, planned, self.out, reason, trace)
        else:
            _write_outcome(key, planned, self.prepared, self.out, outcome, seconds)
        folders = [key.folder(self.out)]
        if not reason and job.cell.head and job.cell.network:
            folders.append(features_folder(self.out, planned))
        return Ended(
            reason=reason,
            seconds=seconds,
            environment=self.environment,
            folders=[folder.relative_to(self.out).as_posix() for folder in folders],
        )


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that another process needs to become a worker; can be pickled."""

    data: Path
    """The prepared data set."""
    data_hash: str
    out: Path
    settings: Settings
    threads: int

    def worker(self) -> Worker:
        """Open the data set and return the worker.

        Raises:
            UserError: the data set can't be read, or is not the one that is meant.
        """
        prepared = load_prepared(self.data)
        if prepared.data_hash != self.data_hash:
            raise UserError(f"{self.data} was changed while the run began; call the same command again")
        return Worker(prepared, self.out, self.settings, self.threads)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch and the libraries of linear algebra compute with ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def cell_key(
    job: Job, prepared: Prepared, settings: Settings, defined: dict[str, Any], environment: dict[str, Any]
) -> CellKey:
    """Return what the rows of a cell have in common."""
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


def write_failure(key: CellKey, defined: dict[str, Any], out: Path, reason: str, trace: str = "") -> None:
    """Write the folder of a cell that failed: its one row, and the traceback where there is one.

    Raises:
        UserError: it can't be written.
    """

    def write_trace(folder: Path) -> None:
        if trace:
            (folder / "error.txt").write_text(trace, encoding="utf-8")

    write_cell(key.folder(out), defined, failed_rows(key, reason), write_trace)


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _one(metric: str, value: float, unit: str, n: int) -> Measured:
    return Measured(metric=metric, value=float(value), unit=unit, low=float("nan"), high=float("nan"), n=n)
