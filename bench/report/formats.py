"""One table written for programs (CSV), for a paper (LaTeX), for a page (Markdown) and for the terminal."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import rich.box
import rich.table
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from bench.report.layout import Table
from fusion.files import make_folder, write_text
from fusion.text import no_formula, one_line

BREAKS = re.compile(r"(?<=\w /) | (?=\()|(?<=\w/)(?=\w)|(?<=\w)(?=\+[a-z])|(?<=\d–)(?=\d)")
"""Where ``0.701 / 0.783 (−0.082)``, ``0.701 (0.65–0.75)`` and ``model1/resnet50+svm`` may go on in the next line."""

MARKDOWN = str.maketrans(
    {"\\": "\\\\", "|": "\\|", "`": "\\`", "*": "\\*", "[": "\\[", "]": "\\]", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    # a row that begins with [ or * would be read as an argument of the line break before it
    | {"[": "{[}", "*": "{*}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}
    | {
        "−": "$-$",
        "–": "--",
        "—": "---",
        "…": r"\ldots{}",
        "≥": r"$\geq$",
        "×": r"$\times$",
        "†": r"\textdagger{}",
        "Δ": r"$\Delta$",
    }
)


def to_csv(table: Table) -> str:
    """Return ``table.every``, else ``table.frame``, as RFC 4180 text.

    Text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    frame = table.frame if table.every is None else table.every
    return frame.map(no_formula).to_csv(index=False, lineterminator="\r\n")


def to_markdown(table: Table) -> str:
    """Return ``table.display`` as a GitHub Markdown table with its title above and its notes below."""
    display = table.display
    rule = ["---:" if column in table.numbers else ":---" for column in display.columns]
    lines = [_markdown_row([_markdown(str(column)) for column in display.columns]), _markdown_row(rule)]
    lines += [_markdown_row([_markdown(cell) for cell in row]) for row in display.itertuples(index=False)]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{_markdown(table.title)}**", "", *lines, "", *notes, ""])


def to_latex(table: Table) -> str:
    """Return ``table.display`` as a LaTeX ``table`` with booktabs rules, its title as caption, its notes below."""
    display = table.display
    align = "".join("r" if column in table.numbers else "l" for column in display.columns)
    rows = []
    for row, rule_below in zip(display.itertuples(index=False), _block_ends(table), strict=True):
        rows.append(_latex_row([_latex(cell) for cell in row]))
        rows += [r"\midrule"] if rule_below else []
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,adjustbox}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\begin{adjustbox}{max width=\textwidth}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            _latex_row([_latex(str(column)) for column in display.columns]),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\par\smallskip\footnotesize\raggedright",
            *(rf"{_latex(note)}\par" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def terminal_table(table: Table) -> RenderableType:
    """Return ``table.display`` for a rich console; no text of a cell is read as markup.

    Where the console has no room for all of it, only the table's ``brief`` columns are shown, and where it names none,
    comparisons, intervals and cell names are broken into lines.
    """
    return _Fitted(table)


@dataclass(frozen=True)
class _Fitted:
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(self.table.display.columns)
        if _width(self.table, columns) <= options.max_width:
            shown = columns
        else:
            shown = [column for column in columns if column in self.table.brief] or columns
        varied = [
            column for column in columns if column != self.table.block or self.table.display[column].nunique() > 1
        ]
        hidden = ", ".join(column for column in varied if column not in shown)
        yield Text(one_line(self.table.title), style="bold")
        yield _grid(self.table, shown, broken=_width(self.table, shown) > options.max_width)
        for note in (*self.table.notes, *([f"no room here for {hidden}: see {self.table.name}.md"] if hidden else [])):
            yield Text(f"- {one_line(note)}")
        yield Text()


def _width(table: Table, columns: list[str]) -> int:
    """Return how many characters wide the table is when no cell is broken; a blank stands on each side of a column."""
    return 1 + sum(max(len(column), *map(len, table.display[column]), 0) + 1 for column in columns)


def _grid(table: Table, columns: list[str], *, broken: bool) -> rich.table.Table:
    view = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 0, 0, 0),
        pad_edge=False,
    )
    shown = table.display[columns]
    for column in columns:
        is_number = column in table.numbers
        view.add_column(Text(str(column)), justify="right" if is_number else "left", overflow="fold")
    for row, rule_below in zip(shown.itertuples(index=False), _block_ends(table), strict=True):
        cells = [one_line(cell) for cell in row]
        view.add_row(*(Text(BREAKS.sub("\n", cell) if broken else cell) for cell in cells), end_section=rule_below)
    return view


FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
"""File ending -> how it is written."""


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write ``table`` to ``folder/<name>.csv``, ``.md`` and ``.tex`` and return these.

    A reader sees the old file or the whole new one.

    Raises:
        UserError: ``folder`` cannot be made or written.
    """
    make_folder(folder)
    files = {folder / f"{table.name}.{ending}": text_of for ending, text_of in FORMATS.items()}
    for file, text_of in files.items():
        write_text(file, text_of(table))
    return list(files)


def _block_ends(table: Table) -> list[bool]:
    """Return for each row whether the block it belongs to ends with it; the last row's block ends with the table."""
    if not table.block:
        return [False] * len(table.display)
    block = list(table.display[table.block])
    return [here != below for here, below in zip(block, block[1:] + block[-1:], strict=True)]


def _markdown(text: str) -> str:
    return one_line(text).translate(MARKDOWN)


def _latex(text: str) -> str:
    return one_line(text).translate(LATEX)


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_row(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"
