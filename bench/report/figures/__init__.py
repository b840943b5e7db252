"""The figures of a run, as SVG and PNG: for print, in colours and line styles that every reader can tell apart."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from bench.report.figures.confusion import draw_confusion
from bench.report.figures.leakage import draw_leakage
from bench.report.figures.pareto import draw_pareto
from bench.report.figures.roc import draw_roc
from bench.report.figures.samples import draw_augmentation, draw_samples
from bench.report.figures.style import Drawing, LeftOutError, add_head, styled
from bench.report.figures.training import draw_training
from bench.report.layout import Table
from bench.report.notes import RANDOM_WEIGHTS, labels, phantom_notes
from bench.report.read import Results
from bench.report.summary import union
from bench.report.tables import MARKED
from fusion.checksums import forget, record
from fusion.files import make_folder, replacing, write_text
from fusion.text import one_line

__all__ = ["FIGURES", "Figure", "write_figures"]

CAPTIONS = "captions.md"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a run."""

    name: str
    """File name without its ending, e.g. ``roc_model1_paper``."""
    title: str
    caption: str
    """Warnings, then what a reader must know; empty if it was left out."""
    svg: Path | None = None
    png: Path | None = None
    reason: str = ""
    """Why it was left out, and what would change that; else empty."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure that a report tries to draw."""

    title: str
    draw: Callable[[Path, Results, dict[str, Table], str], Drawing]
    """From the run's folder, its results, its tables and a protocol; raises ``LeftOutError``."""
    scores: bool = True
    """Whether it shows what models make of the images; else random weights need no warning."""
    each_protocol: bool = True
    """Whether there is one for each protocol; else the protocol is the empty text."""


FIGURES = {
    "roc_model1": Row(title="ROC curves of Model 1 (the paper's Figure 6)", draw=partial(draw_roc, "model1")),
    "roc_model2": Row(title="ROC curves of Model 2 (the paper's Figure 7)", draw=partial(draw_roc, "model2")),
    "roc_model3": Row(title="ROC curves of Model 3 (the paper's Figure 8)", draw=partial(draw_roc, "model3")),
    "roc_ablation": Row(title="ROC curves of one modality and of both", draw=partial(draw_roc, "ablation")),
    "roc_transfer": Row(title="ROC curves of the other modality", draw=partial(draw_roc, "transfer")),
    "training_model2": Row(title="Training curves of Model 2", draw=partial(draw_training, "model2")),
    "training_model3": Row(title="Training curves of Model 3", draw=partial(draw_training, "model3")),
    "training_ablation": Row(title="Training curves of the ablation", draw=partial(draw_training, "ablation")),
    "pareto": Row(title="Accuracy against latency and size", draw=draw_pareto),
    "confusion": Row(title="Confusion matrices", draw=draw_confusion),
    "leakage_gap": Row(title="Leakage gap: accuracy under both protocols", draw=draw_leakage, each_protocol=False),
    "augmentation": Row(
        title="The augmented copies of one image", draw=draw_augmentation, scores=False, each_protocol=False
    ),
    "samples": Row(title="Test images of each source", draw=draw_samples, scores=False, each_protocol=False),
}


def write_figures(run_dir: Path, results: Results, tables: dict[str, Table]) -> list[Figure]:
    """Write every figure the run has material for to ``run_dir/figures/``, with ``captions.md``.

    The same run gives the same bytes. Files of figures that are left out now are removed.

    Args:
        run_dir: the run's folder.
        results: from ``read_results``.
        tables: from ``build_tables``.

    Returns:
        Those written and those left out, in the order of ``FIGURES``.

    Raises:
        UserError: a file can't be written.
    """
    folder = make_folder(run_dir / "figures")
    told = pd.concat([results.rows[MARKED], results.measurements[MARKED]])
    marks = labels(results.run, told)
    phantom = phantom_notes(marks["synthetic_sources"])
    random = [RANDOM_WEIGHTS] if "random" in marks["weights"] else []
    protocols = union(results.run["protocols"], results.rows["protocol"])
    figures = []
    for name, row in FIGURES.items():
        warning = " · ".join([*phantom, *(random if row.scores else [])])
        for protocol in protocols if row.each_protocol else [""]:
            full = f"{name}_{re.sub('[^A-Za-z0-9-]+', '-', protocol)[:40]}" if protocol else name
            title = row.title + (f", protocol {one_line(protocol, 40)}" if protocol else "")
            svg, png = folder / f"{full}.svg", folder / f"{full}.png"
            try:
                with styled():
                    drawing = row.draw(run_dir, results, tables, protocol)
                    _write(drawing, title, warning, svg, png)
            except LeftOutError as reason:
                svg.unlink(missing_ok=True)
                png.unlink(missing_ok=True)
                figures.append(Figure(name=full, title=title, caption="", reason=str(reason)))
            else:
                caption = " ".join(f"{part}." for part in (warning, drawing.caption) if part)
                figures.append(Figure(name=full, title=title, caption=caption, svg=svg, png=png))
    write_text(folder / CAPTIONS, "".join(_told(figure) for figure in figures))
    written = [path for figure in figures for path in (figure.svg, figure.png) if path]
    record(folder / CAPTIONS, *written)
    forget(*(folder / f"{figure.name}.{ending}" for figure in figures if figure.reason for ending in ("svg", "png")))
    return figures


def _write(drawing: Drawing, title: str, warning: str, svg: Path, png: Path) -> None:
    add_head(drawing.canvas, title, warning)
    with warnings.catch_warnings():
        # a name may use a script the font lacks: the PNG then shows a box, the SVG leaves it to the reader's fonts
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        with replacing(svg) as temporary:
            drawing.canvas.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        with replacing(png) as temporary:
            drawing.canvas.savefig(temporary, format="png", metadata={"Software": None})


def _told(figure: Figure) -> str:
    text = figure.caption if figure.svg else f"Left out: {figure.reason}."
    return f"**{figure.name}** {_escaped(figure.title)}. {_escaped(text)}\n\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)
