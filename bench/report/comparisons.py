"""Which cells a test tells apart: the places of the leaderboard, and the table of comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from bench.comparisons import ALPHA, BETTER, WORSE, Comparison, compare_cells
from bench.intervals import Estimate
from bench.report.layout import METRICS, NONE, Table, number
from bench.report.read_cells import CellId
from bench.report.summary import Summary, protocol_column

MODALITY = "baseline/modality"
"""The model that is told the modality of an image and nothing else."""
NO_MODALITY = "not run"
COLUMNS = (
    *("protocol", "cell", "against", "seeds", "n", "groups"),
    *("accuracy_difference", "accuracy_difference_low", "accuracy_difference_high", "accuracy_p", "accuracy_p_holm"),
    *("auc_difference", "auc_difference_low", "auc_difference_high", "auc_p"),
    *("verdict", "reason"),
)
TESTS = (
    "accuracies are compared by exact sign-flip tests over groups (McNemar's test where every group has one row), of "
    "the models as they were trained, several seeds pooled; p with Holm's correction over all pairs of cells ranked "
    f"under a protocol; told apart: p < {ALPHA}"
)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Every pair of ranked cells, under each protocol."""

    pairs: Mapping[tuple[str, str, str], Comparison]
    """Protocol, first, second -> their comparison, either way round."""

    def verdict(self, protocol: str, cell: str, against: str) -> str:
        """Return one of ``better``, ``worse``, ``not separated`` and ``not tested``."""
        return self.pairs[protocol, cell, against].verdict

    def versus_modality(self, protocol: str, cell: str) -> str:
        """Return what a test says of ``cell`` against ``MODALITY``, e.g. ``better (p = 0.012)``."""
        if cell == MODALITY:
            return NONE
        if (protocol, cell, MODALITY) not in self.pairs:
            return NO_MODALITY
        pair = self.pairs[protocol, cell, MODALITY]
        return f"{pair.verdict} (p {p_text(pair.accuracy_p_holm)})" if pair.verdict in (BETTER, WORSE) else pair.verdict

    def places(self, protocol: str, cells: Sequence[str]) -> list[int]:
        """Return the shared place of each of ``cells``, which are in order of accuracy: 1, 1, 3.

        The first cell leads a place. All that follow share it, until one that the leader is tested to be better than:
        it leads the next.
        """
        places: list[int] = []
        leader = ""
        for position, cell in enumerate(cells, 1):
            if not leader or self.verdict(protocol, leader, cell) == BETTER:
                leader = cell
                places.append(position)
            else:
                places.append(places[-1])
        return places


def compare_ranked(ranked: Sequence[Summary], predictions: Mapping[CellId, pd.DataFrame]) -> Tested:
    """Return the tests between all ``ranked`` cells of the same protocol.

    Args:
        ranked: in the order of the leaderboard.
        predictions: from ``read_predictions``.
    """
    pairs: dict[tuple[str, str, str], Comparison] = {}
    for protocol in dict.fromkeys(summary.protocol for summary in ranked):
        cells = [summary.cell for summary in ranked if summary.protocol == protocol]
        chosen: dict[int, dict[str, pd.DataFrame]] = {}
        for (of, seed, cell), frame in predictions.items():
            if of == protocol and cell in cells:
                chosen.setdefault(seed, {})[cell] = frame
        for one in compare_cells(chosen, cells):
            pairs[protocol, one.first, one.second] = one
            pairs[protocol, one.second, one.first] = one.reverse()
    return Tested(pairs=pairs)


def comparisons_table(ranked: Sequence[Summary], tested: Tested, notes: tuple[str, ...]) -> Table:
    """Return every ranked cell against the first and against ``MODALITY``; the CSV file holds all pairs."""
    frame: list[dict[str, Any]] = []
    every: list[dict[str, Any]] = []
    for protocol in dict.fromkeys(summary.protocol for summary in ranked):
        cells = [summary.cell for summary in ranked if summary.protocol == protocol]
        every += [_numbers(protocol, tested.pairs[protocol, first, second]) for first, second in combinations(cells, 2)]
        for against in dict.fromkeys([cells[0], *(cell for cell in cells if cell == MODALITY)]):
            frame += [_numbers(protocol, tested.pairs[protocol, cell, against]) for cell in cells if cell != against]
    headings = ["Protocol", "Model", "Against", "Acc. diff.", "p", "p (Holm)", "AUC diff.", "p (AUC)", "Verdict"]
    numbers = tuple(headings[3:8])
    return Table(
        name="comparisons",
        title="Ranked cells against the first and against the modality alone (differences with 95 % intervals).",
        notes=(
            *notes,
            TESTS,
            "AUCs by DeLong's test for groups, without correction; intervals of differences are Wald's over groups and "
            "may disagree with p at the edge",
            f"the CSV file holds all {len(every)} pairs",
        ),
        frame=pd.DataFrame(frame, columns=list(COLUMNS)),
        every=pd.DataFrame(every, columns=list(COLUMNS)),
        display=pd.DataFrame([_texts(row) for row in frame], columns=headings),
        numbers=numbers,
        brief=(*protocol_column(list(ranked)), "Model", "Acc. diff.", "p (Holm)", "Verdict"),
        block="Against",
    )


def p_text(p: float) -> str:
    """Return ``= 0.012`` or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {number(p, 3)}"


def _numbers(protocol: str, pair: Comparison) -> dict[str, object]:
    def ends(name: str, estimate: Estimate) -> dict[str, object]:
        return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}

    where = {"protocol": protocol, "cell": pair.first, "against": pair.second}
    return {
        **where,
        **{name: getattr(pair, name) for name in ("seeds", "n", "groups", "accuracy_p", "accuracy_p_holm", "auc_p")},
        **ends("accuracy_difference", pair.accuracy_difference),
        **ends("auc_difference", pair.auc_difference),
        **{name: getattr(pair, name) for name in ("verdict", "reason")},
    }


def _texts(row: dict[str, Any]) -> list[str]:
    def estimate(metric: str) -> str:
        value, low, high = (row[f"{metric}_difference{end}"] for end in ("", "_low", "_high"))
        decimals = METRICS[metric].decimals
        ends = "" if math.isnan(low + high) else f" ({number(low, decimals)} to {number(high, decimals)})"
        return f"{number(value, decimals)}{ends}"

    def p(name: str) -> str:
        return NONE if math.isnan(row[name]) else p_text(row[name]).removeprefix("= ")

    said = f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"]
    return [
        *(row["protocol"], row["cell"], row["against"], estimate("accuracy"), p("accuracy_p"), p("accuracy_p_holm")),
        *(estimate("auc"), p("auc_p"), said),
    ]
