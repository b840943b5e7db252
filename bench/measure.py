"""Measuring the finished cells of a run: export, parity, latency, size and layers, from the run's folder alone."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.cell_files import MeasuredRun, model_hash, reason_of
from bench.engine_rows import ENGINE_COLUMNS, Found, machine_folder, write_found
from bench.environment import describe_environment, set_numerics
from bench.export import BodyGraph
from bench.latency import ROUNDS
from bench.measure_cell import Pair, measure_cell, network_facts
from bench.paper import paper_costs
from bench.report.read import read_measurements, read_rows, read_run
from bench.sessions import ENGINES, NotHereError, describe_engines, require_machine
from bench.store import OF_REPORT, cell_folder
from fusion.checksums import forget
from fusion.errors import DiskError, UserError
from fusion.files import clear_leftovers, content_hash, make_folder, sole_writer, write_text
from fusion.models import FORWARD_GMACS

BATCHES = (1, 8, 32, 64)
RUN_BATCHES = (1, 32)
"""Of what ``fusebench run`` measures at its end."""
COMMON = ("cell", "protocol", "seed", "weights", "synthetic_sources", "data_hash", "config_hash")

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Raises:
        UserError: a value is unknown or out of range.
    """

    only: Sequence[str] = ()
    """Patterns of cells, under every protocol and seed of the run."""
    every: bool = False
    """Measure every finished cell. Without this and ``only``: one of each network, under the first protocol and seed,
    if possible one the paper's Table 5 prints, and with the network's own last layer."""
    engines: Sequence[str] = ()
    """Keys of ``ENGINES``; empty for those measured by default."""
    batches: Sequence[int] = BATCHES
    rounds: int = ROUNDS
    again: bool = False
    """Measure what has been measured on this machine once more, and replace it."""

    def __post_init__(self) -> None:
        for name in self.engines:
            if name not in ENGINES:
                raise UserError(f"engine {name!r} is unknown; choose from {', '.join(ENGINES)}")
        for batch in self.batches:
            if not 1 <= batch <= 1024:
                raise UserError(f"batch {batch} is not a whole number from 1 to 1024")
        if not 2 <= self.rounds <= 1000:
            raise UserError(f"rounds {self.rounds} is not a whole number from 2 to 1000")

    def pairs(self) -> list[tuple[str, str]]:
        """Return the engines with their precisions."""
        names = self.engines or [name for name, engine in ENGINES.items() if engine.by_default]
        return [(name, precision) for name in names for precision in ENGINES[name].precisions]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a measurement ended."""

    measured: int
    """Cells measured now."""
    found: int
    """Cells that had been measured on this machine before."""
    failed: tuple[str, ...]
    """A line for each cell that could not be measured at all."""


def measure(run_dir: Path, plan: Plan, *, progress: Progress, finished: Callable[[str], None]) -> Summary:
    """Measure finished cells of a run and keep the rows in its folder, those of other machines beside them.

    Args:
        run_dir: the run's folder.
        plan: what is measured.
        progress: called as the work goes on.
        finished: called with one line when a cell has ended.

    Raises:
        UserError: the folder is not a run's, has no finished cell that is meant, or can't be written.
    """
    run, rows = read_run(run_dir), read_rows(run_dir)
    done = _finished_cells(rows)
    chosen = _chosen(run, done, plan)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_numerics(device)
    environment = describe_environment(device) | {"engines": describe_engines()}
    measured_run = MeasuredRun(
        folder=run_dir,
        image_size=run["data"]["image_size"],
        precision=run.get("precision", "fp32"),
        weights=run["weights"],
        synthetic_sources=run["data"]["synthetic_sources"],
    )
    with sole_writer(run_dir):
        clear_leftovers(run_dir, but=OF_REPORT)
        machine = _Machine(run_dir, environment)
        for cell in done:
            if not machine.has(cell):
                machine.keep(cell, network_facts(cell["network"], measured_run.image_size))
        return _measure_cells(chosen, machine, plan, measured_run, progress, finished)


def _measure_cells(
    cells: Sequence[dict[str, Any]],
    machine: "_Machine",
    plan: Plan,
    run: MeasuredRun,
    progress: Progress,
    finished: Callable[[str], None],
) -> Summary:
    graph, done, measured, failed = BodyGraph(), 0.0, 0, []
    work = [FORWARD_GMACS[cell["network"]] + 1 for cell in cells]  # beside its arithmetic each has its export
    for cell, cost in zip(cells, work, strict=True):
        name = f"{cell['protocol']}/{cell['seed']}/{cell['cell']}"

        def advance(part: float, name: str = name, before: float = done, cost: float = cost) -> None:
            progress(f"measure {name}", before + part * cost, sum(work))

        advance(0.0)
        started = time.perf_counter()
        folder, pairs = cell_folder(run.folder, cell["protocol"], cell["seed"], cell["cell"]), plan.pairs()
        try:
            identity = model_hash(run.folder, folder)
            pairs, batches = machine.lacking(cell, plan, identity)
            if pairs:
                found = measure_cell(
                    folder, run, pairs, batches=batches, rounds=plan.rounds, graph=graph, advance=advance
                )
                machine.keep(cell, found, identity)
        except DiskError:  # the other cells could not be written either
            raise
        except Exception as error:  # one cell's fault must not end the others
            reason = reason_of(error)
            machine.keep_failure(cell, pairs, reason)
            if not isinstance(error, UserError):
                machine.keep_trace(cell, traceback.format_exc())
            failed.append(f"{name}: {reason}")
            finished(f"measure {name} failed: {reason}")
        else:
            if pairs:
                measured += 1
                finished(f"measure {name} done in {time.perf_counter() - started:.0f} s")
        done += cost
        advance(1.0)
    return Summary(measured=measured, found=len(cells) - measured - len(failed), failed=tuple(failed))


class _Machine:
    """The rows of the machine at hand in a run's folder."""

    def __init__(self, run_dir: Path, environment: dict[str, Any]) -> None:
        self.folder = machine_folder(run_dir, environment)
        self.environment_hash = content_hash(environment)
        rows = read_measurements(run_dir)
        rows = rows[rows["environment_hash"] == self.environment_hash]
        self.rows = dict(list(rows.groupby(["protocol", "seed", "cell", "config_hash"])))

    def has(self, cell: dict[str, Any]) -> bool:
        """Return whether there are rows of the cell, as it is now."""
        return self._key(cell) in self.rows

    def lacking(self, cell: dict[str, Any], plan: Plan, identity: str) -> tuple[list[Pair], list[int]]:
        """Return the engines with their precisions, and the batches, to measure; no engine where all wanted is there.

        A cell is measured as a whole, as engines are compared with each other: also with the engines and the batches it
        has been measured with.

        Args:
            cell: as ``_finished_cells`` returns it.
            plan: what is wanted.
            identity: ``model_hash`` of the cell; what was measured of other weights is not there.
        """
        wanted, rows = plan.pairs(), self._engine_rows(cell)
        rows = rows[rows["model_hash"] == identity]
        known = {(name, precision) for name, engine in ENGINES.items() for precision in engine.precisions}
        there = [pair for pair in dict.fromkeys(zip(rows["engine"], rows["precision"], strict=True)) if pair in known]
        absent = set(rows[rows["status"] == "not measured"]["engine"])
        appeared = [name for name in absent if name in ENGINES and _is_here(name)]
        timed = {int(batch) for batch in rows[rows["status"] == "done"]["batch"] if batch}
        whole = set(there) >= set(wanted) and (not timed or timed >= set(plan.batches)) and not appeared
        pairs = [] if whole and not plan.again else list(dict.fromkeys([*wanted, *there]))
        return pairs, sorted(timed.union(plan.batches))

    def keep(self, cell: dict[str, Any], found: Sequence[Found], identity: str = "") -> None:
        """Write the rows of a cell in place of those it had."""
        if (trace := self._file(cell, "error.txt")).exists():  # of an earlier attempt
            trace.unlink()
            forget(trace)
        common = {key: cell[key] for key in COMMON} | {"environment_hash": self.environment_hash}
        write_found(self._file(cell, "csv"), common | {"model_hash": identity}, list(found))

    def keep_failure(self, cell: dict[str, Any], pairs: Sequence[Pair], reason: str) -> None:
        """Write why a cell could not be measured, unless it has been measured before."""
        if self._engine_rows(cell).empty:
            refused = [Found(engine=e, precision=p, status="refused", reason=reason) for e, p in pairs]
            self.keep(cell, refused)

    def keep_trace(self, cell: dict[str, Any], text: str) -> None:
        """Write the traceback of a cell that could not be measured beside the rows it may have."""
        path = self._file(cell, "error.txt")
        make_folder(path.parent)
        write_text(path, text, recorded=True)

    def _file(self, cell: dict[str, Any], ending: str) -> Path:
        return self.folder / cell["protocol"] / str(cell["seed"]) / f"{cell['cell']}.{ending}"

    def _engine_rows(self, cell: dict[str, Any]) -> pd.DataFrame:
        rows = self.rows.get(self._key(cell), pd.DataFrame(columns=list(ENGINE_COLUMNS)))
        return rows[rows["engine"] != ""]

    @staticmethod
    def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
        return cell["protocol"], cell["seed"], cell["cell"], cell["config_hash"]


def _is_here(engine: str) -> bool:
    try:
        require_machine(engine)
    except NotHereError:
        return False
    return True


def _finished_cells(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the finished cells that have a network, which baselines have not: there is nothing to measure."""
    done = rows[(rows["status"] == "done") & ~rows["cell"].str.startswith("baseline/")]
    done = done.drop_duplicates(["protocol", "seed", "cell"])
    cells = [{str(key): value for key, value in row.items()} for row in done[list(COMMON)].to_dict("records")]
    for cell in cells:
        cell["network"] = cell["cell"].partition("/")[2].partition("+")[0]
    return sorted(cells, key=lambda cell: cell["network"])  # those of one network share its traced graph


def _chosen(run: dict[str, Any], done: list[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    if plan.only:
        chosen = [cell for cell in done if any(fnmatchcase(cell["cell"], pattern) for pattern in plan.only)]
    elif plan.every:
        chosen = done
    else:
        chosen = one_of_each_network(run, done)
    if not chosen:
        names = ", ".join(dict.fromkeys(cell["cell"] for cell in done)) or "none"
        asked = f"no finished cell fits {' '.join(plan.only)}" if plan.only else "there is no finished cell"
        if any(pattern.startswith("baseline/") for pattern in plan.only):
            asked += "; baselines have no network to measure"
        raise UserError(f"{asked}; finished are: {names[:300]}")
    return chosen


def one_of_each_network(run: dict[str, Any], cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one cell of each ``network``, under the first protocol and seed.

    If possible it is one the paper's Table 5 prints, and with the network's own last layer.
    """
    printed = {name: place for place, name in enumerate(paper_costs()["cell"])}

    def order(cell: dict[str, Any]) -> tuple[Any, ...]:
        planned = [*run["protocols"], cell["protocol"]].index(cell["protocol"])
        seed = [*run["seeds"], cell["seed"]].index(cell["seed"])
        return planned, seed, cell["cell"].startswith("model1/"), printed.get(cell["cell"], len(printed))

    best = {cell["network"]: cell for cell in sorted(cells, key=order, reverse=True)}
    return [best[network] for network in dict.fromkeys(cell["network"] for cell in cells)]
