"""Result rows, the one schema every number is kept in, and the folder of a finished cell."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.metrics import ALL, COUNTS, SCORES, Measured
from fusion.checksums import SUMS, require_intact
from fusion.errors import UserError
from fusion.files import content_hash, read_json, replacing_folder, write_json

ROW_COLUMNS = (
    "cell",  # model1/resnet50+svm, model2/resnet50+sgdm, model3/cnn17+e25+b64, ablation/cnn17+ultrasound
    "protocol",  # paper or clean
    "seed",
    "status",  # done or failed
    "subset",  # of the test rows: all, modality=ultrasound, source=busi, ...; empty when the cell failed
    "metric",  # sensitivity, specificity, ppv, npv, accuracy, kappa, auc, brier, ece, tp, fp, tn, fn, ...
    "value",  # a number; empty when the metric is undefined or the cell failed
    "unit",
    "low",  # 95 % interval over groups, where one is defined
    "high",
    "n",  # what the value was computed over
    "reason",  # why a cell failed; else empty
    "weights",  # imagenet, random, or the name of a folder
    "synthetic_sources",  # phantom sources in the data, joined by a space; else empty
    "data_hash",
    "config_hash",
    "environment_hash",
)
PREDICTION_COLUMNS = ("image_id", "copy", "source", "modality", "group_id", "label", "probability", "decision")
"""Of ``predictions.parquet``, a line for each test row; label and decision are 1 for malignant."""
HISTORY_COLUMNS = (
    *("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    "learning_rate",
)
"""Of ``history.csv``, a line for each epoch; losses are mean cross-entropies in nats."""
RUN = "run.json"
"""In the folder of a run: what was run."""
TABLES, FIGURES, PAGE = "tables", "figures", "index.html"
OF_REPORT = (TABLES, FIGURES, PAGE, SUMS)
"""What a report writes there, perhaps while the run goes on; each renewal of ``SHA256SUMS`` has a lock of its own."""
ROWS, DEFINITION, PREDICTIONS, HISTORY = "rows.csv", "cell.json", "predictions.parquet", "history.csv"
WEIGHTS = "model.safetensors"
FILES = (ROWS, DEFINITION, PREDICTIONS, HISTORY, WEIGHTS)
"""A finished cell has them all; the weights, which may be large, are checked when they are read."""
METRICS = {
    *SCORES,
    *COUNTS,
    *("epochs", "wall_s", "setup_s", "peak_memory_mib"),
}
"""A finished cell has a row for each, of all test rows."""


@dataclass(frozen=True, kw_only=True)
class CellKey:
    """What a cell's rows have in common: which cell, under what, on what."""

    cell: str
    protocol: str
    seed: int
    weights: str
    synthetic_sources: str
    data_hash: str
    config_hash: str
    environment_hash: str

    def folder(self, out: Path) -> Path:
        """Return the folder of the cell in the run's folder ``out``."""
        return cell_folder(out, self.protocol, self.seed, self.cell)


def cell_folder(out: Path, protocol: str, seed: int, cell: str) -> Path:
    """Return the folder of a cell in the run's folder ``out``."""
    return out / "cells" / protocol / str(seed) / cell


def done_rows(key: CellKey, measured: Sequence[Measured]) -> pd.DataFrame:
    """Return the rows of a finished cell."""
    common = {**vars(key), "status": "done", "reason": ""}
    rows = [{**common, **vars(one)} for one in measured]
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def failed_rows(key: CellKey, reason: str) -> pd.DataFrame:
    """Return the one row of a cell that failed."""
    nothing = {"subset": "", "metric": "", "value": math.nan, "unit": "", "low": math.nan, "high": math.nan, "n": 0}
    row = {**vars(key), **nothing, "status": "failed", "reason": reason}
    return pd.DataFrame([row], columns=list(ROW_COLUMNS))


def is_done(key: CellKey, definition: dict[str, Any], out: Path) -> bool:
    """Return whether the cell is finished in ``out``; one that failed or lacks a file is not, and is run again.

    Raises:
        UserError: the folder holds the same cell made with another definition, or a damaged one.
    """
    folder = key.folder(out)
    if not (folder / ROWS).exists():
        return False
    require_cell(folder, *(name for name in FILES if name != WEIGHTS and (folder / name).is_file()))
    try:
        rows = pd.read_csv(folder / ROWS, keep_default_na=False)
        hashes, statuses = set(rows["config_hash"]), set(rows["status"])
        metrics = set(rows["metric"][rows["subset"] == ALL]) if "subset" in rows else set()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / ROWS} is damaged ({error}); delete the folder {folder} to run the cell again"
        ) from None
    whole = all((folder / name).is_file() for name in FILES) and metrics == METRICS
    if statuses != {"done"} or (hashes == {key.config_hash} and not whole):
        return False
    if hashes == {key.config_hash}:
        return True
    earlier = read_json(folder / DEFINITION, "a cell's folder")
    raise UserError(
        f"{folder} was made with other settings ({difference(earlier, definition)}); choose another --out or delete it"
    )


def write_cell(
    folder: Path, definition: dict[str, Any], rows: pd.DataFrame, write_files: Callable[[Path], None]
) -> None:
    """Put a cell's folder in place as a whole: written under another name, synced to disk, then renamed.

    Args:
        folder: where the cell belongs; what a failed attempt left there is replaced.
        definition: all that defines the cell, kept as ``cell.json``.
        rows: its result rows, kept as ``rows.csv``.
        write_files: writes the other files into the folder it is given.

    Raises:
        UserError: the files can't be written.
    """
    with replacing_folder(folder) as partial:
        write_files(partial)
        write_json(partial / DEFINITION, definition)
        rows.to_csv(partial / ROWS, index=False)


def require_cell(folder: Path, *names: str) -> None:
    """Refuse files of a cell that are not what was written.

    Raises:
        UserError: one is missing, changed or not recorded.
    """
    require_intact(*(folder / name for name in names), way_out=f"delete the folder {folder} to run the cell again")


def has_backbone(out: Path) -> bool:
    """Return whether a cell that starts from a backbone's weights is finished in ``out``."""
    return any((out / "cells").glob("*/*/model[12]/[!.]*/model.safetensors"))


def has_cells(out: Path) -> bool:
    """Return whether a cell with its checksums lies in the run's folder ``out``."""
    return any((out / "cells").glob(f"*/*/**/{SUMS}"))


def definition_hash(definition: dict[str, Any]) -> str:
    """Return the hash of all that defines a cell."""
    return content_hash(definition)


def difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the first values in which two definitions differ."""
    before, after = (_flat(json.loads(json.dumps(one))) for one in (earlier, now))  # tuples are lists in a file
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)!r}, now {after.get(key)!r}" for key in changed[:2]) or "format"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
