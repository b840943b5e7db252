"""Training curves: loss above accuracy for every trained cell, with the epoch whose weights were kept."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.figures.style import (
    BLACK,
    BLUE,
    VERMILLION,
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
from bench.report.summary import union

COLUMNS = 5
MOST_CELLS = 60
MOST_EPOCHS = 100_000
"""What a recipe may ask for."""
LOG_FROM = 20.0
"""Ratio of the largest to the smallest loss from which their axis is logarithmic."""
LARGEST_LOSS = 1e12
"""Beyond it a loss is off the axis."""
LINES: dict[str, dict[str, Any]] = {
    "train": {"color": BLUE, "linestyle": "-"},
    "validation": {"color": VERMILLION, "linestyle": (0, (4, 1.2))},
}


def draw_training(family: str, run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw loss and accuracy of the cells of one family, a column each; the seeds of a cell share its panels.

    Raises:
        LeftOutError: nothing of the family was trained, or there are too many cells.
    """
    del run_dir, tables
    histories: dict[str, list[pd.DataFrame]] = {}
    for (found, _, cell), history in results.histories.items():
        drawable = history[history["epoch"].between(1, MOST_EPOCHS)]
        if found == protocol and cell.startswith(f"{family}/") and len(drawable):
            histories.setdefault(cell, []).append(drawable)
    if not histories:
        raise LeftOutError(f"no cell of {family} was trained under protocol {protocol}")
    if len(histories) > MOST_CELLS:
        raise LeftOutError(f"{len(histories)} cells of {family} are more than the {MOST_CELLS} a figure shows")
    # one row of panels for each optimizer, a column for each backbone
    cells = in_run_order(results.run, histories)
    if family == "model2":
        optimizers = union([], (panel_and_series(cell)[1] for cell in cells))
        cells.sort(key=lambda cell: optimizers.index(panel_and_series(cell)[1]))
    columns = min(COLUMNS, len(cells))
    blocks = math.ceil(len(cells) / columns)
    gaps = [gap for _ in range(blocks) for gap in (0.1, 0.72)][:-1]
    canvas, axes = panels(2 * blocks, columns, panel=(1.2, 0.72), gap=(0.12, gaps), margin=(0.62, 0.08, 0.36, 0.6))
    losses = np.concatenate(
        [history[["train_loss", "validation_loss"]].to_numpy().ravel() for cell in cells for history in histories[cell]]
    )
    losses = losses[(losses > 0) & (losses < LARGEST_LOSS)]
    low, high = (losses.min(), losses.max()) if len(losses) else (0.1, 1.0)
    last = max(float(history["epoch"].max()) for seeds in histories.values() for history in seeds)
    is_log = high / low > LOG_FROM
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        loss, accuracy = axes[2 * block, column], axes[2 * block + 1, column]
        if place >= len(cells):
            clear(loss)
            clear(accuracy)
            continue
        _draw_cell(loss, accuracy, histories[cells[place]], last)
        loss.set_title("\n".join(map(printed, panel_and_series(cells[place]))), loc="left", fontsize=6.5, pad=3)
        _loss_axis(loss, low, high, is_log)
        accuracy.set_ylim(0, 1)
        accuracy.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        if column == 0:
            for panel, label in ((loss, "Loss, nats"), (accuracy, "Accuracy")):
                panel.set_ylabel(label)
                panel.yaxis.set_label_coords(-0.36, 0.5)
        else:
            loss.tick_params(labelleft=False)
            accuracy.tick_params(labelleft=False)
        loss.tick_params(labelbottom=False)
        accuracy.set_xlabel("Epoch", labelpad=1)
    kept = Line2D([], [], color=BLACK, linestyle="none", marker="o", markersize=4.5, markerfacecolor="none")
    height = canvas.get_size_inches()[1]
    canvas.legend(
        [*(Line2D([], [], **style) for style in LINES.values()), kept],
        [*LINES, "epoch kept"],
        loc="lower left",
        bbox_to_anchor=(0.45 / canvas.get_size_inches()[0], 0.06 / height),
        ncols=3,
        borderaxespad=0,
    )
    return Drawing(
        canvas=canvas,
        caption="Mean cross-entropy and accuracy of each epoch; the circle marks the epoch of the lowest validation "
        "loss, whose weights were kept"
        + (". Under protocol paper the validation rows are the test rows" if protocol == "paper" else "")
        + (". The axis of the loss is logarithmic" if is_log else "")
        + (". A line for each seed" if max(len(seeds) for seeds in histories.values()) > 1 else ""),
    )


def _draw_cell(loss: Axes, accuracy: Axes, seeds: list[pd.DataFrame], last: float) -> None:
    for history in seeds:
        validation = history["validation_loss"].to_numpy()
        kept = int(np.nanargmin(validation)) if np.isfinite(validation).any() else None
        for axes, kind in ((loss, "loss"), (accuracy, "accuracy")):
            for name, style in LINES.items():
                values = history[f"{name}_{kind}"]
                # a single epoch makes no line
                axes.plot(history["epoch"], values, linewidth=1, marker="." if len(history) == 1 else "", **style)
            if kept is not None:
                axes.plot(
                    history["epoch"].iloc[kept],
                    history[f"validation_{kind}"].iloc[kept],
                    marker="o",
                    markersize=4.5,
                    markerfacecolor="none",
                    markeredgecolor=BLACK,
                    zorder=3,
                )
    for axes in (loss, accuracy):
        axes.set_xlim(0.5, max(last, 2) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(visible=True)


def _loss_axis(axes: Axes, low: float, high: float, is_log: bool) -> None:
    if is_log:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(low / 1.6, high * 1.6)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        room = 0.08 * (high - low) or 0.1
        axes.set_ylim(max(0.0, low - room), high + room)
        axes.yaxis.set_major_locator(MaxNLocator(3))
