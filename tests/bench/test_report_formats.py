"""The tables as csv, md and tex and in the terminal: hostile text, numbers, widths."""

import csv
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_rows import failed, printed, tables_of, write_cell, write_run

from bench.report import Table, write_table, write_tables
from bench.report.formats import to_csv, to_latex, to_markdown
from bench.report.layout import compared, difference, number
from fusion.errors import UserError
from fusion.text import one_line

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "a | b",
    "<script>alert(1)</script>",
    r"\input{x} 100% of $x_1$ & #2 {~^}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07done",
    "line one\nline two\r\n\ttabbed",
    "[bold]markup[/bold] [/nonsense]",
    "* starred ![x](http://example.org)",
    "\u202eright to left\u0000nul \ud800".encode("utf-8", "ignore").decode(),
    "long " * 100,
]


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_hostile_reason_stays_text_in_every_format(tmp_path: Path, reason: str) -> None:
    folder = write_run(tmp_path, cells=["model1/resnet50+svm", "model1/resnet50+nb"])
    write_cell(folder, "model1/resnet50+svm", failed(reason))
    table = write_tables(folder)["table2"]
    written = {
        ending: (folder / "tables" / f"table2.{ending}").read_bytes().decode() for ending in ("csv", "md", "tex")
    }
    assert not any(re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", text) for text in written.values())

    kept = pd.read_csv(io.StringIO(written["csv"]))
    assert len(kept) == 2
    assert not str(kept.loc[1, "reason"]).startswith(("=", "+", "-", "@"))

    rows = [line for line in written["md"].splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(table.display.columns) + 1}
    assert "<" not in written["md"]

    body = re.sub(r"\\[&%$#_{}\\]", "", "\n".join(written["tex"].splitlines()[1:]))
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    assert r"\input" not in body
    assert "#" not in body
    assert "%" not in body

    text = printed(table, 160)
    assert "\x1b" not in text
    assert "resnet50+svm" in text


def test_special_characters_are_escaped_in_their_own_way() -> None:
    text = r"\input{x} 100% $x_1$ & #2 ~^ <b> a|b [c] *d* −1"
    display = pd.DataFrame({"A": [text]})
    table = Table(name="t", title="T", notes=(), frame=display, display=display)
    assert (
        r"\textbackslash{}input\{x\} 100\% \$x\_1\$ \& \#2 \textasciitilde{}\textasciicircum{} "
        r"\textless{}b\textgreater{} a\textbar{}b {[}c] {*}d{*} $-$1 \\"
    ) in to_latex(table)
    assert r"| \\input{x} 100% $x_1$ &amp; #2 ~^ &lt;b&gt; a\|b \[c\] \*d\* −1 |" in to_markdown(table)


def test_csv_defuses_text_and_leaves_numbers_alone() -> None:
    frame = pd.DataFrame({"text": ["=1+1", "+1", "-1", "@x", "\tx", "\rx", 'a "b", c'], "number": [-0.5] * 7})
    table = Table(name="t", title="T", notes=(), frame=frame, display=frame.astype(str))
    text = to_csv(table)
    assert text.count("\r\n") == 8
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", 'a "b", c']
    assert {row[1] for row in rows[1:]} == {"-0.5"}


def test_csv_read_back_has_the_numbers(scored_run: Path) -> None:
    for name, table in write_tables(scored_run).items():
        back = pd.read_csv(scored_run / "tables" / f"{name}.csv")
        kept = table.frame if table.every is None else table.every
        assert list(back) == list(kept) == list(table.frame)
        for column in kept.select_dtypes("number"):
            assert pd.api.types.is_numeric_dtype(back[column])
            assert np.allclose(back[column], kept[column].astype(float), rtol=1e-9, equal_nan=True)


def test_long_reasons_are_cut_for_people_and_kept_for_programs(tmp_path: Path) -> None:
    folder = write_run(tmp_path, cells=["model1/resnet50+svm"])
    write_cell(folder, "model1/resnet50+svm", failed("long " * 100))
    table = tables_of(folder)["table2"]
    assert len(table.frame["reason"].iloc[0]) == 499
    assert max(len(note) for note in table.notes if note.startswith("failed")) < 170
    assert len(one_line("x" * 500, 120)) == 120


def test_numbers_as_printed() -> None:
    assert compared(0.701, 0.783, 3) == "0.701 / 0.783 (−0.082)"
    assert compared(0.701, math.nan, 3) == "0.701 / –"
    assert compared(math.nan, 0.5, 3) == "– / 0.500"
    assert compared("undefined", 0.783, 3) == "undefined / 0.783"
    assert difference(0.7004, 0.7, 3) == number(-0.0001, 3) == "0.000"
    assert difference(0.9, 0.7, 3) == "+0.200"


@pytest.mark.parametrize("width", [100, 160])
def test_the_terminal_shows_every_row(scored_run: Path, width: int) -> None:
    for table in tables_of(scored_run).values():
        lines = printed(table, width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) > len(table.display)


def test_a_folder_that_cannot_be_written_is_refused(scored_run: Path) -> None:
    (scored_run / "tables").write_text("in the way")
    with pytest.raises(UserError, match=r"can't create the folder .*tables"):
        write_tables(scored_run)


def test_writing_leaves_nothing_but_the_tables(scored_run: Path) -> None:
    table = tables_of(scored_run)["table2"]
    for _ in range(2):
        write_table(table, scored_run / "out")
    assert sorted(path.name for path in (scored_run / "out").iterdir()) == ["table2.csv", "table2.md", "table2.tex"]
