"""What ``fusebench verify`` found, as a table and in a sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from bench.report.layout import Table
from fusion.text import one_line

if TYPE_CHECKING:
    from bench.verify import Finding, Verified

COLUMNS = ("place", "kind", "why", "way_out")
HEADINGS = ("File or cell", "What", "Why", "Way out")
SHOWN = 100
WIDTHS = (120, 20, 160, 120)


def verification_table(findings: "Sequence[Finding]") -> Table:
    """Return a row for each finding, of which the first ``SHOWN`` are displayed."""
    lines = [[getattr(finding, column) for column in COLUMNS] for finding in findings]
    display = [[one_line(text, width) for text, width in zip(line, WIDTHS, strict=True)] for line in lines[:SHOWN]]
    more = len(lines) - len(display)
    return Table(
        name="verification",
        title="What is not as it was written.",
        notes=(f"{more} more are not shown: mend these first",) if more else (),
        frame=pd.DataFrame(lines, columns=list(COLUMNS)),
        display=pd.DataFrame(display, columns=list(HEADINGS)),
    )


def verification_sentence(verified: "Verified") -> str:
    """Return e.g. ``412 files and 34 cells checked: all well``, or how many findings there are of each kind."""
    kinds = pd.Series([finding.kind for finding in verified.findings], dtype=str).value_counts()
    cells = f" and the rows of {verified.cells} cells" if verified.cells else ""
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{verified.files} files{cells} checked: {found or 'all is as it was written'}"
