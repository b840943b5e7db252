"""Accuracy against latency and size, the cells that no other beats in all three marked."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.report.curves import pareto_points
from bench.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    Drawing,
    LeftOutError,
    cell_name,
    new_canvas,
)
from bench.report.layout import Table
from bench.report.measured import three_digits
from bench.report.read import Results
from fusion.text import one_line

MOST_CELLS = 60
FAMILIES = {"model1": (BLUE, "o"), "model2": (VERMILLION, "s"), "model3": (GREEN, "^"), "baseline": (ORANGE, "v")}
OTHER = (PURPLE, "D")
AREA_PER_MIB = 0.35
"""Square points of a marker for each MiB, above the smallest marker."""
SMALLEST_AREA = 14.0
LARGEST_AREA = 400.0
LINE = 0.13


def draw_pareto(run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw the cells that were measured on the machine of the leaderboard, numbered, with a key of their numbers.

    Raises:
        LeftOutError: nothing was measured, or too much for one figure.
    """
    del run_dir, results
    points = pareto_points(tables)
    points = points[points["protocol"] == protocol].sort_values(["latency_p50_ms", "cell"]).reset_index(drop=True)
    if points.empty:
        raise LeftOutError(f"no finished cell was measured under protocol {protocol}: run 'fusebench measure RESULTS'")
    if len(points) > MOST_CELLS:
        raise LeftOutError(f"{len(points)} measured cells are more than the {MOST_CELLS} a figure shows")
    records = [{str(key): value for key, value in point.items()} for point in points.to_dict("records")]
    # the key stands below the plot
    columns = 2 if len(points) > 1 else 1
    lines = -(-len(points) // columns)
    plot, below, top = 3.0, 0.62 + LINE * (lines + 1), 0.34
    height = top + plot + below
    canvas = new_canvas(height)
    width = canvas.get_size_inches()[0]
    axes = canvas.add_axes((0.6 / width, below / height, (width - 0.8) / width, plot / height))
    axes.set_xscale("log")
    for number, point in enumerate(records, start=1):
        colour, marker = FAMILIES.get(point["family"], OTHER)
        x, y = point["latency_p50_ms"], point["accuracy"]
        if np.isfinite([point["accuracy_low"], point["accuracy_high"]]).all():
            ends = (point["accuracy_low"], point["accuracy_high"])
            axes.plot((x, x), ends, color=colour, linewidth=0.7, alpha=0.6, zorder=1)
        axes.scatter(
            *(x, y, min(LARGEST_AREA, SMALLEST_AREA + AREA_PER_MIB * point["parameter_mib"])),
            marker=marker,
            edgecolors=colour,
            linewidths=1.0,
            zorder=2,
            facecolors=colour if point["on_front"] else "white",
        )
        axes.annotate(
            *(str(number), (x, y)),
            xytext=(7, 5),
            textcoords="offset points",
            fontsize=6.5,
            zorder=3,
            fontweight="bold" if point["on_front"] else "normal",
        )
    ends = points["latency_p50_ms"].min(), points["latency_p50_ms"].max()
    axes.set_xlim(ends[0] / 1.6, ends[1] * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Latency of one image, p50, ms (logarithmic)")
    axes.set_ylabel("Accuracy, with its 95 % interval")
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    _add_key(canvas, records, lines, below)
    _add_legend(axes, sorted({str(name) for name in points["family"]}))
    machines = sorted({one_line(name, 60) for name in points["machine"] if name})
    return Drawing(
        canvas=canvas,
        caption=f"Measured on {', '.join(machines) or 'a machine without a name'}, by the fastest engine at parity. "
        "A marker's area grows with the size of the parameters. Filled markers and bold numbers: the Pareto front, "
        "where no other cell of the protocol is as accurate, as fast and as small, and better in one of the three",
    )


def _add_key(canvas: Canvas, points: list[dict[str, Any]], lines: int, below: float) -> None:
    """Write number, name, accuracy, latency and size of each point, in columns of ``lines``, ``below`` inches high."""
    width, height = canvas.get_size_inches()
    for place, point in enumerate(points):
        column, line = divmod(place, lines)
        left, top = 0.6 + column * (width - 0.7) / 2, below - 0.5 - LINE * (line + 1)
        texts = {
            0.0: f"{place + 1}",
            0.2: cell_name(point["cell"], 30),
            1.72: f"{point['accuracy']:.3f}",
            2.08: f"{three_digits(point['latency_p50_ms'])} ms",
            2.62: f"{point['parameter_mib']:.1f} MiB",
        }
        weight = "bold" if point["on_front"] else "normal"
        for offset, text in texts.items():
            canvas.text((left + offset) / width, top / height, text, fontsize=6.2, va="top", fontweight=weight)


def _add_legend(axes: Axes, families: list[str]) -> None:
    handles, texts = [], []
    for name in families:
        colour, marker = FAMILIES.get(name, OTHER)
        handles.append(axes.scatter([], [], s=SMALLEST_AREA + 8, marker=marker, facecolors="white", edgecolors=colour))
        texts.append(one_line(name, 20))
    handles.append(axes.scatter([], [], s=SMALLEST_AREA + 8, marker="o", color=GREY))
    texts.append("on the Pareto front")
    for mib in (10, 100, 500):
        area = SMALLEST_AREA + AREA_PER_MIB * mib
        handles.append(axes.scatter([], [], s=area, facecolors="white", edgecolors=GREY, linewidths=0.8))
        texts.append(f"{mib} MiB")
    axes.legend(
        handles,
        texts,
        loc="lower left",
        ncols=len(handles),
        bbox_to_anchor=(0, 1),
        columnspacing=1.5,
        handletextpad=0.4,
    )
