"""Tables made from result rows; imports no model code."""

from pathlib import Path

from bench.report.audit import audit_tables
from bench.report.audit_summary import audit_summary
from bench.report.data_path import data_path_tables
from bench.report.formats import terminal_table, write_table
from bench.report.layout import Table
from bench.report.predictions import prediction_table
from bench.report.read import Results, read_measurements, read_results, read_rows, read_run
from bench.report.tables import build_tables, prepared_table

__all__ = [
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
]


def write_report(run_dir: Path) -> dict[str, Table]:
    """Write every table of the run in ``run_dir`` to ``run_dir/tables/`` and return the tables by name.

    Raises:
        UserError: ``run_dir`` is not a run folder, one of its files is damaged, or ``tables/`` cannot be written.
    """
    tables = build_tables(read_results(run_dir))
    for table in tables.values():
        write_table(table, run_dir / "tables")
    return tables
