"""One look for all figures: colours, line styles, sizes, and the frame with title and warnings around the panels."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from bench.paper import PRINTED_NAMES
from bench.report.summary import union
from fusion.text import one_line

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK, GREY, LIGHT = "#222222", "#767676", "#D0D0D0"
SERIES: tuple[tuple[str, Any, str], ...] = (
    (BLUE, "-", "o"),
    (VERMILLION, (0, (4, 1.2)), "s"),
    (GREEN, (0, (1.2, 1)), "^"),
    (PURPLE, (0, (5, 1, 1, 1)), "D"),
    (ORANGE, (0, (7, 2)), "v"),
    (SKY, (0, (3, 1, 1, 1, 1, 1)), "P"),
)
"""Colour (Okabe and Ito 2008), line style and marker of the first, second ... series: each tells them apart alone, so
grey print and colour-blind readers lose nothing."""
WIDTH = 7.2
"""Inches: two columns of a journal's page."""
NARROW = 3.4
"""Inches: one column of it; no figure is narrower."""
NAME_LENGTH = 48
"""Characters of a cell's name in a figure."""
RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titley": 1.0,  # else matplotlib measures all ticks to find it
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "text.color": BLACK,
    "text.parse_math": False,  # a $ in a name is a $
    "savefig.dpi": 220,
    "svg.fonttype": "none",  # text stays text: small files, searchable, read aloud
    "svg.hashsalt": "fusebench",  # the same run gives the same bytes
}


class LeftOutError(Exception):
    """A figure can't be drawn from this run; the message says why, and what would change that."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a figure's function returns."""

    canvas: Canvas
    caption: str
    """What a reader must know to read it, beside the title and the warnings."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style inside the block, whatever the caller's own is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]
        yield


def new_canvas(height: float, width: float = WIDTH) -> Canvas:
    """Return an empty figure of so many inches."""
    canvas = Canvas(figsize=(width, height))
    FigureCanvasAgg(canvas)
    return canvas


def panels(
    rows: int,
    columns: int,
    *,
    panel: tuple[float, float],
    gap: tuple[float, Sequence[float]],
    margin: tuple[float, float, float, float],
) -> tuple[Canvas, np.ndarray]:
    """Return a figure and its axes, [rows, columns], laid out in inches so that nothing overlaps.

    Args:
        rows: of panels.
        columns: of panels.
        panel: width and height of each.
        gap: between two panels across, and below each row of panels but the last.
        margin: left, right, top (title and warnings come above it) and bottom.
    """
    left, right, top, bottom = margin
    width = max(NARROW, left + columns * panel[0] + (columns - 1) * gap[0] + right)
    height = top + rows * panel[1] + sum(gap[1]) + bottom
    canvas = new_canvas(height, width)
    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            x = left + column * (panel[0] + gap[0])
            y = height - top - (row + 1) * panel[1] - sum(gap[1][:row])
            axes[row, column] = canvas.add_axes((x / width, y / height, panel[0] / width, panel[1] / height))
    return canvas, axes


def add_head(canvas: Canvas, title: str, warnings: str) -> None:
    """Put the title, and below it the warnings, above all that is drawn; the figure grows by what they need."""
    width, height = canvas.get_size_inches()
    letters = int(width * 72 / 3.65)
    lines = textwrap.wrap(title, int(letters * 0.62))
    small = textwrap.wrap(warnings, letters)
    added = 0.1 + 0.16 * len(lines) + 0.12 * len(small) + 0.06
    canvas.set_size_inches(width, height + added)
    share = height / (height + added)
    for axes in canvas.axes:
        box = axes.get_position(original=True)  # else a square panel shrinks to what it had before
        axes.set_position((box.x0, box.y0 * share, box.width, box.height * share))
    for legend in canvas.legends:
        x, y = legend.get_bbox_to_anchor().transformed(canvas.transFigure.inverted()).min
        legend.set_bbox_to_anchor((x, y * share), transform=canvas.transFigure)
    for text in canvas.texts:
        x, y = text.get_position()
        text.set_position((x, y * share))
    y = 1 - 0.08 / (height + added)
    at: dict[str, Any] = {"ha": "left", "va": "top", "linespacing": 1.25}
    x = 0.1 / width
    canvas.text(x, y, "\n".join(lines), fontsize=9, fontweight="bold", **at)
    y -= 0.16 * len(lines) / (height + added)
    canvas.text(x, y, "\n".join(small), fontsize=6.5, color="#8A3B00", **at)


def in_run_order(run: dict[str, Any], cells: Iterable[str]) -> list[str]:
    """Return ``cells`` in the order the run planned them, then those it did not plan."""
    found = union([], cells)
    return [cell for cell in union(run["cells"], found) if cell in set(found)]


def clear(axes: Axes) -> None:
    """Leave a panel empty."""
    axes.set_axis_off()


def cell_name(cell: str, length: int = NAME_LENGTH) -> str:
    """Return a cell's name as a figure shows it."""
    return one_line(cell, length)


def panel_and_series(cell: str) -> tuple[str, str]:
    """Split a cell's name into the panel and the series of small multiples.

    ``model1/resnet50+svm`` -> ``resnet50``, ``svm``; ``model3/cnn17+e25+b64`` -> ``cnn17+e25``, ``b64``.
    """
    name = cell.partition("/")[2] or cell
    panel, _, series = name.rpartition("+")
    return (panel, series) if panel else (series, "")


def printed(name: str) -> str:
    """Return a part of a cell's name as the paper prints it: ``ResNet50``, ``SVM``, ``25 epochs``, ``batch 64``."""
    words = []
    for part in name.split("+"):
        number = part[1:]
        if part in PRINTED_NAMES:
            words.append(PRINTED_NAMES[part])
        elif part[:1] in ("e", "b") and number.isascii() and number.isdigit():
            words.append(f"{number} epochs" if part[0] == "e" else f"batch {number}")
        else:
            words.append("17-layer CNN" if part == "cnn17" else part)
    return one_line(", ".join(words), 32)
