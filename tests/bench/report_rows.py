"""A run of the paper's cells with scores made by hand, and what the tables of it show."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from bench.paper import paper_metrics
from bench.report import Table, build_tables, read_results
from bench.report.formats import terminal_table
from bench.report.layout import METRICS
from bench.store import HISTORY_COLUMNS, PREDICTION_COLUMNS, ROW_COLUMNS
from fusion.checksums import record

PAPER = {(row["cell"], row["metric"]): row["value"] for row in paper_metrics().to_dict("records")}
PAPER_CELLS = list(dict.fromkeys(cell for cell, _ in PAPER))
DATA_HASH = "0123456789abcdef"


def counts() -> list[dict[str, object]]:
    numbers = {
        ("rsna", "mammography"): ((1200, 1200), (1158, 1158)),
        ("busi", "ultrasound"): ((437, 1311), (210, 840)),
        ("oasbud", "ultrasound"): ((96, 288), (104, 416)),
    }
    return [
        {"source": source, "modality": modality, "label": label, "images": images, "copies": copies}
        for (source, modality), pairs in numbers.items()
        for label, (images, copies) in enumerate(pairs)
    ]


def run_json(**changes: object) -> dict[str, object]:
    data = {"data_hash": DATA_HASH, "image_size": 300, "synthetic_sources": [], "counts": counts()}
    run: dict[str, object] = {
        "matrix": {"name": "paper"},
        "cells": PAPER_CELLS,
        "protocols": ["paper"],
        "seeds": [0],
        "weights": "imagenet",
        "data": data | changes.pop("data", {}),  # type: ignore[operator]
    }
    return run | changes


def write_run(run_dir: Path, **changes: object) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run.json").write_text(json.dumps(run_json(**changes)), encoding="utf-8")
    record(run_dir / "run.json")
    return run_dir


def predictions(lines: int = 20) -> pd.DataFrame:
    """Return predictions that are right but for one in five, every second row malignant."""
    draw = np.random.default_rng(0)
    label = np.arange(lines) % 2
    probability = np.where(np.arange(lines) % 5 == 0, 1 - label, label) * 0.6 + 0.2 + draw.uniform(-0.1, 0.1, lines)
    names = [f"rsna/{number}" for number in range(lines)]
    columns = {"image_id": names, "copy": 0, "source": "rsna", "modality": "mammography", "group_id": names}
    decision = (probability >= 0.5).astype(int)
    frame = pd.DataFrame({**columns, "label": label, "probability": probability, "decision": decision})
    return frame[list(PREDICTION_COLUMNS)]


def write_cell(run_dir: Path, cell: str, rows: list[dict[str, object]], protocol: str = "paper", seed: int = 0) -> Path:
    """Write the rows of a cell, and predictions that do not belong to them, as few tables look at both."""
    common = {"cell": cell, "protocol": protocol, "seed": seed, "status": "done", "subset": "all", "unit": "1"}
    common |= {"n": 100}
    common |= {"weights": "imagenet", "data_hash": DATA_HASH}
    path = run_dir / "cells" / protocol / str(seed) / cell / "rows.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([common | row for row in rows], columns=list(ROW_COLUMNS)).to_csv(path, index=False)
    predictions().to_parquet(path.with_name("predictions.parquet"), index=False)
    pd.DataFrame(columns=list(HISTORY_COLUMNS)).to_csv(path.with_name("history.csv"), index=False)
    record(*(path.with_name(name) for name in ("rows.csv", "predictions.parquet", "history.csv")))
    return path


def scores(value: float, **changes: float) -> list[dict[str, object]]:
    values = dict.fromkeys(METRICS, value) | changes
    rows: list[dict[str, object]] = [{"metric": metric, "value": number} for metric, number in values.items()]
    rows[list(values).index("accuracy")] |= {"low": value - 0.05, "high": value + 0.05}
    return [*rows, {"metric": "wall_s", "value": 12.5, "unit": "s"}]


def failed(reason: str) -> list[dict[str, object]]:
    return [{"status": "failed", "subset": "", "metric": "", "n": 0, "reason": reason}]


def tables_of(run_dir: Path) -> dict[str, Table]:
    return build_tables(read_results(run_dir))


def row_of(table: Table, cell: str) -> pd.Series:
    return table.frame.set_index("cell").loc[cell]  # type: ignore[return-value]


def shown_in(table: Table, cell: str) -> pd.Series:
    return table.display.iloc[list(table.frame["cell"]).index(cell)]


def printed(table: Table, width: int) -> str:
    text = io.StringIO()
    Console(width=width, file=text, color_system=None).print(terminal_table(table))
    return text.getvalue()
