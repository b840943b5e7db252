"""Tables and figures made from what a run has left; imports no model code."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.audit import audit_tables
from bench.report.audit_summary import audit_summary
from bench.report.composition import composition_sentences
from bench.report.data_path import data_path_tables
from bench.report.explanations import current
from bench.report.formats import terminal_table, write_table
from bench.report.layout import Table
from bench.report.predictions import prediction_table
from bench.report.read import Results, read_measurements, read_results, read_rows, read_run
from bench.report.tables import build_tables, prepared_table
from bench.store import FIGURES, PAGE, TABLES
from fusion.checksums import record
from fusion.files import clear_leftovers, sole_writer

if TYPE_CHECKING:
    from bench.report.figures import Figure

__all__ = [
    "Report",
    "Results",
    "Table",
    "audit_summary",
    "audit_tables",
    "build_tables",
    "data_path_tables",
    "prediction_table",
    "prepared_table",
    "read_measurements",
    "read_results",
    "read_rows",
    "read_run",
    "terminal_table",
    "write_report",
    "write_table",
    "write_tables",
]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written of a run."""

    tables: dict[str, Table]
    """By name."""
    figures: "list[Figure]"
    """Those left out, too."""
    page: Path
    """``index.html``."""


def write_report(run_dir: Path) -> Report:
    """Write tables, figures and page of the run in ``run_dir`` there: ``tables/``, ``figures/`` and ``index.html``.

    Raises:
        UserError: ``run_dir`` is not a run folder, one of its files is damaged, or a file cannot be written.
    """
    from bench.report.figures import write_figures  # matplotlib takes a second to come
    from bench.report.page import explanation_pictures, write_page

    results = read_results(run_dir)
    with sole_writer(run_dir / TABLES):  # a run that goes on can be reported, but by one call at a time
        for folder in (run_dir / TABLES, run_dir / FIGURES):
            clear_leftovers(folder)
        for left in run_dir.glob(f".{PAGE}.*.partial"):
            left.unlink(missing_ok=True)
        tables = _write_tables(run_dir, results)
        figures = write_figures(run_dir, results, tables)
        explained, _ = current(results)
        page = write_page(
            run_dir,
            results,
            tables | audit_tables(),
            figures,
            pictures=explanation_pictures(explained),
            said={"audit": audit_summary(), "score": composition_sentences(results)},
        )
    return Report(tables=tables, figures=figures, page=page)


def write_tables(run_dir: Path) -> dict[str, Table]:
    """Write every table of the run in ``run_dir`` to ``run_dir/tables/`` and return the tables by name.

    Raises:
        UserError: as ``write_report``.
    """
    return _write_tables(run_dir, read_results(run_dir))


def _write_tables(run_dir: Path, results: Results) -> dict[str, Table]:
    tables = build_tables(results)
    files = [file for table in tables.values() for file in write_table(table, run_dir / TABLES)]
    record(*files)
    return tables
