"""Confusion matrices of all cells, small multiples: counts and the share of each row."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from bench.report.curves import family
from bench.report.figures.style import GREY, WIDTH, Drawing, LeftOutError, cell_name, in_run_order, new_canvas
from bench.report.layout import NONE, Table
from bench.report.read import Results
from fusion.text import one_line

COLUMNS = 8
MOST_CELLS = 120
SQUARE = 0.29
"""Inches of one of a matrix's four fields."""
PITCH = (0.885, 1.32)
"""Inches from one matrix to the next, across and down."""
HEADING = 0.22
NAME_LINES = 3
SHADES = LinearSegmentedColormap.from_list("shares", ["white", "#6CB4DC"])  # dark text reads well on all of them
CLASSES = ("ben.", "mal.")


def draw_confusion(run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw the matrix of every finished cell, true classes down, decisions across; the seeds are added up.

    Raises:
        LeftOutError: no cell is finished, or there are too many.
    """
    del run_dir, tables
    counts: dict[str, np.ndarray] = {}
    for (found, _, cell), predictions in results.predictions.items():
        if found == protocol:
            matrix = np.zeros((2, 2), int)
            np.add.at(matrix, (predictions["label"].to_numpy(), predictions["decision"].to_numpy()), 1)
            counts[cell] = counts.get(cell, np.zeros((2, 2), int)) + matrix
    if not counts:
        raise LeftOutError(f"no cell is finished under protocol {protocol}")
    if len(counts) > MOST_CELLS:
        raise LeftOutError(f"{len(counts)} cells are more than the {MOST_CELLS} a figure shows")
    families: dict[str, list[str]] = {}
    for cell in in_run_order(results.run, counts):
        families.setdefault(family(cell), []).append(cell)
    places, rows = _places(families)
    height = rows * PITCH[1] + 0.1
    canvas = new_canvas(height)
    # one field of drawing measured in inches from the top left corner: quicker than 40 axes
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for name, cells in families.items():
        row, column = places[cells[0]]
        axes.text(0.1 + column * PITCH[0], row * PITCH[1] + 0.16, one_line(name, 12), fontsize=8, fontweight="bold")
    for cell, (row, column) in places.items():
        _draw_matrix(axes, 0.31 + column * PITCH[0], row * PITCH[1] + HEADING, cell, counts[cell])
    return Drawing(
        canvas=canvas,
        caption="Rows: true class, benign above malignant; columns: decision at probability 0.5. Test rows, and their "
        "share of the true class, which is also the shade. Several seeds are added up",
    )


def _places(families: dict[str, list[str]]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return row and column of each cell, and the number of rows; a family that fits goes on in the row begun."""
    places: dict[str, tuple[int, int]] = {}
    row = column = 0
    for cells in families.values():
        if column + len(cells) > COLUMNS and column:
            row, column = row + 1, 0
        for cell in cells:
            if column == COLUMNS:
                row, column = row + 1, 0
            places[cell] = (row, column)
            column += 1
    return places, row + 1


def _draw_matrix(axes: Axes, left: float, top: float, cell: str, counts: np.ndarray) -> None:
    head, plus, tail = cell_name(cell.partition("/")[2] or cell, 44).partition("+")
    lines = [*textwrap.wrap(head, 17), *textwrap.wrap(plus + tail, 17)][:NAME_LINES]
    axes.text(left, top + 0.1 * NAME_LINES, "\n".join(lines), fontsize=5.5, va="bottom", linespacing=1.15)
    top += 0.1 * NAME_LINES + 0.11
    for true in (0, 1):
        middle = (true + 0.5) * SQUARE
        axes.text(left - 0.03, top + middle, CLASSES[true], fontsize=5.2, ha="right", va="center", color=GREY)
        axes.text(left + middle, top - 0.02, CLASSES[true], fontsize=5.2, ha="center", color=GREY)
        of_class = counts[true].sum()
        for decided in (0, 1):
            share = counts[true, decided] / of_class if of_class else 0.0
            x, y = left + decided * SQUARE, top + true * SQUARE
            axes.add_patch(Rectangle((x, y), SQUARE, SQUARE, facecolor=SHADES(share), edgecolor=GREY, linewidth=0.4))
            at: dict[str, Any] = {"ha": "center", "va": "center"}
            axes.text(x + SQUARE / 2, y + 0.36 * SQUARE, str(counts[true, decided]), fontsize=6.5, **at)
            axes.text(x + SQUARE / 2, y + 0.73 * SQUARE, f"{100 * share:.0f} %" if of_class else NONE, fontsize=5, **at)
