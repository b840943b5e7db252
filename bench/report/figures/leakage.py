"""The leakage gap: each cell's accuracy under ``paper`` and under ``clean``, joined by a line."""

import math
from pathlib import Path

from matplotlib.lines import Line2D

from bench.report.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    WIDTH,
    Drawing,
    LeftOutError,
    cell_name,
    new_canvas,
)
from bench.report.layout import Table
from bench.report.read import Results
from bench.report.summary import Summary, summarise

PROTOCOLS = {"paper": (BLUE, "o", BLUE, 0.13), "clean": (VERMILLION, "s", "white", -0.13)}
"""Colour, marker, its filling, and how far above the line the interval is drawn."""
MOST_CELLS = 80
ROW = 0.175
"""Inches of a cell."""


def draw_leakage(run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw a dumbbell for each cell that is finished under both protocols.

    Raises:
        LeftOutError: no cell has both, or there are too many.
    """
    del run_dir, tables, protocol
    found: dict[str, dict[str, Summary]] = {}
    for summary in summarise(results.run, results.rows):
        if summary.protocol in PROTOCOLS and not math.isnan(summary.values.get("accuracy", math.nan)):
            found.setdefault(summary.cell, {})[summary.protocol] = summary
    pairs = {cell: both for cell, both in found.items() if len(both) == len(PROTOCOLS)}
    if not pairs:
        raise LeftOutError("no cell ran under both protocols: run again with --protocol both")
    if len(pairs) > MOST_CELLS:
        raise LeftOutError(f"{len(pairs)} cells are more than the {MOST_CELLS} a figure shows")
    left, right, top, bottom = 2.2, 0.55, 0.3, 0.4
    height = top + ROW * len(pairs) + bottom
    canvas = new_canvas(height)
    axes = canvas.add_axes((left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, ROW * len(pairs) / height))
    for row, both in enumerate(pairs.values()):
        y = -row
        ends = [both[name].values["accuracy"] for name in PROTOCOLS]
        axes.plot(ends, (y, y), color=GREY, linewidth=1.6, alpha=0.55, zorder=1, solid_capstyle="butt")
        for name, (colour, marker, filling, offset) in PROTOCOLS.items():
            summary = both[name]
            interval = summary.intervals["accuracy"]
            if not math.isnan(sum(interval)):
                axes.plot(interval, (y + offset,) * 2, color=colour, linewidth=0.7, zorder=2)
            axes.plot(
                *(summary.values["accuracy"], y, marker),
                markersize=4.2,
                markerfacecolor=filling,
                markeredgecolor=colour,
                zorder=3,
            )
        gap = f"{round(ends[0] - ends[1], 3) + 0.0:+.3f}".replace("-", "−")
        axes.annotate(gap, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=6.2)
    axes.annotate("gap", (1.01, 1), xycoords="axes fraction", va="bottom", fontsize=6.5, color=GREY)
    axes.set_yticks([-row for row in range(len(pairs))], [cell_name(cell, 42) for cell in pairs], fontsize=6.2)
    axes.set_ylim(-len(pairs) + 0.4, 0.6)
    axes.set_xlabel("Accuracy, with its 95 % interval")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], color=colour, linewidth=0.7, marker=marker, markersize=4.2, markerfacecolor=filling)
        for colour, marker, filling, _ in PROTOCOLS.values()
    ]
    axes.legend(handles, list(PROTOCOLS), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0.1)
    return Drawing(
        canvas=canvas,
        caption="gap: accuracy under paper − accuracy under clean. The two are judged on other test rows: paper on "
        "augmented copies, of which others were trained on; clean on images of groups that were not",
    )
