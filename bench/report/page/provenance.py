"""Where each number of the page comes from: the rows, files and environment of every cell."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from bench.engine_rows import ENVIRONMENT, MEASUREMENTS
from bench.metrics import ALL
from bench.report.layout import NONE, number
from bench.report.read import Results
from bench.report.summary import union
from bench.store import cell_folder
from fusion.files import content_hash, read_json

CELL_FILES = ("rows.csv", "predictions.parquet", "history.csv", "cell.json", "model.safetensors", "model.onnx")
HASHES = ("data_hash", "config_hash", "environment_hash")
MOST_FACTS = 200
"""Lines of one environment that are shown; the file it comes from has all."""
WHOLE = 1e15
"""Below it a float is exactly the whole number it shows."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file of the run's folder, relative to ``index.html`` and percent-encoded."""

    text: str
    href: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One cell under one protocol: all rows it has, over the seeds."""

    anchor: str
    protocol: str
    cell: str
    seeds: tuple[int, ...]
    metrics: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Metric, unit, and for each seed the value with its interval and n."""
    hashes: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]
    """Seed, and the name and value of each hash."""
    files: tuple[Link, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a run or a measurement was made on."""

    anchor: str
    title: str
    facts: tuple[tuple[str, str], ...]
    """Dotted key and value."""


class Anchors(dict[tuple[str, str], str]):
    """Protocol and cell -> the id of its place in the page: letters, digits and hyphens only, each id once."""

    def __init__(self, rows: pd.DataFrame) -> None:
        super().__init__()
        for protocol, cell in rows[["protocol", "cell"]].drop_duplicates().itertuples(index=False):
            slug = re.sub(r"[^a-z0-9]+", "-", f"cell-{protocol}-{cell}".lower()).strip("-")
            self[protocol, cell] = slug if slug not in self.values() else f"{slug}--{len(self)}"


def relative_link(run_dir: Path, path: Path) -> Link:
    """Return a link from ``run_dir/index.html`` to ``path``; its bytes are encoded, whatever the name holds."""
    place = path.relative_to(run_dir)
    return Link(text=str(place), href=quote(os.fsencode(place)))


def origins(run_dir: Path, results: Results, anchors: Mapping[tuple[str, str], str]) -> list[Origin]:
    """Return the provenance of every cell that has rows, in the order of its rows."""
    groups = results.rows.groupby(["protocol", "cell"], sort=False)
    return [
        _origin(run_dir, anchors[str(protocol), str(cell)], rows, str(protocol), str(cell))
        for (protocol, cell), rows in groups
    ]


def environments(run_dir: Path, results: Results) -> list[Environment]:
    """Return the environments of the run and of its measurements.

    Raises:
        UserError: the file of a measurement's environment is damaged.
    """
    found = []
    for code, content in results.run.get("environments", {}).items():
        found.append(_environment(f"Run, environment {str(code)[:12]}", str(code), content))
    for path in sorted((run_dir / MEASUREMENTS).glob(f"[!.]*/{ENVIRONMENT}")):
        content = read_json(path, "the measurements of a machine")
        code = content_hash(content)
        found.append(_environment(f"Measurements, machine {code[:12]}", code, content))
    return found


def environment_anchor(code: str) -> str:
    """Return the id of the environment with the hash ``code``."""
    return f"environment-{re.sub(r'[^0-9a-z]', '', code.lower())[:16]}"


def _environment(title: str, code: str, content: Any) -> Environment:
    facts = [pair for _, pair in zip(range(MOST_FACTS), _facts(content), strict=False)]
    return Environment(anchor=environment_anchor(code), title=title, facts=tuple(facts))


def _facts(content: Any) -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested objects; a stack instead of recursion, as a file may nest as deep as it likes."""
    stack = [("", content)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict) and value:
            stack += [(f"{key}.{name}" if key else str(name), value[name]) for name in reversed(value)]
        elif not isinstance(value, dict | list):
            yield key, value if isinstance(value, str) and value else json.dumps(value)
        elif isinstance(value, list):
            stack += [(f"{key}.{place}", one) for place, one in reversed(list(enumerate(value)))]


def _origin(run_dir: Path, anchor: str, rows: pd.DataFrame, protocol: str, cell: str) -> Origin:
    seeds = tuple(sorted(set(rows["seed"])))
    # rows.csv has values for subsets of the test rows too
    done = rows[(rows["status"] == "done") & (rows["subset"] == ALL)]
    texts = {(row["metric"], row["seed"]): _value(row) for row in done.to_dict("records")}
    units = dict(zip(done["metric"], done["unit"], strict=True))
    first = rows.drop_duplicates("seed").set_index("seed")
    return Origin(
        anchor=anchor,
        protocol=protocol,
        cell=cell,
        seeds=seeds,
        metrics=tuple(
            (metric, "" if units[metric] == "1" else units[metric], tuple(texts.get((metric, s), NONE) for s in seeds))
            for metric in union([], done["metric"])
        ),
        hashes=tuple((seed, tuple((name, str(first.loc[seed, name])) for name in HASHES)) for seed in seeds),
        files=tuple(_files(run_dir, protocol, cell, seeds)),
        failures=tuple(
            f"seed {row['seed']} failed: {row['reason'] or 'no reason recorded'}"
            for row in rows[rows["status"] == "failed"].to_dict("records")
        ),
    )


def _files(run_dir: Path, protocol: str, cell: str, seeds: tuple[int, ...]) -> Iterator[Link]:
    for seed in seeds:
        folder = cell_folder(run_dir, protocol, seed, cell)
        measured = [
            machine / protocol / str(seed) / f"{cell}.csv"
            for machine in sorted((run_dir / MEASUREMENTS).glob("[!.]*/"))
        ]
        for path in (*(folder / name for name in CELL_FILES), *measured):
            if path.is_file():
                yield relative_link(run_dir, path)


def _value(row: Mapping[Any, Any]) -> str:
    value, low, high, n = (float(row[name]) for name in ("value", "low", "high", "n"))
    shown = _number(value) + ("" if pd.isna(low + high) else f" ({_number(low)}–{_number(high)})")
    return shown if pd.isna(n) else f"{shown}, n {_number(n)}"


def _number(value: float) -> str:
    whole = abs(value) < WHOLE and value == int(value)
    return number(value, 0 if whole else 4)
