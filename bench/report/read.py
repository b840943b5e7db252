"""A run's folder read back: ``run.json`` and the rows of its cells, checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.store import ROW_COLUMNS
from fusion.catalog import LABEL_NAMES
from fusion.errors import UserError

NUMERIC_COLUMNS = ("seed", "value", "low", "high", "n")
REQUIRED_COLUMNS = ("seed",)
STATUSES = ("done", "failed")
RUN_KEYS = {"matrix": dict, "cells": list, "protocols": list, "seeds": list, "weights": str, "data": dict}
DATA_KEYS = {"data_hash": str, "image_size": int, "synthetic_sources": list, "counts": list}
ITEM_TYPES = {"cells": str, "protocols": str, "seeds": int}
COUNT_KEYS = {"source": str, "modality": str, "label": int, "images": int, "copies": int}


def read_run(run_dir: Path) -> dict[str, Any]:
    """Return the content of ``run_dir/run.json``.

    Raises:
        UserError: there is no such file, it is not JSON, or a key the report needs is missing or of the wrong type.
    """
    path = run_dir / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{run_dir}: no run.json; give a folder written by 'fusebench run'") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # covers text that is not UTF-8
        raise UserError(f"{path}: not valid JSON ({error})") from error
    _check_keys(run, RUN_KEYS, f"{path}")
    for key, kind in ITEM_TYPES.items():
        for item in run[key]:
            if not isinstance(item, kind):
                raise UserError(f"{path}: {key}: {item!r} is {type(item).__name__}, not {kind.__name__}")
    _check_keys(run["data"], DATA_KEYS, f"{path}: data")
    for place, count in enumerate(run["data"]["counts"]):
        _check_keys(count, COUNT_KEYS, f"{path}: data.counts[{place}]")
        if count["label"] not in LABEL_NAMES:
            raise UserError(f"{path}: data.counts[{place}]: label {count['label']} is not 0 (benign) or 1 (malignant)")
    return run


def read_rows(run_dir: Path) -> pd.DataFrame:
    """Return the rows of every cell, columns ``ROW_COLUMNS``: text as ``str``, numbers as numbers, empty ones NaN.

    A run without a finished cell gives an empty frame.

    Raises:
        UserError: a ``rows.csv`` cannot be read, its columns are not ``ROW_COLUMNS``, a number is text, or a status
            is neither done nor failed.
    """
    cells = run_dir / "cells"
    paths = sorted(path.relative_to(cells) for path in cells.glob("*/*/**/rows.csv"))
    # a folder whose name begins with a dot is a cell that was being written when its run was interrupted
    finished = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    frames = [_read_cell(cells / path, path) for path in finished]
    empty = _numbers_parsed(pd.DataFrame(columns=list(ROW_COLUMNS), dtype=str), run_dir)
    return pd.concat(frames, ignore_index=True) if frames else empty


def _read_cell(path: Path, place: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable text are ValueErrors
        raise UserError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())})") from error
    if tuple(rows.columns) != ROW_COLUMNS:
        raise UserError(f"{path}: {_difference(list(rows.columns))}; the columns are {', '.join(ROW_COLUMNS)}")
    for status in rows.loc[~rows["status"].isin(STATUSES), "status"]:
        raise UserError(f"{path}: status {status!r} is not one of {', '.join(STATUSES)}")
    protocol, seed, *cell = place.parts[:-1]
    for column, expected in (("protocol", protocol), ("seed", seed), ("cell", "/".join(cell))):
        for found in rows.loc[rows[column] != expected, column]:
            raise UserError(f"{path}: {column} {found!r} does not belong here; its folder says {expected!r}")
    for metric in rows.loc[rows.duplicated("metric"), "metric"]:
        raise UserError(f"{path}: metric {metric!r} occurs twice")
    return _numbers_parsed(rows, path)


def _numbers_parsed(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    parsed = rows.copy()
    for column in NUMERIC_COLUMNS:
        numbers = pd.to_numeric(rows[column], errors="coerce").astype(float)
        may_be_empty = () if column in REQUIRED_COLUMNS else ("", "nan")
        for text in rows.loc[numbers.isna() & ~rows[column].isin(may_be_empty), column]:
            raise UserError(f"{path}: {column} {text!r} is not a number")
        parsed[column] = numbers.astype(int) if column in REQUIRED_COLUMNS else numbers
    return parsed


def _difference(columns: list[str]) -> str:
    missing = [name for name in ROW_COLUMNS if name not in columns]
    unexpected = [name for name in columns if name not in ROW_COLUMNS]
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
