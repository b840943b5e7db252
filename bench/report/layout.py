"""How a number, a comparison and a foreign text look in a table."""

import math
from dataclasses import dataclass

import pandas as pd

MINUS, NONE = "−", "–"
COMPARED = "Values: ours / paper (ours − paper)."
REASON_LENGTH = 120


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How one metric is printed."""

    heading: str
    """Short enough for a column of a printed table."""
    decimals: int = 3


METRICS = {
    "sensitivity": Metric(heading="Sens."),
    "specificity": Metric(heading="Spec."),
    "ppv": Metric(heading="PPV"),
    "npv": Metric(heading="NPV"),
    "accuracy": Metric(heading="Acc."),
    "kappa": Metric(heading="Kappa"),
    "auc": Metric(heading="AUC"),
    "brier": Metric(heading="Brier"),
    "ece": Metric(heading="ECE"),
}
"""The metrics of the tables, in printed order."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table, as numbers and as text."""

    name: str
    """File name without its ending, e.g. ``table2``."""
    title: str
    notes: tuple[str, ...]
    """What a reader must know to read the table; one sentence each, warnings first."""
    frame: pd.DataFrame
    """For programs: one number or text per column, missing numbers NaN."""
    display: pd.DataFrame
    """For people: the same rows, every cell a ``str``."""
    numbers: tuple[str, ...] = ()
    """Columns of ``display`` that are aligned to the right."""
    brief: tuple[str, ...] = ()
    """Columns of ``display`` that a terminal shows where there is no room for all; empty breaks cells into lines."""
    every: pd.DataFrame | None = None
    """For the CSV file, where it holds more rows than can be read; else ``frame``."""
    block: str = ""
    """Column of ``display``; a line is drawn where its value changes."""


def number(value: float, decimals: int) -> str:
    """Return ``value`` with ``decimals`` decimals and a true minus sign, zero without a sign, NaN as a dash."""
    if math.isnan(value):
        return NONE
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return text.replace("-", MINUS)


def difference(ours: float, paper: float, decimals: int) -> str:
    """Return ours - paper with its sign, of the rounded numbers, so that what is printed adds up."""
    text = number(round(ours, decimals) - round(paper, decimals), decimals)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def compared(ours: float | str, paper: float, decimals: int) -> str:
    """Return ``ours / paper (ours - paper)``, e.g. ``0.701 / 0.783 (−0.082)``.

    Either may be NaN, printed as a dash; ``ours`` may also be the word that stands in its place (``failed``).
    """
    left = ours if isinstance(ours, str) else number(ours, decimals)
    right = number(paper, decimals)
    if isinstance(ours, str) or math.isnan(ours - paper):
        return f"{left} / {right}"
    return f"{left} / {right} ({difference(ours, paper, decimals)})"
