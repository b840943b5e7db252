"""``fusebench verify``: is a folder still what was written into it?

Every file is compared with its checksum; of a run, the rows of each cell are also computed anew from its predictions,
which finds rows that were edited together with their checksums.
"""

import math
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.metrics import decide, subset_values
from bench.report.read import read_cell_rows, read_run, without_checksums
from bench.report.read_cells import read_cell_predictions
from bench.store import DEFINITION, OF_REPORT, PREDICTIONS, ROWS, RUN, TABLES, WEIGHTS, cell_folder
from fusion.checksums import SUMS, problems
from fusion.errors import UserError
from fusion.files import content_hash, read_json
from fusion.lock import require_no_writer
from fusion.prepared import MANIFEST, PARTIAL, PREPARED_BEFORE, load_prepared

SAME = 1e-6
"""Relative difference of a number in the rows from the same computed anew, on whatever machine."""
ANEW = "call the same 'fusebench run' again"
MOVE = "fusebench did not write it: move it elsewhere"
MOVE_OTHERS = "what it leaves as it is, move elsewhere"
MOVE_CELL = "move it elsewhere, or call the 'fusebench run' that made it again"
WAYS_OUT = {
    "cells": f"delete the cell's folder, then {ANEW}",
    "features": f"delete its folder and the Model 1 cells of this network, then {ANEW}",
    "images": f"{ANEW}, which writes it anew",
    "straddling.csv": f"{ANEW}, which writes it anew",
    RUN: f"delete it, then {ANEW}",
    "explanations": "fusebench explain --again",
    "measurements": "delete it, then call fusebench measure",
    "tables": "fusebench report writes it anew",
    "figures": "fusebench report writes it anew",
    "index.html": "fusebench report writes it anew",
}
"""First part of a place in a run's folder -> what to do about a missing or damaged file there."""
MADE_ANEW = {
    SUMS: f"delete it and {RUN}, then {ANEW}",
    "cells": WAYS_OUT["cells"],
    "features": WAYS_OUT["features"],
    "images": f"delete its folder, then {ANEW}",
    "explanations": "delete its folder, then call fusebench explain",
    "measurements": "delete its folder, then call fusebench measure",
    "tables": "delete its folder, then call fusebench report",
    "figures": "delete its folder, then call fusebench report",
}
"""The same where a folder's ``SHA256SUMS`` is lost or damaged."""
PREPARE_ANEW = "delete the folder, then call the same 'fusebench prepare' again"

Progress = Callable[[float, float], None]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a folder."""

    place: str
    """Below the folder."""
    kind: str
    """``missing``, ``damaged``, ``foreign``, ``unfinished``, ``not a file``, ``not run``, ``failed`` or
    ``contradiction``."""
    why: str
    way_out: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was compared, and what was found."""

    files: int
    cells: int
    """Finished cells whose rows were computed anew."""
    findings: tuple[Finding, ...]


def verify(folder: Path, progress: Progress = lambda *_: None) -> Verified:
    """Compare a run's folder, or a prepared data set, with its own checksums and with itself; nothing is changed.

    Args:
        folder: written by ``fusebench run`` or ``fusebench prepare``.
        progress: called with the bytes that were read and those there are.

    Raises:
        UserError: it is neither, another process is writing to it, or a folder in it can't be read.
    """
    is_run = (folder / RUN).exists() or (folder / "cells").exists()
    if not is_run and not (folder / MANIFEST).exists():
        if (folder / PARTIAL).exists():
            raise UserError(f"{folder} is not finished: call the same 'fusebench prepare' again")
        raise UserError(f"{folder} was written neither by 'fusebench run' nor by 'fusebench prepare'")
    if not (folder / SUMS).exists():
        raise UserError(without_checksums(folder) if is_run else f"{folder} {PREPARED_BEFORE}")
    written = (folder, folder / TABLES)
    for one in written:
        require_no_writer(one)
    sizes = list(_sizes(folder))
    total, read, files = sum(sizes), 0, 0

    def advance(size: int) -> None:
        nonlocal read, files
        read, files = read + size, files + 1
        progress(read, total)

    found = [_finding(folder, problem.path, problem.kind, problem.why, is_run) for problem in problems(folder, advance)]
    if is_run:
        found = list(_without_sums(folder, found))
        cells, more = _check_cells(folder, found)
    else:
        cells, more = 0, [] if any(one.kind in ("missing", "damaged") for one in found) else _check_prepared(folder)
    for one in written:
        require_no_writer(one)
    return Verified(files=files, cells=cells, findings=(*found, *more))


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            yield status.st_size


def _finding(folder: Path, path: Path, kind: str, why: str, is_run: bool) -> Finding:
    place = path.relative_to(folder)
    if kind == "foreign" and is_run and place.parts[0] in OF_REPORT:
        why, way_out = "or left by a killed report", f"{WAYS_OUT[place.parts[0]]}; {MOVE_OTHERS}"
    elif kind in ("foreign", "not a file"):
        way_out = MOVE
    elif kind == "unfinished":
        way_out = "left by a killed call: the next one removes it"
    elif not is_run:
        way_out = PREPARE_ANEW
    elif place.name == SUMS:
        way_out = MADE_ANEW.get(place.parts[0], ANEW)
    elif place.parts[0] == "cells" and place.suffix == ".onnx":
        way_out = "delete it, then call fusebench measure"
    else:
        way_out = WAYS_OUT.get(place.parts[0], ANEW)
    return Finding(place=place.as_posix(), kind=kind, why=why, way_out=way_out)


def _without_sums(folder: Path, found: Iterable[Finding]) -> Iterator[Finding]:
    """Name a cell that has lost its ``SHA256SUMS`` once, instead of all its files as foreign."""
    named = set()
    for finding in found:
        home = (folder / finding.place).parent
        if finding.kind != "foreign" or not finding.place.startswith("cells/") or not (home / DEFINITION).is_file():
            yield finding
        elif home not in named:
            named.add(home)
            place = (home / SUMS).relative_to(folder).as_posix()
            yield Finding(place=place, kind="missing", why="", way_out=MADE_ANEW["cells"])


def _check_prepared(folder: Path) -> list[Finding]:
    try:
        load_prepared(folder)
    except UserError as error:
        return [Finding(place=MANIFEST, kind="contradiction", why=str(error), way_out=PREPARE_ANEW)]
    return []


def _check_cells(folder: Path, found: list[Finding]) -> tuple[int, list[Finding]]:
    """Return how many cells were compared with themselves, and what is wrong with those of ``run.json``."""
    try:
        run = read_run(folder)
    except UserError as error:
        known = any(finding.place in (RUN, SUMS) for finding in found)
        return 0, [] if known else [Finding(place=RUN, kind="damaged", why=str(error), way_out=WAYS_OUT[RUN])]
    broken = {finding.place for finding in found}
    count, more, named = 0, [], set()
    for protocol in run["protocols"]:
        for seed in run["seeds"]:
            for cell in run["cells"]:
                cell_dir = cell_folder(folder, protocol, seed, cell)
                if ".." in Path(protocol, str(seed), cell).parts or folder not in cell_dir.parents:
                    why = f"it names the cell {protocol}/{seed}/{cell}, which would lie outside the folder"
                    more.append(Finding(place=RUN, kind="contradiction", why=why, way_out=WAYS_OUT[RUN]))
                    continue
                place = cell_dir.relative_to(folder).as_posix()
                named.add(place)
                if any(one.startswith(f"{place}/") for one in broken):
                    continue  # named already
                if not (cell_dir / ROWS).is_file():
                    more.append(Finding(place=place, kind="not run", why="", way_out=ANEW))
                    continue
                try:
                    state = _check_cell(folder, cell_dir, run)
                except UserError as error:
                    why = str(error).replace(f"{cell_dir}/", "")
                    more.append(Finding(place=place, kind="contradiction", why=why, way_out=WAYS_OUT["cells"]))
                else:
                    count += not state
                    if state:
                        more.append(Finding(place=place, kind="failed", why=state, way_out=ANEW))
    for path in sorted((folder / "cells").rglob(ROWS)):
        place = path.parent.relative_to(folder).as_posix()
        if place not in named and "/." not in place:
            why = f"{RUN} does not name this cell"
            more.append(Finding(place=place, kind="foreign", why=why, way_out=MOVE_CELL))
    return count, more


def _check_cell(folder: Path, cell: Path, run: dict[str, Any]) -> str:
    """Compare the files of a cell with each other; return why the cell failed, or nothing for one that is done.

    Raises:
        UserError: they contradict each other.
    """
    rows = read_cell_rows(folder, cell.relative_to(folder / "cells"))
    defined = read_json(cell / DEFINITION, "a cell's folder")
    for name, expected in (("config_hash", content_hash(defined)), ("data_hash", run["data"]["data_hash"])):
        if set(rows[name]) != {expected}:
            raise UserError(f"{ROWS} has another {name} than {DEFINITION if name == 'config_hash' else RUN}")
    if defined.get("data_hash") != run["data"]["data_hash"]:
        raise UserError(f"{DEFINITION} has another data_hash than {RUN}")
    if set(rows["status"]) != {"done"}:
        return str(rows["reason"].iloc[0])
    if not (cell / WEIGHTS).is_file():
        raise UserError(f"{WEIGHTS} is missing")
    predictions = read_cell_predictions(cell)
    if (decide(predictions["probability"].to_numpy()) != predictions["decision"].to_numpy()).any():
        raise UserError(f"a decision in {PREDICTIONS} is not that of its probability")
    _compare(rows, subset_values(predictions))
    return ""


def _compare(rows: pd.DataFrame, computed: Mapping[tuple[str, str], float]) -> None:
    """Compare rows with what the predictions give; intervals may be another version's.

    Raises:
        UserError: a score or a count is missing, or is another.
    """
    kept = dict(zip(zip(rows["subset"], rows["metric"], strict=True), rows["value"], strict=True))
    for (subset, metric), given in computed.items():
        if (value := kept.get((subset, metric))) is None:
            raise UserError(f"{ROWS} lacks {metric} of {subset}")
        if not (math.isclose(value, given, rel_tol=SAME, abs_tol=SAME) or (math.isnan(value) and math.isnan(given))):
            raise UserError(f"{ROWS} says {metric} {value:.9g} ({subset}), {PREDICTIONS} gives {given:.9g}")
