"""The leaderboard: every cell of Models 1 to 3 under one order, its cost beside its accuracy."""

import math
from typing import Any

import pandas as pd

from bench.report.layout import METRICS, NONE, Table, difference, number
from bench.report.measured import Case, Measured, Place, missing_notes, places_on, three_digits
from bench.report.notes import status_notes
from bench.report.summary import OUTCOME_COLUMNS, Printed, Summary, protocol_column, union

OTHERS = tuple(metric for metric in METRICS if metric != "accuracy")
DECIMALS = METRICS["accuracy"].decimals
BATCH = 1
"""Of the latency that stands beside the accuracy."""
COSTS = ("latency_p50_ms", "latency_engine", "latency_precision", "parameter_mib", "layers")
COLUMNS = (
    *("protocol", "rank", "cell", "accuracy_paper", "accuracy_ours", "accuracy_difference"),
    *("accuracy_low", "accuracy_high", "accuracy_sd"),
    *OTHERS,
    "n",
    *COSTS,
    *OUTCOME_COLUMNS,
)


def leaderboard(summaries: list[Summary], printed: Printed, measured: Measured, notes: tuple[str, ...]) -> Table:
    """Return ``summaries`` ranked within each protocol by accuracy, then AUC, then name; the rest unranked below.

    Latency, size and layers are those of one machine: the one on which most models were measured.
    """
    protocols = union([], (summary.protocol for summary in summaries))
    chosen = sorted(summaries, key=lambda summary: (protocols.index(summary.protocol), *_place(summary)))
    fastest = {machine: measured.fastest(machine, BATCH) for machine in measured.machines}
    machine = max(fastest, key=lambda name: (len(fastest[name]), places_on(measured, name)), default="")
    ranks = dict.fromkeys(protocols, 0)
    frame, display = [], []
    for summary in chosen:
        is_ranked = isinstance(summary.ours("accuracy"), float)
        ranks[summary.protocol] += is_ranked
        rank = ranks[summary.protocol] if is_ranked else math.nan
        best = fastest.get(machine, {}).get((summary.protocol, summary.cell))
        model = measured.model(Place(machine, summary.protocol, summary.cell))
        frame.append(_numbers(summary, rank, printed) | _costs(best, model))
        display.append(_texts(summary, rank, printed.get((summary.cell, "accuracy"), math.nan), best, model))
    scores = [METRICS[metric].heading for metric in ("accuracy", *OTHERS)]
    headings = [*scores, "Paper", "Diff.", "n", "p50, ms", "MiB", "Layers"]
    two_protocols = protocol_column(chosen)
    costs = (
        f"p50, ms: one image on {machine}, by the fastest engine at parity there, int8 left out; "
        "MiB: size of the parameters"
    )
    return Table(
        name="leaderboard",
        title="Leaderboard by accuracy (95 % interval). Paper: its accuracy. Diff.: ours − paper.",
        notes=(
            *notes,
            "interval and n are those of one seed's test rows, averaged over the seeds; the interval takes the rows as "
            "independent, which copies and images of one patient are not, and leaves out the spread between seeds",
            *([costs] if machine else []),
            *missing_notes(measured),
            *status_notes(chosen),
        ),
        frame=pd.DataFrame(frame, columns=list(COLUMNS)),
        display=pd.DataFrame(display, columns=["Protocol", "Rank", "Model", *headings, "Status"]),
        numbers=("Rank", *headings),
        # 80 characters have room for the protocol or the AUC
        brief=(*two_protocols, "Rank", "Model", "Acc.", *(() if two_protocols else ("AUC",)), "Paper", "p50, ms"),
        block="Protocol",
    )


def _place(summary: Summary) -> tuple[float, float, str]:
    accuracy, auc = (
        -value if isinstance(value := summary.ours(metric), float) else math.inf for metric in ("accuracy", "auc")
    )
    return accuracy, auc, summary.cell


def _numbers(summary: Summary, rank: float, printed: Printed) -> dict[str, object]:
    return {
        "protocol": summary.protocol,
        "rank": rank,
        "cell": summary.cell,
        **summary.comparison("accuracy", printed),
        "accuracy_low": summary.low,
        "accuracy_high": summary.high,
        "accuracy_sd": summary.deviation,
        **{metric: summary.values.get(metric, math.nan) for metric in OTHERS},
        "n": summary.n,
        **summary.outcome(),
    }


def _costs(best: Case | None, model: Case) -> dict[str, Any]:
    latency = (best.get("latency_p50_ms"), best.engine, best.precision) if best else (math.nan, "", "")
    return dict(zip(COSTS, (*latency, model.get("parameter_mib"), model.get("layers")), strict=True))


def _texts(summary: Summary, rank: float, paper: float, best: Case | None, model: Case) -> list[str]:
    accuracy = summary.ours("accuracy")
    interval = f" ({number(summary.low, DECIMALS)}–{number(summary.high, DECIMALS)})"
    return [
        summary.protocol,
        number(rank, 0),
        summary.cell,
        (accuracy if isinstance(accuracy, str) else number(accuracy, DECIMALS))
        + ("" if math.isnan(summary.low + summary.high) else interval),
        *(_shown(summary.ours(metric), METRICS[metric].decimals) for metric in OTHERS),
        number(paper, DECIMALS),
        NONE if isinstance(accuracy, str) or math.isnan(paper) else difference(accuracy, paper, DECIMALS),
        number(summary.n, 0),
        three_digits(best.get("latency_p50_ms")) if best else NONE,
        number(model.get("parameter_mib"), 1),
        number(model.get("layers"), 0),
        summary.status,
    ]


def _shown(value: float | str, decimals: int) -> str:
    if isinstance(value, float):
        return number(value, decimals)
    return value if value == "undefined" else NONE
