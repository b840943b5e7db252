"""How a table is shown on the page: text to read, numbers to sort by, links to follow."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.layout import METRICS, Table
from bench.report.notes import RANDOM_WEIGHTS
from bench.report.page.provenance import Link, Origin, relative_link

SORTED_BY: dict[str, tuple[str, ...]] = {
    **{metric.heading: (f"{name}_ours", name) for name, metric in METRICS.items()},
    "Paper": ("accuracy_paper",),
    "Diff.": ("accuracy_difference",),
    "p50, ms": ("latency_p50_ms",),
    "p50 ms": ("latency_p50_ms",),
    "95 % interval": ("latency_p50_ms_low",),
    "p90 ms": ("latency_p90_ms",),
    "Images/s": ("throughput",),
    "× PyTorch": ("ratio",),
    "Max. Δp": ("probability_difference",),
    "Flips": ("decision_flips",),
    "Cold start, s": ("cold_start_s",),
    "Memory, MiB": ("peak_memory_mib",),
    "MiB": ("parameter_mib",),
    "PyTorch, s": ("pytorch_end_to_end_s",),
    "ORT, s": ("onnxruntime_end_to_end_s",),
    "Paper, s": ("executed_time_s_paper",),
    "Parameters, MiB": ("parameter_mib_ours",),
    "Layers": ("layers_ours", "layers"),
    "File, MiB": ("file_mib",),
    "GMACs": ("macs",),
    "Images": ("original_ours", "sample_size_ours"),
    "Rows after augmentation": ("augmented_ours",),
}
"""Heading -> the first of these columns of ``frame`` that there is; else one named like the heading, else the text's
first number."""

STATUS_MARKS = {
    "done": "✓",
    "partial": "◐",
    "failed": "✕",
    "refused": "✕",
    "not run": "○",
    "not measured": "○",
    "beyond tolerance": "△",
    "parity unknown": "△",
    "undefined": "∅",
}
"""A cell that begins with one of these words carries its mark, so that a status is not told by colour alone."""

NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
LONG_TABLE = 10
"""Tables of more rows have a box to filter them by text."""
LONG_TEXT = 36
"""Longer texts are broken into lines."""
FIRST_COLUMNS = ("Model", "Backbone", "Authors", "Machine", "Source", "Epochs")
"""The first of these that a table has names its rows; else its first column does."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | None = None
    """What it is sorted by; None where there is no number."""
    href: str = ""
    mark: str = ""
    status: str = ""

    @property
    def is_long(self) -> bool:
        """Whether the text is broken into lines."""
        return len(self.text) > LONG_TEXT


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    cells: tuple[Cell, ...]
    protocol: str
    model: str
    new_block: bool


@dataclass(frozen=True, kw_only=True)
class View:
    """One table as the template shows it."""

    name: str
    title: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Those that not every table has."""
    headings: tuple[tuple[str, bool], ...]
    """Text, and whether its column holds numbers."""
    header: int
    """Place of the column that names a row."""
    rows: tuple[Row, ...]
    files: tuple[Link, ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    """What rows can be chosen by: protocol and model, where they tell rows apart."""
    filtered: bool


def common_notes(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """Return the notes that all the tables of the run carry, which the page shows once."""
    of_run = [table.notes for table in tables.values() if "data_hash" in table.frame]
    return tuple(note for note in of_run[0] if all(note in notes for notes in of_run)) if of_run else ()


def is_warning(note: str) -> bool:
    """Tell whether ``note`` says that the numbers are not of patients, of trained weights or of this data."""
    return note == RANDOM_WEIGHTS or note.startswith(("phantom data:", "some rows were measured on other data"))


def badge(warning: str) -> str:
    """Return the few words of a warning that stand beside every table and picture."""
    return "random weights" if warning == RANDOM_WEIGHTS else warning.partition(":")[0]


def view(table: Table, common: tuple[str, ...], origins: Mapping[tuple[str, str], Origin], run_dir: Path) -> View:
    """Return ``table`` as the page shows it.

    Args:
        table: any table; its rows that have a protocol and a cell are linked to these.
        common: notes that the page shows once for all.
        origins: protocol and cell -> where its numbers come from.
        run_dir: the run's folder, whose ``tables/`` are linked to.
    """
    records: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in table.frame.to_dict("records")]
    headings = [str(heading) for heading in table.display.columns]
    header = next((headings.index(name) for name in FIRST_COLUMNS if name in headings), 0)
    block = list(table.display[table.block]) if table.block else [""] * len(records)
    rows = tuple(
        _row(table, headings, header, texts, record, origins, new_block=place > 0 and block[place] != block[place - 1])
        for place, (texts, record) in enumerate(zip(table.display.itertuples(index=False), records, strict=True))
    )
    found = {kind: sorted({getattr(row, kind) for row in rows} - {""}) for kind in ("protocol", "model")}
    files = (run_dir / "tables" / f"{table.name}.{ending}" for ending in ("csv", "md", "tex"))
    return View(
        name=table.name,
        title=table.title,
        warnings=tuple(note for note in table.notes if is_warning(note)),
        notes=tuple(note for note in table.notes if note not in common),
        headings=tuple((heading, heading in table.numbers) for heading in headings),
        header=header,
        rows=rows,
        files=tuple(relative_link(run_dir, path) for path in files if path.is_file()),
        choices=tuple(
            (kind, tuple(names)) for kind, names in found.items() if len(names) > 1 and len(rows) > LONG_TABLE
        ),
        filtered=len(rows) > LONG_TABLE,
    )


def _row(
    table: Table,
    headings: list[str],
    header: int,
    texts: Any,
    record: dict[str, Any],
    origins: Mapping[tuple[str, str], Origin],
    *,
    new_block: bool,
) -> Row:
    protocol, cell = (str(record.get(key, "")) for key in ("protocol", "cell"))
    origin = origins.get((protocol, cell))
    cells = []
    for place, (heading, text) in enumerate(zip(headings, texts, strict=True)):
        numeric = heading in table.numbers
        value = _sort_value(heading, text, record) if numeric else None
        linked = origin and (place == header or (numeric and NUMBER.search(text)))
        status = next((word for word in STATUS_MARKS if text.startswith(word)), "")
        cells.append(
            Cell(
                text=text,
                value=value,
                href=_href(origin, heading) if linked and origin else "",
                mark=STATUS_MARKS.get(status, ""),
                status=status.replace(" ", "-"),
            )
        )
    return Row(cells=tuple(cells), protocol=protocol, model=cell.partition("/")[0], new_block=new_block)


def _href(origin: Origin, heading: str) -> str:
    """Return the place of the metric of this heading, where the cell has a row of it, else that of the cell."""
    names = {metric.heading: name for name, metric in METRICS.items()}
    metric = names.get(heading, "")
    known = metric in {name for name, _, _ in origin.metrics}
    return f"#{origin.anchor}-{metric}" if known else f"#{origin.anchor}"


def _sort_value(heading: str, text: str, record: dict[str, Any]) -> float | None:
    named = heading.lower().replace(" ", "_")
    for column in (*SORTED_BY.get(heading, ()), named):
        if isinstance(value := record.get(column), int | float):
            return None if math.isnan(value) else float(value)
    found = NUMBER.search(text)
    return float(found[0].replace("−", "-")) if found else None
