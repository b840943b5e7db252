"""Two folders held against each other: every file, byte for byte, but for what holds a time."""

import hashlib
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import pandas as pd

from bench.store import FILES

TIMED_ROWS = ("wall_s", "setup_s")
TIMED_MEASUREMENTS = (
    *("end_to_end_s", "model_only_s", "cold_start_s", "peak_memory_mib"),
    *("latency_p50_ms", "latency_p90_ms", "throughput", "ratio", "cpu_stolen"),
)


def _without_times(metrics: tuple[str, ...]) -> Callable[[bytes], bytes]:
    def masked(content: bytes) -> bytes:
        rows = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False)
        rows.loc[rows["metric"].isin(metrics), ["value", "low", "high", "n"]] = "time"
        return rows.to_csv(index=False).encode()

    return masked


def _relative_files(content: bytes) -> bytes:
    catalog = pd.read_parquet(BytesIO(content))
    catalog["file"] = [re.sub(r".*/slot-[^/]*/", "", file) for file in catalog["file"]]
    return catalog.to_csv(index=False).encode()


def _page_without_times(content: bytes) -> bytes:
    rows = "|".join(TIMED_ROWS).encode()
    return re.sub(rb"(-(?:" + rows + rb')">).*?</tr>', rb"\1", content, flags=re.DOTALL)


def _names(content: bytes) -> bytes:
    return b"\n".join(sorted(line.split(b"  ")[-1] for line in content.splitlines()))


def _nothing(_: bytes) -> bytes:
    return b""


MASKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cells/*/rows.csv": (_without_times(TIMED_ROWS), "seconds of training and set-up"),
    "index.html": (_page_without_times, "the same seconds, cell by cell"),
    "measurements/*/*.csv": (_without_times(TIMED_MEASUREMENTS), "latencies and what is computed of them"),
    "catalog.parquet": (_relative_files, "the folder in which the trial lies"),
    "*SHA256SUMS": (_names, "hashes of files that hold a time; the names are compared, and each file with its own"),
}
"""Pattern of a file's place -> what is compared of it, and what is left out."""
MASKS_WHERE_MEASURED = MASKS | dict.fromkeys(
    ("tables/table5.*", "tables/engines.*", "tables/leaderboard.*", "figures/pareto*", "index.html"),
    (_nothing, "shows latencies; the phase report shows that it is made of the rows alone"),
)
"""Where latencies were measured anew."""
FINISHED = ("cells/*", "explanations/*", "measurements/*", "images/*", "features/*")
"""What a later call must leave alone once it is there."""


def differences(whole: Path, trial: Path, *, measured: bool) -> list[str]:
    """Return in what files two folders differ; those of one folder alone, as leftovers are, too."""
    masks = MASKS_WHERE_MEASURED if measured else MASKS
    files = [_files(whole), _files(trial)]
    lines = [f"{name} is missing" for name in sorted(files[0] - files[1])]
    lines += [f"{name} is left over" for name in sorted(files[1] - files[0])]
    for name in sorted(files[0] & files[1]):
        if name.endswith("/"):
            continue
        contents = [(folder / name).read_bytes() for folder in (whole, trial)]
        mask = next((mask for pattern, (mask, _) in masks.items() if fnmatchcase(name, pattern)), None)
        if contents[0] != contents[1] and (mask is None or mask(contents[0]) != mask(contents[1])):
            lines.append(f"{name} differs")
    return lines


def finished_files(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of every file of what is finished in a run's folder, by its place.

    Of a cell these are the files without which it is not finished: ``measure`` adds others. A cell that failed is
    not finished, nor are measurements that hold no latencies yet.
    """
    found = {}
    for name in _files(folder):
        path, file = Path(name), folder / name
        hidden = any(part.startswith(".") for part in path.parts) or path.name == "SHA256SUMS"
        if name.endswith("/") or hidden or not any(fnmatchcase(name, pattern) for pattern in FINISHED):
            continue
        content = file.read_bytes()
        if path.parts[0] == "cells":
            finished = path.name in FILES and all((file.parent / one).is_file() for one in FILES)
        else:
            finished = path.parts[0] != "measurements" or b"latency_p50_ms" in content
        if finished:
            found[name] = (hashlib.sha256(content).hexdigest(), file.stat().st_mtime_ns)
    return found


def finished_cells(files: dict[str, tuple[str, int]]) -> set[str]:
    """Return the folders of the finished cells among ``finished_files``."""
    return {str(Path(name).parent) for name in files if name.startswith("cells/") and name.endswith("/rows.csv")}


def lost(before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> tuple[int, list[str]]:
    """Return how many finished cells were lost or written again, and a line for each finished file that was."""
    changed = [name for name in sorted(before) if after.get(name) != before[name]]
    cells = {cell for cell in finished_cells(before) if any(Path(name).is_relative_to(cell) for name in changed)}
    return len(cells), [
        f"{name} was finished before and is {'changed' if name in after else 'gone'}" for name in changed
    ]


def _files(folder: Path) -> set[str]:
    """Return all places below a folder; that of a folder ends in a slash."""
    return {path.relative_to(folder).as_posix() + "/" * path.is_dir() for path in folder.rglob("*")}
