"""The leaderboard: every cell of Models 1 to 3 and every baseline, placed by tests, its cost beside its accuracy."""

import math
from typing import Any

import pandas as pd

from bench.report.comparisons import MODALITY, TESTS, Tested
from bench.report.layout import METRICS, NONE, Table, difference, number
from bench.report.measured import Case, Measured, Place, missing_notes, places_on, three_digits
from bench.report.notes import status_notes
from bench.report.subsets import interval_columns, interval_text
from bench.report.summary import OUTCOME_COLUMNS, Printed, Summary, protocol_column, union

OTHERS = tuple(metric for metric in METRICS if metric != "accuracy")
DECIMALS = METRICS["accuracy"].decimals
VERSUS = "vs. modality"
BATCH = 1
"""Of the latency that stands beside the accuracy."""
COSTS = ("latency_p50_ms", "latency_engine", "latency_precision", "parameter_mib", "layers")
COLUMNS = (
    *("protocol", "rank", "cell", "accuracy_paper", "accuracy_ours", "accuracy_difference"),
    *("accuracy_low", "accuracy_high", "accuracy_sd", "versus_modality"),
    *(f"{metric}{part}" for metric in OTHERS for part in ("", "_low", "_high")),
    "n",
    *COSTS,
    *OUTCOME_COLUMNS,
)


def ordered(summaries: list[Summary]) -> list[Summary]:
    """Return ``summaries`` within each protocol by accuracy, then AUC, then name; those without accuracy at the end."""
    protocols = union([], (summary.protocol for summary in summaries))
    return sorted(summaries, key=lambda summary: (protocols.index(summary.protocol), *_place(summary)))


def is_ranked(summary: Summary) -> bool:
    """Return whether a cell has an accuracy to be ranked by."""
    return isinstance(summary.ours("accuracy"), float)


def leaderboard(
    chosen: list[Summary], tested: Tested, printed: Printed, measured: Measured, notes: tuple[str, ...]
) -> Table:
    """Return the cells ``chosen``, which are ``ordered``, with the places they share within each protocol.

    Latency, size and layers are those of one machine: the one on which most models were measured.
    """
    places: dict[tuple[str, str], int] = {}
    for protocol in union([], (summary.protocol for summary in chosen)):
        cells = [summary.cell for summary in chosen if summary.protocol == protocol and is_ranked(summary)]
        of_cells = zip(cells, tested.places(protocol, cells), strict=True)
        places |= {(protocol, cell): place for cell, place in of_cells}
    fastest = {machine: measured.fastest(machine, BATCH) for machine in measured.machines}
    machine = max(fastest, key=lambda name: (len(fastest[name]), places_on(measured, name)), default="")
    frame, display = [], []
    for summary in chosen:
        rank = places.get((summary.protocol, summary.cell), math.nan)
        versus = tested.versus_modality(summary.protocol, summary.cell) if is_ranked(summary) else NONE
        best = fastest.get(machine, {}).get((summary.protocol, summary.cell))
        model = measured.model(Place(machine, summary.protocol, summary.cell))
        frame.append(_numbers(summary, rank, versus, printed) | _costs(best, model))
        paper = printed.get((summary.cell, "accuracy"), math.nan)
        display.append(_texts(summary, rank, versus, paper, best, model))
    scores = [METRICS[metric].heading for metric in ("accuracy", *OTHERS)]
    headings = [*scores[:1], VERSUS, *scores[1:], "Paper", "Diff.", "n", "p50, ms", "MiB", "Layers"]
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
            "place: the first cell of a place is tested to be better than the first of the next, and is not told apart "
            "from the others of its place; within a place the order says nothing",
            TESTS,
            f"{VERSUS}: accuracy against {MODALITY}, a model that is told the modality of an image and nothing else",
            "interval: bootstrap over groups (BCa), the AUC's by DeLong's method; of several seeds, that of their "
            "mean, with the spread between them; n: test rows of one seed",
            *([costs] if machine else []),
            *missing_notes(measured),
            *status_notes(chosen),
        ),
        frame=pd.DataFrame(frame, columns=list(COLUMNS)),
        display=pd.DataFrame(display, columns=["Protocol", "Rank", "Model", *headings, "Status"]),
        numbers=("Rank", *(heading for heading in headings if heading != VERSUS)),
        # 80 characters have room for the protocol or the AUC
        brief=(*two_protocols, "Rank", "Model", "Acc.", *(() if two_protocols else ("AUC",)), "Paper", "p50, ms"),
        block="Protocol",
    )


def _place(summary: Summary) -> tuple[float, float, str]:
    accuracy, auc = (
        -value if isinstance(value := summary.ours(metric), float) else math.inf for metric in ("accuracy", "auc")
    )
    return accuracy, auc, summary.cell


def _numbers(summary: Summary, rank: float, versus: str, printed: Printed) -> dict[str, object]:
    return {
        "protocol": summary.protocol,
        "rank": rank,
        "cell": summary.cell,
        **summary.comparison("accuracy", printed),
        **interval_columns(summary, tuple(METRICS)),
        "accuracy_sd": summary.deviation,
        "versus_modality": versus,
        "n": summary.n,
        **summary.outcome(),
    }


def _costs(best: Case | None, model: Case) -> dict[str, Any]:
    latency = (best.get("latency_p50_ms"), best.engine, best.precision) if best else (math.nan, "", "")
    return dict(zip(COSTS, (*latency, model.get("parameter_mib"), model.get("layers")), strict=True))


def _texts(summary: Summary, rank: float, versus: str, paper: float, best: Case | None, model: Case) -> list[str]:
    accuracy = summary.ours("accuracy")
    return [
        summary.protocol,
        number(rank, 0),
        summary.cell,
        interval_text(summary, "accuracy"),
        versus,
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
