"""ROC curves with their 95 % band, small multiples: the paper's Figures 6, 7 and 8."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.paper import paper_metrics
from bench.report.curves import SEEDS_RULE, roc_points
from bench.report.figures.style import (
    GREY,
    LIGHT,
    SERIES,
    Drawing,
    LeftOutError,
    clear,
    in_run_order,
    panel_and_series,
    panels,
    printed,
)
from bench.report.layout import Table
from bench.report.read import Results

MOST_CURVES = 100
REFERENCE = "baseline/modality"
"""What is told the modality alone; drawn thin and grey where it was judged on the same rows."""
WITH_REFERENCE = ("model1", "model2", "model3")
COLUMNS = 3
LINE = 0.118
"""Inches of a legend's line."""


def draw_roc(family: str, run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw the curves of one family, a panel for each backbone (Model 3: number of epochs).

    Raises:
        LeftOutError: no cell of the family is finished, or there are too many.
    """
    del run_dir, tables
    points = roc_points(results)
    points = points[points["protocol"] == protocol]
    chosen = points[points["family"] == family]
    cells = in_run_order(results.run, chosen["cell"])
    if not cells:
        raise LeftOutError(f"no cell of {family} is finished under protocol {protocol}")
    if len(cells) > MOST_CURVES:
        raise LeftOutError(f"{len(cells)} cells of {family} are more than the {MOST_CURVES} a figure shows")
    groups: dict[str, list[str]] = {}
    for cell in cells:
        groups.setdefault(panel_and_series(cell)[0], []).append(cell)
    reference = points[points["cell"] == REFERENCE] if family in WITH_REFERENCE else points.iloc[:0]
    printed_auc = {row["cell"]: row["value"] for row in paper_metrics().to_dict("records") if row["metric"] == "auc"}
    columns = min(COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    lines = max(len(group) + len(printed_auc.keys() & set(group)) for group in groups.values())
    below = 0.44 + LINE * (1 + lines + bool(len(reference)))
    canvas, axes = panels(
        rows,
        columns,
        panel=(1.78, 1.78),
        gap=(0.5, [0.36 + below] * (rows - 1)),
        margin=(0.55, 0.31, 0.26, below + 0.05),
    )
    for place, panel in enumerate(axes.flat):
        if place >= len(groups):
            clear(panel)
            continue
        name, members = list(groups.items())[place]
        _draw_panel(panel, chosen, members, reference, printed_auc)
        panel.set_title(printed(name), loc="left")
        if place % columns == 0:
            panel.set_ylabel("True positive rate")
    seeds = int(chosen["seeds"].max())
    return Drawing(
        canvas=canvas,
        caption="AUC with its 95 % interval (DeLong, over groups); paper: the AUC the paper prints. Bands: pointwise "
        "95 %, bootstrap over groups; dotted diagonal: chance"
        + (f". Grey: a model that is told the modality alone ({REFERENCE})" if len(reference) else "")
        + (f". {SEEDS_RULE[0].upper()}{SEEDS_RULE[1:]}" if seeds > 1 else ""),
    )


def _draw_panel(
    panel: Axes, points: pd.DataFrame, cells: list[str], reference: pd.DataFrame, printed_auc: dict[str, float]
) -> None:
    panel.plot([0, 1], [0, 1], color=LIGHT, linestyle=":", linewidth=0.9, zorder=0)
    handles, texts = [], []
    for number, cell in enumerate(cells):
        colour, dashes, _ = SERIES[number % len(SERIES)]
        curve = points[points["cell"] == cell]
        panel.fill_between(curve["fpr"], curve["low"], curve["high"], color=colour, alpha=0.13, linewidth=0)
        panel.plot(curve["fpr"], curve["tpr"], color=colour, linestyle=dashes)
        handles.append(Line2D([], [], color=colour, linestyle=dashes))
        texts.append(f"{printed(panel_and_series(cell)[1])} {_auc(curve, printed_auc.get(cell, math.nan))}".strip())
    if len(reference):
        panel.plot(reference["fpr"], reference["tpr"], color=GREY, linewidth=0.7, zorder=1)
        handles.append(Line2D([], [], color=GREY, linewidth=0.7))
        texts.append(f"modality alone {_auc(reference, math.nan)}")
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="False positive rate", aspect="equal")
    ticks = np.linspace(0, 1, 5)
    panel.set_xticks(ticks, ["0", "", "0.5", "", "1"])
    panel.set_yticks(ticks, ["0", "", "0.5", "", "1"])
    panel.grid(visible=True)
    panel.set_axisbelow(True)
    height = panel.get_position().height * panel.get_figure().get_size_inches()[1]  # type: ignore[union-attr]
    panel.legend(
        handles,
        texts,
        title="AUC (95 % interval)",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(-0.06, -0.43 / height),
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.3,
        handletextpad=0.5,
    )


def _auc(curve: pd.DataFrame, printed_auc: float) -> str:
    auc, low, high = curve[["auc", "auc_low", "auc_high"]].iloc[0]
    text = "undefined" if math.isnan(auc) else f"{auc:.3f}"
    text += "" if math.isnan(low + high) else f" ({low:.3f}–{high:.3f})"
    return text if math.isnan(printed_auc) else f"{text}\npaper {printed_auc:.4f}"
