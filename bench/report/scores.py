"""One score of one cell with its interval, over the seeds, and the difference of two."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.report.layout import METRICS, number
from bench.report.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value and its 95 % interval; NaN where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def columns(self, name: str) -> dict[str, float]:
        """Return ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def shown(self, metric: str, *, signed: bool = False) -> str:
        """Return the score as ``0.701 (0.650–0.752)``, or ``+0.051 (−0.010 to +0.112)`` where a sign matters."""
        decimals = METRICS[metric].decimals
        texts = [number(one, decimals) for one in (self.value, self.low, self.high)]
        if signed:
            texts = [f"+{text}" if text.strip("0.") and text[0].isdigit() else text for text in texts]
        missing = math.isnan(self.low + self.high)
        return texts[0] if missing else f"{texts[0]} ({texts[1]}{' to ' if signed else '–'}{texts[2]})"


Scores = dict[tuple[str, str, str], Score]
"""Protocol, cell and metric -> its mean over the seeds, with the interval of that mean."""


def scores_of(summaries: Iterable[Summary]) -> Scores:
    """Return the scores of the cells that are done; NaN where one is undefined for any seed."""
    return {
        (summary.protocol, summary.cell, metric): Score(value=value, low=low, high=high)
        for summary in summaries
        for metric, value in summary.values.items()
        for low, high in [summary.intervals[metric]]
    }


def difference_of(first: Score, second: Score) -> Score:
    """Return ``first`` - ``second`` with the interval that theirs imply for independent samples.

    MOVER, the method of variance estimates recovery (Zou & Donner, Stat. Med. 27 (2008) 1693, equation 4); of Wilson's
    intervals it makes Newcombe's (Stat. Med. 17 (1998) 873, method 10).
    """
    value = first.value - second.value
    return Score(
        value=value,
        low=value - math.hypot(first.value - first.low, second.high - second.value),
        high=value + math.hypot(first.high - first.value, second.value - second.low),
    )
