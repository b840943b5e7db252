import csv
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.paper import SCORES, paper_metrics
from bench.report import (
    Table,
    build_tables,
    prepared_table,
    read_measurements,
    read_rows,
    read_run,
    write_report,
    write_table,
)
from bench.report.formats import terminal_table, to_csv, to_latex, to_markdown
from bench.report.layout import METRICS, compared, difference, number, one_line
from bench.store import ROW_COLUMNS
from fusion.errors import UserError

PAPER = {(row["cell"], row["metric"]): row["value"] for row in paper_metrics().to_dict("records")}
CELLS = list(dict.fromkeys(cell for cell, _ in PAPER))
TABLES = ["table1", "table2", "table3", "table4", "table5", "table6", "engines", "leaderboard"]
DATA_HASH = "0123456789abcdef"
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


def counts() -> list[dict[str, object]]:
    numbers = {
        ("rsna", "mammography"): ((1200, 1200), (1158, 1158)),
        ("busi", "ultrasound"): ((437, 1311), (210, 840)),
        ("oasbud", "ultrasound"): ((96, 288), (104, 416)),
    }
    return [
        {"source": source, "modality": modality, "label": label, "images": images, "copies": copies}
        for (source, modality), pairs in numbers.items()
        for label, (images, copies) in enumerate(pairs)
    ]


def run_json(**changes: object) -> dict[str, object]:
    data = {"data_hash": DATA_HASH, "image_size": 300, "synthetic_sources": [], "counts": counts()}
    run: dict[str, object] = {
        "matrix": {"name": "paper"},
        "cells": CELLS,
        "protocols": ["paper"],
        "seeds": [0],
        "weights": "imagenet",
        "data": data | changes.pop("data", {}),  # type: ignore[operator]
    }
    return run | changes


def write_cell(run_dir: Path, cell: str, rows: list[dict[str, object]], protocol: str = "paper", seed: int = 0) -> Path:
    common = {"cell": cell, "protocol": protocol, "seed": seed, "status": "done", "unit": "1", "n": 100}
    common |= {"weights": "imagenet", "data_hash": DATA_HASH}
    path = run_dir / "cells" / protocol / str(seed) / cell / "rows.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([common | row for row in rows], columns=list(ROW_COLUMNS)).to_csv(path, index=False)
    return path


def scores(value: float, **changes: float) -> list[dict[str, object]]:
    values = dict.fromkeys(METRICS, value) | changes
    rows: list[dict[str, object]] = [{"metric": metric, "value": number} for metric, number in values.items()]
    rows[list(values).index("accuracy")] |= {"low": value - 0.05, "high": value + 0.05}
    return [*rows, {"metric": "wall_s", "value": 12.5, "unit": "s"}]


def failed(reason: str) -> list[dict[str, object]]:
    return [{"status": "failed", "metric": "", "n": 0, "reason": reason}]


def write_run(run_dir: Path, **changes: object) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run.json").write_text(json.dumps(run_json(**changes)), encoding="utf-8")
    return run_dir


def tables_of(run_dir: Path) -> dict[str, Table]:
    return build_tables(read_run(run_dir), read_rows(run_dir), read_measurements(run_dir))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of all cells, one of which failed and one of which was not run."""
    folder = write_run(tmp_path / "run")
    for place, cell in enumerate(CELLS[:-1]):
        write_cell(folder, cell, scores(0.9 - place / 100))
    write_cell(folder, "model2/resnet50+sgdm", failed("out of memory"))
    write_cell(folder, "model1/resnet50+nb", scores(0.6, ppv=math.nan))
    return folder


def row_of(table: Table, cell: str) -> pd.Series:
    return table.frame.set_index("cell").loc[cell]


def shown_in(table: Table, cell: str) -> pd.Series:
    return table.display.iloc[list(table.frame["cell"]).index(cell)]


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_every_table_is_built_and_written(run_dir: Path) -> None:
    tables = write_report(run_dir)
    assert list(tables) == TABLES
    assert sorted(path.name for path in (run_dir / "tables").iterdir()) == sorted(
        f"{name}.{ending}" for name in TABLES for ending in ("csv", "md", "tex")
    )
    for table in tables.values():
        assert len(table.frame) == len(table.display)
        assert all(isinstance(cell, str) for row in table.display.itertuples(index=False) for cell in row)


def test_score_tables_keep_the_papers_order_and_hold_its_numbers_beside_ours(run_dir: Path) -> None:
    tables = tables_of(run_dir)
    for name, model, rows in (("table2", "model1", 15), ("table3", "model2", 15), ("table4", "model3", 4)):
        frame = tables[name].frame
        assert list(frame["cell"]) == [cell for cell in CELLS if cell.startswith(model)]
        assert len(frame) == rows
        for metric in SCORES:
            assert list(frame[f"{metric}_paper"]) == [PAPER[cell, metric] for cell in frame["cell"]]
    best = row_of(tables["table2"], "model1/efficientnet_b0+lr")
    assert best["accuracy_ours"] == 0.9
    assert best["accuracy_difference"] == pytest.approx(0.9 - 0.713)
    assert list(shown_in(tables["table2"], "model1/efficientnet_b0+lr"))[:4] == [
        "paper",
        "EfficientNetB0",
        "LR",
        "0.900 / 0.783 (+0.117)",
    ]
    assert list(shown_in(tables["table4"], "model3/cnn17+e25+b64"))[1:3] == ["25", "64"]


def test_table1_counts_sources_classes_and_totals(run_dir: Path) -> None:
    extra = {"source": "mine", "modality": "other", "label": 1, "images": 5, "copies": 5}
    rows, measured = read_rows(run_dir), read_measurements(run_dir)
    plain = build_tables(run_json(), rows, measured)["table1"].frame.set_index(["source", "label"])
    assert plain.loc[("total", "benign"), "augmented_ours"] == plain.loc[("total", "benign"), "augmented_paper"] == 2799
    assert plain.loc[("total", "malignant"), "augmented_ours"] == 2414
    assert plain.loc[("total", "both"), "original_ours"] == 3205
    assert (plain["original_difference"] == 0).all()
    more = build_tables(run_json(data={"counts": [*counts()[2:], extra]}), rows, measured)["table1"]
    frame = more.frame.set_index(["source", "label"])
    assert math.isnan(frame.loc[("mine", "malignant"), "original_paper"])
    assert math.isnan(frame.loc[("rsna", "benign"), "original_ours"])
    assert frame.loc[("total", "malignant"), "original_ours"] == 210 + 104 + 5
    assert list(more.display.loc[more.display["Source"] == "mine", "Images"]) == ["5 / –"]
    assert list(more.display.loc[more.display["Source"] == "rsna", "Images"]) == ["– / 1200", "– / 1158"]


def test_a_prepared_data_set_has_table1_before_any_run(run_dir: Path) -> None:
    table = prepared_table(counts(), ["rsna", "busi"])
    assert table.notes[0] == "phantom data: busi, rsna — synthetic images, not patients"
    assert table.display.equals(tables_of(run_dir)["table1"].display)


def test_table6_keeps_the_literature_and_compares_the_ablation(run_dir: Path) -> None:
    table = tables_of(run_dir)["table6"]
    assert len(table.frame) == 9
    assert list(table.display["Authors"])[:2] == ["Jabeen K et al.", "Byra M et al."]
    ultrasound = row_of(table, "ablation/cnn17+ultrasound")
    assert (ultrasound["sample_size_ours"], ultrasound["sample_size_paper"]) == (847, 847)
    assert ultrasound["accuracy_paper"] == 0.998
    assert shown_in(table, "ablation/cnn17+fused").iloc[-1] == "not run / 0.943"


def test_leaderboard_ranks_by_accuracy_and_leaves_the_unfinished_unranked_at_the_bottom(run_dir: Path) -> None:
    table = tables_of(run_dir)["leaderboard"]
    assert len(table.frame) == 34
    accuracy = table.frame["accuracy_ours"].dropna()
    assert list(accuracy) == sorted(accuracy, reverse=True)
    assert list(table.frame["rank"].dropna()) == list(range(1, 34))
    last = table.frame.iloc[-1]
    assert (last["cell"], last["status"], math.isnan(last["rank"])) == ("model2/resnet50+sgdm", "failed", True)
    first = table.display.iloc[0]
    assert (first["Rank"], first["Acc."], first["n"]) == ("1", "0.900 (0.850–0.950)", "100")


def test_ties_are_ordered_by_auc_then_name(tmp_path: Path) -> None:
    names = ["model1/b+lr", "model1/a+lr", "model1/c+lr", "model1/d+lr"]
    folder = write_run(tmp_path, cells=names)
    for cell, auc in zip(names, (0.5, 0.5, 0.7, math.nan), strict=True):
        write_cell(folder, cell, scores(0.8, auc=auc))
    table = tables_of(folder)["leaderboard"]
    assert list(table.frame["cell"]) == ["model1/c+lr", "model1/a+lr", "model1/b+lr", "model1/d+lr"]
    assert table.display["AUC"].iloc[-1] == "undefined"


def test_two_protocols_are_two_blocks_and_two_seeds_are_averaged(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], protocols=["paper", "clean"], seeds=[0, 1])
    for protocol, values in (("paper", (0.8, 0.9)), ("clean", (0.6, 0.7))):
        for seed, value in enumerate(values):
            write_cell(folder, cell, scores(value), protocol, seed)
    tables = tables_of(folder)
    frame = tables["table2"].frame
    assert list(frame["protocol"]) == ["paper", "clean"]
    assert list(frame["accuracy_ours"]) == pytest.approx([0.85, 0.65])
    assert list(frame["seeds"]) == [2, 2]
    assert list(tables["leaderboard"].frame["accuracy_sd"]) == pytest.approx([np.std([0.8, 0.9], ddof=1)] * 2)
    assert list(tables["leaderboard"].frame["rank"]) == [1, 1]
    assert to_latex(tables["table2"]).count(r"\midrule") == 2


# -- what is missing -------------------------------------------------------------------------------------------------


def test_failed_missing_and_undefined_cells_remain(run_dir: Path) -> None:
    tables = tables_of(run_dir)
    lost = row_of(tables["table3"], "model2/resnet50+sgdm")
    assert (lost["status"], lost["reason"], lost["seeds"]) == ("failed", "out of memory", 0)
    assert math.isnan(lost["accuracy_ours"])
    assert shown_in(tables["table3"], "model2/resnet50+sgdm")["Acc."] == "failed / 0.612"
    assert "failed (out of memory): model2/resnet50+sgdm [paper]" in tables["table3"].notes
    assert row_of(tables["table6"], "ablation/cnn17+fused")["status"] == "not run"
    undefined = shown_in(tables["table2"], "model1/resnet50+nb")
    assert (undefined["PPV"], undefined["NPV"]) == ("undefined / 0.544", "0.600 / 0.701 (−0.101)")


def test_a_cell_with_a_lost_seed_is_partial(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], seeds=[0, 1, 2])
    write_cell(folder, cell, scores(0.8))
    write_cell(folder, cell, failed("too bad"), seed=1)
    row = row_of(tables_of(folder)["table2"], cell)
    assert (row["status"], row["seeds"], row["accuracy_ours"]) == ("partial", 1, 0.8)
    assert row["reason"] == "seed 1 failed: too bad; seed 2 not run"


def test_a_metric_undefined_under_one_seed_has_no_mean(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], seeds=[0, 1])
    write_cell(folder, cell, scores(0.8))
    write_cell(folder, cell, scores(0.8, ppv=math.nan), seed=1)
    assert shown_in(tables_of(folder)["table2"], cell)["PPV"] == "undefined / 0.758"


def test_a_run_without_rows_or_cells_still_has_tables(tmp_path: Path) -> None:
    tables = write_report(write_run(tmp_path, cells=["model1/mine+svm"]))
    assert shown_in(tables["table2"], "model1/mine+svm")["Acc."] == "not run / –"
    assert tables["table3"].frame.empty
    assert "no cell of this table belongs to this run" in tables["table3"].notes
    assert "accuracy_ours" in (tmp_path / "tables" / "table3.csv").read_text(encoding="utf-8")


# -- honest labels ---------------------------------------------------------------------------------------------------


def test_phantoms_and_random_weights_are_named_in_every_table_and_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path, weights="random", data={"synthetic_sources": ["rsna", "busi", "oasbud"]})
    for name, table in write_report(folder).items():
        assert "phantom data: busi, oasbud, rsna — synthetic images, not patients" in table.notes
        assert "weights: random (not pre-trained): scores say nothing about the architectures" in table.notes
        assert any("malignant" in note for note in table.notes)
        assert any(note == f"300 × 300 pixels; 1 seed; data {DATA_HASH[:12]}" for note in table.notes)
        marked = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert {"weights", "synthetic_sources", "data_hash"} <= set(marked)
        for ending in ("md", "tex"):
            text = (folder / "tables" / f"{name}.{ending}").read_text(encoding="utf-8")
            assert "synthetic images" in text
            assert "not pre-trained" in text


def test_rows_made_otherwise_than_the_run_says_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    other = {"weights": "random", "synthetic_sources": "busi", "data_hash": "f" * 64}
    write_cell(folder, "model1/resnet50+svm", [row | other for row in scores(0.8)])
    notes = "\n".join(tables_of(folder)["table3"].notes)
    assert "phantom data: busi" in notes
    assert "weights: random" in notes
    assert "some rows were measured on other data (ffffffffffff)" in notes


# -- text from outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_hostile_reason_stays_text_in_every_format(tmp_path: Path, reason: str) -> None:
    folder = write_run(tmp_path, cells=["model1/resnet50+svm", "model1/resnet50+nb"])
    write_cell(folder, "model1/resnet50+svm", failed(reason))
    table = write_report(folder)["table2"]
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

    console = Console(width=160, file=io.StringIO(), color_system=None)
    console.print(terminal_table(table))
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert "resnet50+svm" in console.file.getvalue()  # type: ignore[attr-defined]


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


def test_csv_read_back_has_the_numbers(run_dir: Path) -> None:
    for name, table in write_report(run_dir).items():
        back = pd.read_csv(run_dir / "tables" / f"{name}.csv")
        assert list(back) == list(table.frame)
        for column in table.frame.select_dtypes("number"):
            assert pd.api.types.is_numeric_dtype(back[column])
            assert np.allclose(back[column], table.frame[column].astype(float), rtol=1e-9, equal_nan=True)


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
def test_the_terminal_shows_every_row(run_dir: Path, width: int) -> None:
    for table in tables_of(run_dir).values():
        console = Console(width=width, file=io.StringIO(), color_system=None)
        console.print(terminal_table(table))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= width
        assert len(lines) > len(table.display)


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(",unit,", ",units,"), "lacks unit and has the unknown units"),
        (lambda text: text.replace("metric,value", "value,metric"), "another order"),
        (lambda text: text.replace(",0.8,", ",0.8 mm,", 1), "value '0.8 mm' is not a number"),
        (lambda text: text.replace(",done,", ",perhaps,", 1), "status 'perhaps' is not one of done, failed"),
        (lambda _: "", "cannot be read as CSV"),
        (lambda text: text + '"', "cannot be read as CSV"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, damage: object, message: str) -> None:
    path = write_cell(write_run(tmp_path), "model1/resnet50+svm", scores(0.8))
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")  # type: ignore[operator]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_rows(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cell_whose_writing_was_interrupted_is_not_read(tmp_path: Path) -> None:
    write_cell(write_run(tmp_path), "model1/resnet50+svm", scores(0.8))
    write_cell(tmp_path, "model1/.resnet50+svm.partial", scores(0.1))
    rows = read_rows(tmp_path)
    assert list(rows.columns) == list(ROW_COLUMNS)
    assert set(rows["cell"]) == {"model1/resnet50+svm"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no run.json"),
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "is list, not an object"),
        ("{}", "lacks 'matrix'"),
        (json.dumps(run_json(seeds="0")), "'seeds' is str, not list"),
        (json.dumps(run_json(seeds=["0"])), "seeds: '0' is str, not int"),
        (json.dumps(run_json(data={"counts": [{}]})), "lacks 'source'"),
        (json.dumps(run_json(data={"counts": [counts()[0] | {"label": 2}]})), "label 2 is not 0 (benign) or 1"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_on_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_refused(run_dir: Path) -> None:
    (run_dir / "tables").write_text("in the way")
    with pytest.raises(UserError, match=r"can't create the folder .*tables"):
        write_report(run_dir)


def test_a_copy_of_a_cell_is_refused(run_dir: Path) -> None:
    folder = run_dir / "cells" / "paper" / "0" / "model3"
    (cell, *_) = folder.iterdir()
    shutil.copytree(cell, folder / f"{cell.name}.bak")
    with pytest.raises(UserError, match="does not belong here"):
        write_report(run_dir)


def test_a_metric_given_twice_is_refused(run_dir: Path) -> None:
    rows = run_dir / "cells" / "paper" / "0" / "model1" / "resnet50+svm" / "rows.csv"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(UserError, match="occurs twice"):
        write_report(run_dir)


def test_writing_leaves_nothing_but_the_tables(run_dir: Path) -> None:
    table = tables_of(run_dir)["table2"]
    for _ in range(2):
        write_table(table, run_dir / "out")
    assert sorted(path.name for path in (run_dir / "out").iterdir()) == ["table2.csv", "table2.md", "table2.tex"]


def test_the_readme_describes_every_column() -> None:
    readme = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    for column in ROW_COLUMNS:
        assert f"`{column}`" in readme
