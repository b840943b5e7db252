"""The command that examines the paper: ``audit``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli_common import print_next


def audit(
    tables: Annotated[
        Path | None, typer.Option(help="Folder for the tables as csv, Markdown and LaTeX.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="File for the summary and all rows of the tables.", show_default=False)
    ] = None,
) -> None:
    """Examine the paper's printed tables: what they imply, and where they contradict themselves.

    Every row of Tables 2 to 4 is held against all confusion matrices of the stated test set, under four readings:
    which class is positive, and whether the matrix was transposed (sensitivity and ppv, specificity and npv exchanged).
    Where a reading is established, 'report' compares our scores with the paper's in that reading.

    The text, the sums of Table 1, the sizes of Table 5 and Table 6 are held against the other tables. mlscorecheck is
    asked the same question as an independent witness. No data, no run and no GPU are needed.
    """
    from bench.audit import printed_scores
    from bench.audit_witness import witness
    from bench.report import audit_summary, audit_tables, terminal_table, write_table
    from bench.report.audit import paper_audit, witness_table
    from fusion.files import write_json

    console = Console()
    found = audit_tables()
    evidence, _ = paper_audit()
    agreement = witness_table(witness(printed_scores(), evidence))
    found[agreement.name] = agreement
    for table in found.values():
        console.print(terminal_table(table))
    for sentence in audit_summary():
        console.print(f"- {sentence}", markup=False, highlight=False)
    if tables:
        for table in found.values():
            write_table(table, tables)
    if json:
        frames = {name: table.frame.astype(object).where(table.frame.notna(), None) for name, table in found.items()}
        rows = {name: frame.to_dict("records") for name, frame in frames.items()}
        write_json(json, {"summary": audit_summary(), "tables": rows})
    if tables or json:
        print_next(f"open {tables / 'audit_verdicts.md' if tables else json}")
