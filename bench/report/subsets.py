"""Accuracy and AUC of every cell on each modality and on each source alone."""

import math
from typing import Any

import pandas as pd

from bench.metrics import ALL
from bench.report.layout import METRICS, Table, number
from bench.report.summary import OUTCOME_COLUMNS, Summary, summarise, union
from fusion.text import one_line

SHOWN = ("accuracy", "auc")
WORDS = 40
"""Characters of a subset's name that are shown."""


def subsets_table(run: dict[str, Any], rows: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    """Return a row for every finished cell, protocol and subset of its test rows, in the order of the run."""
    names = union([], rows.loc[(rows["status"] == "done") & (rows["subset"] != ALL), "subset"])
    by_subset = {name: {(s.protocol, s.cell): s for s in summarise(run, rows, name)} for name in names}
    frame: list[dict[str, Any]] = []
    display = []
    for place in ((s.protocol, s.cell) for s in summarise(run, rows)):
        for name in names:
            summary = by_subset[name][place]
            if summary.seeds:
                frame.append(_numbers(summary, name))
                shown = [interval_text(summary, metric) for metric in SHOWN]
                display.append([*place, one_line(name, WORDS), *shown, number(summary.n, 0)])
    scores = [f"{metric}{part}" for metric in METRICS for part in ("", "_low", "_high")]
    headings = [METRICS[metric].heading for metric in SHOWN]
    return Table(
        name="subsets",
        title="Every cell on one modality and on one source of its test rows (95 % intervals).",
        notes=(*notes, "trained on all training rows; undefined where the rows are of one class"),
        frame=pd.DataFrame(frame, columns=["protocol", "cell", "subset", *scores, "n", *OUTCOME_COLUMNS]),
        display=pd.DataFrame(display, columns=["Protocol", "Model", "Subset", *headings, "n"]),
        numbers=(*headings, "n"),
        brief=("Model", "Subset", *headings),
        block="Model",
    )


def interval_text(summary: Summary, metric: str) -> str:
    """Return e.g. ``0.701 (0.650–0.748)``, or the word in its place."""
    value, decimals = summary.ours(metric), METRICS[metric].decimals
    if isinstance(value, str):
        return value
    low, high = summary.intervals.get(metric, (math.nan, math.nan))
    ends = "" if math.isnan(low + high) else f" ({number(low, decimals)}–{number(high, decimals)})"
    return number(value, decimals) + ends


def interval_columns(summary: Summary, metrics: tuple[str, ...]) -> dict[str, float]:
    """Return ``<metric>``, ``<metric>_low`` and ``<metric>_high`` of each of ``metrics``; NaN where there is none."""
    columns: dict[str, float] = {}
    for metric in metrics:
        low, high = summary.intervals.get(metric, (math.nan, math.nan))
        columns |= {metric: summary.values.get(metric, math.nan), f"{metric}_low": low, f"{metric}_high": high}
    return columns


def _numbers(summary: Summary, subset: str) -> dict[str, object]:
    where = {"protocol": summary.protocol, "cell": summary.cell, "subset": subset}
    return where | interval_columns(summary, tuple(METRICS)) | {"n": summary.n} | summary.outcome()
