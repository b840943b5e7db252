"""The tables of measurements as csv, md and tex and in the terminal: hostile text, numbers, widths."""

import io
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from measured_rows import SVM, engine, measure, refused, two_machines, write_results
from report_rows import printed, tables_of, write_run

from bench.report import Table, write_tables
from bench.report.measured import three_digits

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "a | b <script>alert(1)</script>",
    r"\input{x} 100% of $x_1$ & #2 {~^}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07done\nsecond\r\n\tline",
    "[bold]markup[/bold] [/nonsense]",
    "\u202eright to left\u0000nul",
    "long " * 100,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_in_every_format(bare_run: Path, text: str) -> None:
    environment = {"gpu": {"name": text}, "cpu": "", "cpu_cores": 1}
    rows = [*engine("pytorch-cuda", p50={1: 9.0}), refused("onnxruntime-cuda", text), refused(text, "no such engine")]
    measure(bare_run, SVM, [*rows, *engine(text, text, {1: 7.0})], environment)
    for name, table in write_tables(bare_run).items():
        if name not in ("table5", "engines", "leaderboard"):
            continue
        files = {
            ending: (bare_run / "tables" / f"{name}.{ending}").read_bytes().decode() for ending in ("csv", "md", "tex")
        }
        assert not any(re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", file) for file in files.values())
        kept = pd.read_csv(io.StringIO(files["csv"]), keep_default_na=False, dtype=str)
        assert len(kept) == len(table.frame)
        texts = kept[table.frame.columns[~table.frame.map(lambda cell: isinstance(cell, int | float)).all()]]
        assert not texts.map(lambda cell: cell.startswith(("=", "+", "-", "@"))).any(axis=None)
        lines = [line for line in files["md"].splitlines() if line.startswith("|")]
        assert len(lines) == len(table.display) + 2
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.display.columns) + 1}
        assert "<" not in files["md"]
        body = re.sub(r"\\[&%$#_{}\\]", "", "\n".join(files["tex"].splitlines()[1:]))
        assert body.count("{") == body.count("}")
        assert body.count("$") % 2 == 0
        assert not re.search(r"\\input|[#%Δ×≥]", body)
        assert "\x1b" not in printed(table, 160)


def test_a_cell_whose_name_is_hostile_stays_text(bare_run: Path) -> None:
    cell = "model1/=x|<b>\x1b[31m%+svm"
    measure(bare_run, cell, engine("pytorch-cpu", p50={1: 9.0}))
    tables = write_tables(bare_run)
    assert tables["engines"].frame["cell"].tolist() == ["model1/=x|<b>%+svm"]
    for path in (bare_run / "tables").iterdir():
        assert "\x1b" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_shows_every_row_within_its_width(bare_run: Path, width: int) -> None:
    two_machines(bare_run)
    for name in ("table5", "engines", "leaderboard"):
        table = tables_of(bare_run)[name]
        text = printed(table, width)
        lines = [line for line in text.splitlines() if not line.startswith("- ")]
        assert max(map(len, lines)) <= width
        assert len(lines) > len(table.display)
        assert "15.0" in text or name == "table5"


@pytest.mark.parametrize("protocols", [["paper"], ["paper", "clean"]])
def test_the_brief_leaderboard_fits_80_characters(bare_run: Path, protocols: list[str]) -> None:
    cell = "model2/efficientnet_b0+rmsprop"  # the longest of the matrix
    write_run(bare_run, protocols=protocols, cells=[cell])
    write_results(bare_run, cell, "c")
    measure(bare_run, cell, engine("pytorch-cpu", p50={1: 1234.0}))
    lines = printed(tables_of(bare_run)["leaderboard"], 80).splitlines()
    # all on one line: nothing had to be broken
    assert any(f"{cell} 0.900 (0.850–0.950)" in line and "0.692    1234" in line for line in lines)


def test_a_table_as_wide_as_the_terminal_is_not_broken() -> None:
    display = pd.DataFrame({"Model": ["model1/resnet50+svm"], "n": ["12"]})
    table = Table(name="t", title="T", notes=(), frame=display, display=display, brief=("n",))
    assert " model1/resnet50+svm 12 " in printed(table, 24)
    assert "model1" not in printed(table, 23)


def test_csv_has_plain_numbers(bare_run: Path) -> None:
    two_machines(bare_run)
    write_tables(bare_run)
    for name, numbers in (("engines", ("latency_p50_ms", "ratio_low", "rank")), ("table5", ("layers_ours", "macs"))):
        back = pd.read_csv(bare_run / "tables" / f"{name}.csv")
        assert all(pd.api.types.is_numeric_dtype(back[column]) for column in numbers)


def test_three_digits_are_left() -> None:
    values = (1234.5, 99.94, 9.994, 0.5, 0.01234, 0.0, math.nan, math.inf)
    assert [three_digits(value) for value in values] == [
        "1234",
        "99.9",
        "9.99",
        "0.500",
        "0.0123",
        "0.0000",
        "–",
        "inf",
    ]
