"""``index.html``: the whole report of a run in one file that opens from disk, without network."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bench.report.layout import Table
from bench.report.page.findings import facts, findings
from bench.report.page.plots import Plot, cost_plots, roc_plots
from bench.report.page.provenance import (
    Anchors,
    Link,
    environment_anchor,
    environments,
    origins,
    relative_link,
)
from bench.report.page.sections import SECTIONS, section_of, tables_in_order
from bench.report.page.views import View, badge, common_notes, is_warning, view
from bench.report.read import Results
from bench.store import PAGE
from fusion.errors import UserError
from fusion.files import write_text
from fusion.text import one_line

if TYPE_CHECKING:  # drawing them imports matplotlib, which a page does not need
    from bench.report.figures import Figure

MOST_PICTURES, MOST_PICTURE_BYTES = 24, 4 * 2**20
"""Of explanations; a folder can hold thousands, and the page is one file."""
MOST_FIGURE_BYTES = 4 * 2**20
"""A figure larger than this stands as a link."""
MIME = {".svg": "image/svg+xml", ".png": "image/png"}
TEXT = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One overlay picture of the explanations."""

    path: Path
    """PNG in the run's folder."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A picture or figure as the template shows it."""

    source: str
    title: str
    caption: str
    files: tuple[Link, ...]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A section as the template shows it."""

    id: str
    title: str
    says: str
    tables: tuple[View, ...]
    plots: tuple[Plot, ...]
    figures: tuple[_Shown, ...]
    pictures: tuple[_Shown, ...]
    texts: tuple[str, ...]
    """Above its tables."""
    left_out: tuple[str, ...]
    """What is not shown, and why."""


def write_page(
    run_dir: Path,
    results: Results,
    tables: Mapping[str, Table],
    figures: Sequence["Figure"] = (),
    pictures: Sequence[Picture] = (),
    said: Mapping[str, Sequence[str]] = NOTHING,
) -> Path:
    """Write ``run_dir/index.html`` and return its path.

    Args:
        run_dir: the run's folder; the page links to its files.
        results: from ``read_results``.
        tables: all tables that are to be shown, by name; each stands in the section that ``SECTIONS`` gives it.
        figures: from ``bench.report.figures.write_figures``.
        pictures: overlays of explanations, of which the first ``MOST_PICTURES`` are shown.
        said: id of a section -> what it comes to in plain words, one sentence each.

    Raises:
        UserError: a picture can't be read, or the page can't be written.
    """
    path = run_dir / PAGE
    write_text(path, render(run_dir, results, tables, figures, pictures, said), recorded=True)
    return path


def render(
    run_dir: Path,
    results: Results,
    tables: Mapping[str, Table],
    figures: Sequence["Figure"] = (),
    pictures: Sequence[Picture] = (),
    said: Mapping[str, Sequence[str]] = NOTHING,
) -> str:
    """Return the text of the page; the arguments are those of ``write_page``."""
    where = {(one.protocol, one.cell): one for one in origins(run_dir, results, Anchors(results.rows))}
    common = common_notes(tables)
    plots = {"roc": roc_plots(results, where, run_dir), "cost": cost_plots(tables, where, run_dir)}
    drawn = [figure for figure in figures if figure.svg or figure.png]
    shown_pictures, unshown = _pictures(run_dir, pictures)
    left_out = {
        "explanations": unshown,
        "figures": tuple(f"{one.title}: left out, as {one.reason}" for one in figures if one not in drawn),
    }
    parts = []
    for section in SECTIONS:
        part = _Part(
            id=section.id,
            title=section.title,
            says=section.says,
            tables=tuple(
                # what the section says above its tables is not said again below them
                view(table, (*common, *said.get(section.id, ())), where, run_dir)
                for table in tables_in_order(tables, section)
            ),
            plots=tuple(plots.get(section.id, ())),
            figures=tuple(
                _figure(run_dir, figure) for figure in drawn if section_of(figure.name, "figures") == section.id
            ),
            pictures=shown_pictures if section.id == "explanations" else (),
            texts=tuple(said.get(section.id, ())),
            left_out=left_out.get(section.id, ()),
        )
        if part.tables or part.plots or part.figures or part.pictures or part.texts or part.left_out:
            parts.append(part)
    all_plots = [plot for part in parts for plot in part.plots]
    of_run = environments(run_dir, results)
    script, plotly = _asset("page.js"), get_plotlyjs()
    return _template().render(
        title=f"Run {one_line(run_dir.resolve().name, 80)}",
        subtitle="Breast-cancer classification on pooled mammography and ultrasound images",
        warnings=tuple(note for note in common if is_warning(note)),
        facts=facts(results),
        # the audit's first sentence is its verdict
        findings=(*findings(tables), *said.get("score", ()), *said.get("audit", ())[:1]),
        common=tuple(note for note in common if not is_warning(note)),
        sections=parts,
        plots=all_plots,
        environments=of_run,
        anchors={one.anchor for one in of_run},
        origins=tuple(where.values()),
        css=Markup(_asset("page.css")),
        script=Markup(script),
        plotly=Markup(plotly),
        # scripts run by their hash alone: text that gets into the page by mistake is not run
        script_hashes=Markup(" ".join(_hash(text) for text in ((plotly, script) if all_plots else (script,)))),
        footer="Written by fusebench. This page needs no network and sends nothing.",
    )


def embedded_json(content: Any) -> Markup:
    """Return ``content`` as JSON that can't end or open an element of the page it stands in.

    Raises:
        ValueError: a number is not finite.
    """
    return Markup(json.dumps(content, separators=(",", ":"), allow_nan=False).translate(TEXT))


def data_uri(path: Path) -> str:
    """Return a picture as a ``data:`` URI; as the source of an ``img`` no script in it is run.

    Raises:
        UserError: it can't be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(content).decode()}"


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_clean, trim_blocks=True)
    environment.filters |= {"json": embedded_json, "slug": _slug, "badge": badge, "environment": environment_anchor}
    return environment.from_string(_asset("index.html.j2"))


def _clean(value: Any) -> Any:
    """Return a text on one line without control characters, and those that turn the direction of writing."""
    return value if isinstance(value, Markup) else one_line(str(value))


def _slug(text: str) -> str:
    return "".join(char if (char.isascii() and char.isalnum()) or char in "_-" else "-" for char in text)


def _asset(name: str) -> str:
    return files("bench.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _figure(run_dir: Path, figure: "Figure") -> _Shown:
    paths = [path for path in (figure.svg, figure.png) if path]
    links = tuple(relative_link(run_dir, path) for path in paths)
    small = [path for path in paths if path.stat().st_size <= MOST_FIGURE_BYTES]
    return _Shown(source=data_uri(small[0]) if small else "", title=figure.title, caption=figure.caption, files=links)


def _pictures(run_dir: Path, pictures: Iterable[Picture]) -> tuple[tuple[_Shown, ...], tuple[str, ...]]:
    """Return as many pictures as the page has room for, and the sentence that tells how many are left out."""
    given, shown, size = list(pictures), [], 0
    for one in given[:MOST_PICTURES]:
        source = data_uri(one.path)
        if (size := size + len(source)) > MOST_PICTURE_BYTES:
            break
        shown.append(_Shown(source=source, title="", caption=one.caption, files=(relative_link(run_dir, one.path),)))
    missing = len(given) - len(shown)
    return tuple(shown), (f"{missing} more pictures lie in the folder explanations/.",) if missing else ()
