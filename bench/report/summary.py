"""Result rows brought together: one summary per cell and protocol, over the seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.report.layout import METRICS, NONE, one_line

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
    low: float = math.nan
    """Lower end of accuracy's 95 % interval on one seed's test rows, averaged over the seeds."""
    high: float = math.nan
    """Upper end of the same interval."""
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


def summarise(run: dict[str, Any], rows: pd.DataFrame) -> list[Summary]:
    """Return one summary per protocol and cell: all that were planned, then all that have rows besides."""
    seeds = union(run["seeds"], rows["seed"])
    groups = dict(list(rows.groupby(["protocol", "cell"], sort=False)))
    return [
        _summary(protocol, cell, seeds, groups.get((protocol, cell), rows.iloc[:0]))
        for protocol in union(run["protocols"], rows["protocol"])
        for cell in union(run["cells"], rows["cell"])
    ]


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
        low=float(accuracy["low"].mean(skipna=False)),
        high=float(accuracy["high"].mean(skipna=False)),
        deviation=float(accuracy["value"].std(ddof=1)),
        n=float(accuracy["n"].mean()),
    )


def _missing_seed(seed: int, rows: pd.DataFrame) -> str:
    of_seed = rows[rows["seed"] == seed]
    return f"seed {seed} failed: {_reason(of_seed)}" if len(of_seed) else f"seed {seed} not run"


def _reason(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    reasons = union([], (one_line(text) for text in rows.loc[rows["status"] == "failed", "reason"]))
    return "; ".join(reason for reason in reasons if reason) or "no reason recorded"
