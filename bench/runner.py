"""Running a matrix: cells handed to an executor, each isolated, each found again when the run is continued."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.augmented_image import write_augmented_image
from bench.cell import FORMAT, Job, Settings
from bench.executors import MOST_THREADS, Call, Executor, Where, open_executor
from bench.extract import features_folder
from bench.matrix import Cell, Matrix
from bench.report.read import read_run
from bench.report.read_straddling import STRADDLING
from bench.run_images import write_run_images
from bench.store import OF_REPORT, RUN, CellKey, has_backbone, has_cells, is_done
from bench.worker import Described, Ended, WorkerPlan, cell_key, write_failure
from fusion.checksums import SUMS
from fusion.errors import UserError
from fusion.files import clear_leftovers, content_hash, sole_writer, write_json, write_text
from fusion.prepared import Prepared
from fusion.straddling import straddling

CHOSEN = ("loader", "precision", "step", "threads")
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
    where: Where,
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
        where: the cells are computed; the numbers are the same wherever.
        progress: called as the work goes on.
        finished: called with one line when a cell has ended, or when a choice was made that should be known.

    Raises:
        UserError: the folder can't be written, or holds a run on other data or with other settings.
    """
    jobs = [Job(cell=c, protocol=p, seed=s) for p in protocols for s in seeds for c in cells]
    threads = where.threads or _earlier_threads(out) or where.torch_threads()
    plan = WorkerPlan(
        data=prepared.root.resolve(),
        data_hash=prepared.data_hash,
        out=out.resolve(),
        settings=settings,
        threads=threads,
    )
    view = _View(progress, finished, sum(job.cost for job in jobs))
    with closing(open_executor(where, prepared, plan, view.report, finished)) as executor:
        executor.submit([Call(method="describe", arguments=(jobs,), name="the plan of the run")])
        described = _value(executor)
        for note in described.notes:
            finished(f"note: {note}")
        settings = replace(settings, loader=described.loader)
        with sole_writer(out), closing(executor):  # no worker writes any more when the lock is let go
            written = _write_run(out, matrix, jobs, prepared, settings, described, threads)
            clear_leftovers(out, but=OF_REPORT)
            _write_straddling(out, prepared, written["protocols"], written["seeds"])
            write_augmented_image(prepared, out, settings, seeds[0])
            folder = _RunFolder(
                out=out, prepared=prepared, settings=settings, environment=described.environment, written=written
            )
            return _run_jobs(jobs, described, folder, executor, view)


def _run_jobs(
    jobs: Sequence[Job], described: Described, folder: "_RunFolder", executor: Executor, view: "_View"
) -> Summary:
    keys = [folder.key(job, defined) for job, defined in zip(jobs, described.definitions, strict=True)]
    # Every finished cell is checked before the first is trained: what does not fit is said at once.
    planned = list(zip(jobs, keys, described.definitions, strict=True))
    is_found = [is_done(key, defined, folder.out) for _, key, defined in planned]
    done, failed = 0, []
    groups: dict[str, list[Call]] = {}
    for (job, _, defined), found in zip(planned, is_found, strict=True):
        if found:
            folder.write_images(job)
            view.ended(job)
        else:  # cells of the same features go to the same worker
            shared = str(features_folder(folder.out, defined)) if job.cell.head and job.cell.network else job.name
            groups.setdefault(shared, []).append(Call(method="run", arguments=(job, defined), name=job.name))
    for calls in groups.values():
        executor.submit(calls)
    for _ in range(len(jobs) - sum(is_found)):
        result = executor.next_result()
        job, defined = result.call.arguments
        if result.lost:
            failure = result.lost
            write_failure(folder.key(job, defined), defined, folder.out, failure)
        else:
            ended: Ended = result.value
            failure = ended.reason
            folder.add_environment(ended.environment)
        if failure:
            failed.append(f"{job.name}: {failure}")
            view.finished(f"{job.name} failed: {failure}")
        else:
            done += 1
            view.finished(f"{job.name} done in {ended.seconds:.0f} s")
            folder.write_images(job)
        view.ended(job)
    return Summary(done=done, found=sum(is_found), failed=tuple(failed))


def _value(executor: Executor) -> Any:
    result = executor.next_result()
    if result.lost:
        raise UserError(f"{result.call.name} could not be made: {result.lost}")
    return result.value


class _View:
    """The progress of all cells as one."""

    def __init__(self, progress: Progress, finished: Callable[[str], None], total: float) -> None:
        self.progress, self.finished, self.total = progress, finished, total
        self.done = 0.0
        self.under_way: dict[str, float] = {}

    def report(self, call: Call, part: float) -> None:
        """Show that a share of a cell is done."""
        if call.method == "run":
            job = call.arguments[0]
            self.under_way[job.name] = part * job.cost
            self._show(job.name)

    def ended(self, job: Job) -> None:
        """Show that a cell is done."""
        self.under_way.pop(job.name, None)
        self.done += job.cost
        self._show(job.name)

    def _show(self, name: str) -> None:
        others = len(self.under_way.keys() - {name})
        self.progress(
            f"{name} and {others} more" if others else name, self.done + sum(self.under_way.values()), self.total
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _RunFolder:
    """The folder of a run, opened for writing."""

    out: Path
    prepared: Prepared
    settings: Settings
    environment: dict[str, Any]
    written: dict[str, Any]
    """What ``run.json`` holds."""
    checked: set[Path] = field(default_factory=set)
    """Folders of test rows."""

    def key(self, job: Job, defined: dict[str, Any]) -> CellKey:
        return cell_key(job, self.prepared, self.settings, defined, self.environment)

    def write_images(self, job: Job) -> None:
        """Write the test rows of a finished cell, unless they are there."""
        if job.cell.network:
            write_run_images(job, self.prepared, self.out, self.settings, self.checked)

    def add_environment(self, environment: dict[str, Any]) -> None:
        """Keep what a cell was computed on."""
        if (key := content_hash(environment)) not in self.written["environments"]:
            self.written["environments"][key] = environment
            write_json(self.out / RUN, self.written, recorded=True)


def _write_run(
    out: Path,
    matrix: Matrix,
    jobs: Sequence[Job],
    prepared: Prepared,
    settings: Settings,
    described: Described,
    threads: int,
) -> dict[str, Any]:
    """Write ``run.json``, or add to the one of an earlier call on the same data with the same settings; return it."""
    same = {
        "format": FORMAT,
        "matrix": {"name": matrix.name},
        "loader": settings.loader,
        "precision": described.precision,
        "step": described.step,
        "threads": threads,
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
        "environments": {content_hash(described.environment): described.environment},
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
    # a killed call may have left .run.json.*; where run.json was deleted as damaged, checksums or cells are still there
    elif (
        not (out / SUMS).exists()
        and not has_cells(out)
        and any(not path.name.startswith(".") for path in out.iterdir())
    ):
        raise UserError(f"{out} is not empty and is not a run's folder; choose another --out")
    written = {**same, **grown}
    write_json(out / RUN, written, recorded=True)
    return written


def _earlier_threads(out: Path) -> int | None:
    """Return the CPU threads of a cell in the run that is continued, as sums depend on them; None where none is."""
    threads = read_run(out).get("threads") if (out / RUN).exists() else None
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise UserError(f"{out / RUN}: threads {threads!r} is not a whole number from 1 to {MOST_THREADS}")
    return threads


def _write_straddling(out: Path, prepared: Prepared, protocols: Sequence[str], seeds: Sequence[int]) -> None:
    """Write how many groups have rows on both sides of every split of the run."""
    found = [straddling(prepared.catalog, prepared.duplicates, p, s) for p in protocols for s in seeds]
    write_text(out / STRADDLING, pd.concat(found, ignore_index=True).to_csv(index=False), recorded=True)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("data_hash", value.get("name", value))
    return str(value)[:16]
