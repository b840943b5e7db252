"""Result rows brought together: one summary per cell and protocol, over the seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bench.intervals import Z
from bench.metrics import ALL
from bench.report.layout import METRICS, NONE
from fusion.text import one_line

Printed = dict[tuple[str, str], float]
"""Cell and metric -> the value the paper prints."""

OUTCOME_COLUMNS = ("seeds", "status", "reason")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One cell under one protocol."""

    protocol: str
    cell: str
    status: str
    """done; partial (some planned seeds are missing or failed); failed; not run."""
    seeds: int = 0
    """Number of seeds the values are means of."""
    reason: str = ""
    """Why the cell failed or is partial, on one line; else empty."""
    values: dict[str, float] = field(default_factory=dict)
    """Metric -> mean over the seeds; NaN if undefined in any of them; absent if never measured."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> ends of the 95 % interval of its mean (``mean_interval``); NaN where there is none."""
    deviation: float = math.nan
    """Standard deviation of accuracy over the seeds; NaN for a single seed."""
    n: float = math.nan
    """Test rows per seed, averaged over the seeds."""

    def ours(self, metric: str) -> float | str:
        """Return the value of ``metric``, or the word printed in its place: failed, not run, undefined or a dash."""
        if self.status in ("failed", "not run"):
            return self.status
        value = self.values.get(metric)
        if value is None:
            return NONE
        return "undefined" if math.isnan(value) else value

    def outcome(self) -> dict[str, object]:
        """Return the last columns of a table: ``seeds``, ``status`` and ``reason``."""
        return dict(zip(OUTCOME_COLUMNS, (self.seeds, self.status, self.reason), strict=True))

    def comparison(self, metric: str, printed: Printed) -> dict[str, float]:
        """Return the columns of ``metric``: the paper's value, ours, and ours - paper; NaN where there is none."""
        ours, paper = self.values.get(metric, math.nan), printed.get((self.cell, metric), math.nan)
        return {f"{metric}_paper": paper, f"{metric}_ours": ours, f"{metric}_difference": ours - paper}


def summarise(run: dict[str, Any], rows: pd.DataFrame, subset: str = ALL) -> list[Summary]:
    """Return one summary per protocol and cell: all that were planned, then all that have rows besides.

    Args:
        run: from ``read_run``.
        rows: from ``read_rows``.
        subset: of the test rows, e.g. ``all``, ``modality=ultrasound``.
    """
    rows = rows[(rows["subset"] == subset) | (rows["status"] != "done")]
    seeds = union(run["seeds"], rows["seed"])
    groups = dict(list(rows.groupby(["protocol", "cell"], sort=False)))
    return [
        _summary(protocol, cell, seeds, groups.get((protocol, cell), rows.iloc[:0]))
        for protocol in union(run["protocols"], rows["protocol"])
        for cell in union(run["cells"], rows["cell"])
    ]


def mean_interval(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, least: float = 0.0, most: float = 1.0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean over seeds [S], from each seed's value and interval.

    To each side, two variances are added: that of the test rows, the mean over the seeds as these share their rows at
    least in part, and that of the mean over the seeds, with Student's t for as many degrees of freedom as Welch and
    Satterthwaite (Biometrics Bulletin 1946) give the sum. One seed keeps its interval, which says nothing of others.
    Clipped to what the metric can be, ``least`` to ``most``.
    """
    seeds, mean = len(value), float(np.mean(value))
    if seeds == 1:
        return float(low[0]), float(high[0])
    between = np.var(value, ddof=1) / seeds
    halves = []
    for end in (low, high):
        within = np.mean((end - value) ** 2) / Z**2
        freedom = (within + between) ** 2 / (between**2 / (seeds - 1)) if between > 0 else math.inf
        halves.append(float(student.ppf(0.975, freedom) * np.sqrt(within + between)))
    low_end, high_end = np.clip([mean - halves[0], mean + halves[1]], least, most)  # NaN stays
    return float(low_end), float(high_end)


def union(planned: Iterable[Any], found: Iterable[Any]) -> list[Any]:
    """Return ``planned`` and what was ``found`` besides, each once, in this order."""
    return list(dict.fromkeys([*planned, *found]))


def of_models(summaries: list[Summary], *models: str) -> list[Summary]:
    """Return the summaries of the cells of ``models``, e.g. ``model1``, in their order."""
    return [summary for summary in summaries if summary.cell.partition("/")[0] in models]


def protocol_column(summaries: list[Summary]) -> tuple[str, ...]:
    """Return the heading of the protocol column where it tells rows apart, else nothing."""
    return ("Protocol",) if len({summary.protocol for summary in summaries}) > 1 else ()


def _summary(protocol: str, cell: str, planned_seeds: list[int], rows: pd.DataFrame) -> Summary:
    scores = rows[(rows["status"] == "done") & rows["metric"].isin(list(METRICS))]
    done = set(scores["seed"])
    if not done:
        status = "failed" if len(rows) else "not run"
        return Summary(protocol=protocol, cell=cell, status=status, reason=_reason(rows))
    missing = [seed for seed in planned_seeds if seed not in done]
    accuracy = scores[scores["metric"] == "accuracy"]
    return Summary(
        protocol=protocol,
        cell=cell,
        status="partial" if missing else "done",
        seeds=len(done),
        reason="; ".join(_missing_seed(seed, rows) for seed in missing),
        values={str(metric): float(values.mean(skipna=False)) for metric, values in scores.groupby("metric")["value"]},
        intervals={str(metric): _interval(str(metric), of_metric) for metric, of_metric in scores.groupby("metric")},
        deviation=float(accuracy["value"].std(ddof=1)),
        n=float(accuracy["n"].mean()),
    )


def _interval(metric: str, rows: pd.DataFrame) -> tuple[float, float]:
    value, low, high = (rows[column].to_numpy() for column in ("value", "low", "high"))
    return mean_interval(value, low, high, least=-1.0 if metric == "kappa" else 0.0)


def _missing_seed(seed: int, rows: pd.DataFrame) -> str:
    of_seed = rows[rows["seed"] == seed]
    return f"seed {seed} failed: {_reason(of_seed)}" if len(of_seed) else f"seed {seed} not run"


def _reason(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    reasons = union([], (one_line(text) for text in rows.loc[rows["status"] == "failed", "reason"]))
    return "; ".join(reason for reason in reasons if reason) or "no reason recorded"
