"""Any text in a table stays text: in a spreadsheet, in LaTeX, in Markdown and on a terminal."""

import csv
import io
import re
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.progress import ProgressBars, say
from bench.report.formats import terminal_table, to_csv, to_latex, to_markdown
from bench.report.layout import Table
from fusion.text import no_formula, one_line

NASTY = st.sampled_from(
    [
        *("=1+1", " =1+1", "\n=1", "\t=1", "＝1", "@a", "+1", "-1", "|a", "%0A=1", "\0=1", '";=1', "\u00a0=1"),
        *("\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202ea\u2066", "\x1b]8;;http://a\x1b\\", "\r", "\b", "\x7f"),
        *("\\input{/etc/passwd}", "%", "^^M", "{", "}", "$", "&", "#", "_", "~", "\\", '"', "[", "*", "|", "`", "<b>"),
    ]
)
TEXT = st.lists(NASTY | st.text(max_size=8), max_size=5).map("".join)
fast = settings(derandomize=True, deadline=None, max_examples=150)


def table(text: str) -> Table:
    frame = pd.DataFrame({"name": [text, "b"], "value": [1.5, -2.0]})
    display = pd.DataFrame({"Name": [text, "b"], "Value": ["1.5", "−2"]})
    return Table(name="t", title=text, notes=(text,), frame=frame, display=display)


def is_shown(text: str) -> bool:
    return not any(unicodedata.category(letter)[0] == "C" for letter in text.replace("\n", ""))


@fast
@given(TEXT.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(table(text)), newline="")))
    assert [len(row) for row in rows] == [2, 2, 2]
    cell = rows[1][0]
    assert cell in (text, f"'{text}")
    assert unicodedata.normalize("NFKC", cell).strip()[:1] not in {"=", "+", "-", "@"}
    assert rows[2] == ["b", "-2.0"]


@pytest.mark.parametrize("text", ["a=1", "model1/resnet50+svm", "0.5", "", "−1", "é"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert no_formula(text) == text
    assert no_formula(-1.5) == -1.5


@fast
@given(TEXT)
def test_latex_has_no_command_of_a_text(text: str) -> None:
    line = next(line for line in to_latex(table(text)).splitlines() if line.startswith(r"\caption"))
    inner = line.removeprefix(r"\caption{").removesuffix("}")
    known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots|textdagger)\{\}"
    rest = re.sub(rf"{known}|\$\\?[a-zA-Z-]+\$|\{{\[\}}|\{{\*\}}|\\[&%$#_{{}}]", "", inner)
    assert not re.search(r"[\\&%$#_{}~^]", rest), rest
    assert is_shown(line)


@fast
@given(TEXT)
def test_markdown_has_no_markup_of_a_text(text: str) -> None:
    lines = to_markdown(table(text)).splitlines()
    assert len(lines) == 8
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[4])) == 3
    assert not re.search(r"[<>]", "".join(lines))


@fast
@given(TEXT)
def test_nothing_printed_is_obeyed_by_a_terminal(text: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, color_system=None, width=80)
    console.print(terminal_table(table(text)))
    bars = ProgressBars(console)
    bars.line(text)
    assert is_shown(stream.getvalue())
    assert "\n" not in one_line(text)


def test_an_error_that_quotes_a_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("fusebench: a\x1b]0;owned\x07\x1b[2Jb\r\n\u202ec\x9b1md", stderr=True)
    assert capsys.readouterr().err == "fusebench: ab cd\n"
