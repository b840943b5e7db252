"""A run's folder read back: ``run.json``, the rows and predictions of its cells and all made of them, checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.engine_rows import (
    ENGINE_COLUMNS,
    ENGINE_METRICS,
    ENVIRONMENT,
    MEASUREMENTS,
    STATUSES,
    machine_name,
    read_environment,
)
from bench.metrics import SCORES
from bench.report.csv_numbers import LARGEST_WHOLE, parse_numbers, read_texts
from bench.report.read_cells import CellId, read_histories, read_predictions
from bench.report.read_explanations import Explanation, read_explanations
from bench.report.read_straddling import read_straddling
from bench.store import ROW_COLUMNS, ROWS, RUN, has_cells, require_cell
from fusion.catalog import LABEL_NAMES
from fusion.checksums import SUMS, read_checksums, require_intact
from fusion.errors import UserError
from fusion.files import MOST_JSON_BYTES, content_hash, regular
from fusion.text import one_line

BEGIN_ANEW = "then call the same 'fusebench run' again: the cells have their own checksums"


@dataclass(frozen=True, kw_only=True)
class _Schema:
    """What the rows of one file must be."""

    columns: tuple[str, ...]
    statuses: tuple[str, ...]
    whole: tuple[str, ...]
    """Columns of whole numbers, never empty."""
    once: tuple[str, ...]
    """No two rows are the same in all of these."""


RESULT_ROWS = _Schema(columns=ROW_COLUMNS, statuses=("done", "failed"), whole=("seed",), once=("subset", "metric"))
ENGINE_ROWS = _Schema(
    columns=ENGINE_COLUMNS,
    statuses=STATUSES,
    whole=("seed", "batch"),
    once=("engine", "precision", "batch", "metric"),
)
NUMBERS = ("value", "low", "high", "n")
NAME_LENGTH = 60
RUN_KEYS = {"matrix": dict, "cells": list, "protocols": list, "seeds": list, "weights": str, "data": dict}
DATA_KEYS = {"data_hash": str, "image_size": int, "synthetic_sources": list, "counts": list}
ITEM_TYPES = {"cells": str, "protocols": str, "seeds": int}
COUNT_KEYS = {"source": str, "modality": str, "label": int, "images": int, "copies": int}
ENVIRONMENT_KEYS = {"gpu": object, "cpu": str, "cpu_cores": int}


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a report is made of."""

    run: dict[str, Any]
    """From ``read_run``."""
    rows: pd.DataFrame
    """From ``read_rows``."""
    measurements: pd.DataFrame
    """From ``read_measurements``."""
    predictions: Mapping[CellId, pd.DataFrame]
    """From ``read_predictions``."""
    histories: Mapping[CellId, pd.DataFrame]
    """From ``read_histories``."""
    straddling: pd.DataFrame
    """From ``read_straddling``."""
    explanations: Mapping[CellId, Explanation]
    """From ``read_explanations``."""


def read_results(run_dir: Path) -> Results:
    """Return what the folder of a run holds.

    Raises:
        UserError: it is not a run's folder, or one of its files is damaged.
    """
    run, rows = read_run(run_dir), read_rows(run_dir)
    return Results(
        run=run,
        rows=rows,
        measurements=read_measurements(run_dir),
        predictions=read_predictions(run_dir, rows),
        histories=read_histories(run_dir, rows),
        straddling=read_straddling(run_dir),
        explanations=read_explanations(run_dir),
    )


def read_run(run_dir: Path) -> dict[str, Any]:
    """Return the content of ``run_dir/run.json``.

    Raises:
        UserError: there is no such file, it is not JSON, or a key the report needs is missing or of the wrong type.
    """
    path = run_dir / RUN
    try:
        if path.exists():
            try:
                known = read_checksums(run_dir)
            except UserError as error:
                raise UserError(f"{error}; delete it and {RUN}, {BEGIN_ANEW}") from None
            if known is None:
                raise UserError(without_checksums(run_dir))
            require_intact(path, way_out=f"delete {path.name} and call the same 'fusebench run' again")
        run = json.loads(regular(path, MOST_JSON_BYTES).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{run_dir}: no run.json; give a folder written by 'fusebench run'") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError covers text that is not UTF-8
        raise UserError(f"{path}: not valid JSON ({one_line(str(error), 200)})") from error
    _check_keys(run, RUN_KEYS, f"{path}")
    for key, kind in ITEM_TYPES.items():
        for item in run[key]:
            if not isinstance(item, kind):
                raise UserError(f"{path}: {key}: {item!r} is {type(item).__name__}, not {kind.__name__}")
    if not isinstance(run.get("environments", {}), dict):
        raise UserError(f"{path}: 'environments' is {type(run['environments']).__name__}, not dict")
    _check_keys(run["data"], DATA_KEYS, f"{path}: data")
    for name in run["data"]["synthetic_sources"]:
        if not isinstance(name, str):
            raise UserError(f"{path}: data.synthetic_sources: {name!r} is {type(name).__name__}, not str")
    for place, count in enumerate(run["data"]["counts"]):
        _check_keys(count, COUNT_KEYS, f"{path}: data.counts[{place}]")
        if count["label"] not in LABEL_NAMES:
            raise UserError(f"{path}: data.counts[{place}]: label {count['label']} is not 0 (benign) or 1 (malignant)")
        for name in ("images", "copies"):
            if not 0 <= count[name] <= LARGEST_WHOLE:
                raise UserError(f"{path}: data.counts[{place}]: {name} is not a number from 0 to {LARGEST_WHOLE}")
    return run


def without_checksums(run_dir: Path) -> str:
    """Return what is said of the folder of a run whose ``SHA256SUMS`` is gone, or that an earlier version made."""
    if has_cells(run_dir):
        return f"{run_dir} has lost its {SUMS}; delete {RUN}, too, {BEGIN_ANEW}"
    return f"{run_dir} has no {SUMS}: an earlier version made it; run the matrix again, into another folder"


def read_rows(run_dir: Path) -> pd.DataFrame:
    """Return the rows of every cell, columns ``ROW_COLUMNS``: text as ``str``, numbers as numbers, empty ones NaN.

    A run without a finished cell gives an empty frame.

    Raises:
        UserError: a ``rows.csv`` cannot be read, its columns are not ``ROW_COLUMNS``, a number is text or can't
            be, or a status is neither done nor failed.
    """
    cells = run_dir / "cells"
    places = _places(cells, "*/*/**/rows.csv")
    frames = [_read_results(cells / place, _keys(place.parent)) for place in places]
    return pd.concat(frames, ignore_index=True) if frames else _empty(RESULT_ROWS)


def read_cell_rows(run_dir: Path, place: Path) -> pd.DataFrame:
    """Return the rows of the cell at ``place`` below ``run_dir/cells``, as ``read_rows`` returns those of all.

    Raises:
        UserError: as ``read_rows``.
    """
    return _read_results(run_dir / "cells" / place / ROWS, _keys(place))


def read_measurements(run_dir: Path) -> pd.DataFrame:
    """Return what ``fusebench measure`` found on every machine: ``ENGINE_COLUMNS``, and the ``machine``'s name.

    Text is ``str``, numbers are numbers, empty ones NaN. Machines of the same name are told apart by the hash of their
    environment. A run that was never measured gives an empty frame.

    Raises:
        UserError: a file can't be read, its columns are not ``ENGINE_COLUMNS``, a number is text, a status, metric or
            unit is unknown, a row belongs to another place or occurs twice, or the description of the machine is
            missing, damaged or another's.
    """
    frames, names = [], {}
    for folder in sorted((run_dir / MEASUREMENTS).glob("[!.]*/")):
        if places := _places(folder, "*/*/**/*.csv"):
            machine, name = _machine(folder)
            names[machine] = name
            keys = {"environment_hash": machine}
            frames += [_read_engines(folder / place, keys | _keys(place.with_suffix(""))) for place in places]
    rows = pd.concat(frames, ignore_index=True) if frames else _empty(ENGINE_ROWS)
    shared = {machine for machine, name in names.items() if list(names.values()).count(name) > 1}
    told_apart = {machine: f"{name} [{machine[:6]}]" if machine in shared else name for machine, name in names.items()}
    return rows.assign(machine=[told_apart[machine] for machine in rows["environment_hash"]])


def _places(folder: Path, pattern: str) -> list[Path]:
    """Return the files below ``folder``; a name that begins with a dot is of something that was being written."""
    places = sorted(path.relative_to(folder) for path in folder.glob(pattern))
    return [place for place in places if not any(part.startswith(".") for part in place.parts)]


def _keys(place: Path) -> dict[str, str]:
    protocol, seed, *cell = place.parts
    return {"protocol": protocol, "seed": seed, "cell": "/".join(cell)}


def _machine(folder: Path) -> tuple[str, str]:
    """Return the hash and the name of the machine whose measurements lie in ``folder``."""
    path = folder / ENVIRONMENT
    environment = read_environment(folder)
    _check_keys(environment, ENVIRONMENT_KEYS, f"{path}")
    if environment["gpu"] is not None:
        _check_keys(environment["gpu"], {"name": str}, f"{path}: gpu")
    found = content_hash(environment)
    if not found.startswith(folder.name):
        raise UserError(
            f"{path}: its content has the hash {found[:12]}, but its folder is named {folder.name!r}; copy a machine's "
            "folder as it is, or measure again"
        )
    return found, one_line(machine_name(environment), NAME_LENGTH)


def _read_results(path: Path, keys: Mapping[str, str]) -> pd.DataFrame:
    require_cell(path.parent, path.name)
    rows = _read_rows(path, RESULT_ROWS, keys)
    scores = rows[rows["metric"].isin(SCORES)]
    for column in ("value", "low", "high"):
        for metric, wrong in scores.loc[scores[column].abs() > 1, ["metric", column]].itertuples(index=False):
            raise UserError(f"{path}: {column} {wrong} of {metric} is not within −1 and 1")
    return rows


def _read_engines(path: Path, keys: Mapping[str, str]) -> pd.DataFrame:
    require_intact(path, way_out="delete it and measure again")
    rows = _read_rows(path, ENGINE_ROWS, keys)
    for status, metric, unit in zip(rows["status"], rows["metric"], rows["unit"], strict=True):
        if status != "done" and metric:
            raise UserError(f"{path}: metric {metric!r} in a row that is {status}; there it is empty")
        if status == "done" and metric not in ENGINE_METRICS:
            raise UserError(f"{path}: metric {metric!r} is not one of {', '.join(ENGINE_METRICS)}")
        if status == "done" and unit != ENGINE_METRICS[metric]:
            raise UserError(f"{path}: unit {unit!r} of {metric} is not {ENGINE_METRICS[metric]!r}")
    return rows


def _read_rows(path: Path, schema: _Schema, keys: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows of one file, all of which must have the ``keys`` that its place says."""
    try:
        rows = read_texts(path)
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable text are ValueErrors
        raise UserError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())})") from error
    if tuple(rows.columns) != schema.columns:
        difference = _difference(list(rows.columns), schema.columns)
        raise UserError(
            f"{path}: {difference}; the columns are {', '.join(schema.columns)}; if another version wrote the file, "
            "delete it to make it again"
        )
    for status in rows.loc[~rows["status"].isin(schema.statuses), "status"]:
        raise UserError(f"{path}: status {status!r} is not one of {', '.join(schema.statuses)}")
    for column, expected in keys.items():
        for found in rows.loc[rows[column] != expected, column]:
            raise UserError(f"{path}: {column} {found!r} does not belong here; its folder says {expected!r}")
    try:
        parsed = parse_numbers(rows, whole=schema.whole, numbers=NUMBERS)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    for row in parsed[parsed.duplicated(list(schema.once))].to_dict("records"):
        raise UserError(f"{path}: {', '.join(f'{column} {row[column]!r}' for column in schema.once)} occurs twice")
    return parsed


def _empty(schema: _Schema) -> pd.DataFrame:
    nothing = pd.DataFrame(columns=list(schema.columns), dtype=str)
    return parse_numbers(nothing, whole=schema.whole, numbers=NUMBERS)


def _difference(columns: list[str], expected: tuple[str, ...]) -> str:
    missing = [name for name in expected if name not in columns]
    unexpected = [name for name in columns if name not in expected]
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"has the unknown {', '.join(unexpected)}"] if unexpected else []
    return " and ".join(parts) or "its columns are in another order"


def _check_keys(found: Any, expected: Mapping[str, type], where: str) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{where}: is {type(found).__name__}, not an object with {', '.join(expected)}")
    for key, kind in expected.items():
        if key not in found:
            raise UserError(f"{where}: lacks {key!r}; needed are {', '.join(expected)}")
        if not isinstance(found[key], kind):
            raise UserError(f"{where}: {key!r} is {type(found[key]).__name__}, not {kind.__name__}")
