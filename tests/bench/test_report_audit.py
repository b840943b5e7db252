"""The audit as tables and sentences, the command that shows it, and the paper's values in our own tables."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_rows import PAPER, PAPER_CELLS, printed, row_of, scores, shown_in, tables_of, write_cell, write_run

from bench.audit import COLUMNS
from bench.report import Table, audit_summary, audit_tables
from bench.report.audit import paper_audit, witness_table

Call = Callable[..., tuple[int, str, str]]
NAMES = [
    *("audit_verdicts", "audit_residuals", "audit_accuracy", "audit_text"),
    *("audit_table1", "audit_table3", "audit_table5", "audit_table6"),
]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return audit_tables()


def test_there_is_a_table_per_finding(tables: dict[str, Table]) -> None:
    assert list(tables) == NAMES
    for table in tables.values():
        assert len(table.frame) == len(table.display) > 0
        assert all(isinstance(cell, str) for row in table.display.itertuples(index=False) for cell in row)
        assert set(table.brief) <= set(table.display.columns)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_fits_a_terminal_of_80_columns(tables: dict[str, Table], name: str) -> None:
    rows = len(tables[name].display)
    lines = printed(tables[name], 80).splitlines()
    assert max(map(len, lines)) <= 80
    first = next(place for place, line in enumerate(lines) if "──" in line)
    last = next(place for place, line in enumerate(lines) if line.startswith("- "))
    body = [line for line in lines[first + 1 : last] if line.strip()]
    assert len(body) == rows  # no row is broken into two lines


def test_verdicts_name_reading_counts_and_residual(tables: dict[str, Table]) -> None:
    table = tables["audit_verdicts"]
    assert list(table.frame["cell"]) == [cell for cell in PAPER_CELLS if cell.startswith("model")]
    shown = shown_in(table, "model1/inception_v3+nb")
    assert list(shown[["Best", "TP", "FN", "FP", "TN", "Fits"]]) == ["D", "344", "144", "244", "322", "D"]
    assert float(shown["Residual"]) <= 0.0005
    assert shown_in(table, "model2/resnet50+adam")["Fits"] == "none"
    assert shown_in(table, "model3/cnn17+e30+b32")["Fits"] == "none, any size"
    assert shown_in(table, "model1/resnet50+svm")["Fits"] == "C or D"


def test_residuals_and_accuracies_are_marked_where_rounding_explains_them(tables: dict[str, Table]) -> None:
    evidence, _ = paper_audit()
    shown = tables["audit_residuals"].display
    assert sum(cell.endswith("*") for key in "ABCD" for cell in shown[key]) == (evidence["matrices"] > 0).sum() == 10
    shown = tables["audit_accuracy"].display
    assert [sum(cell.endswith("*") for cell in shown[key]) for key in "ABCD"] == [2, 1, 4, 30]
    wide = tables["audit_residuals"].frame.set_index("cell")
    assert wide.loc["model1/inception_v3+nb", "matrices_D"] == 7


def test_the_summary_says_it_in_plain_words() -> None:
    text = "\n".join(audit_summary())
    for fact in (
        "7 of 34 rows of Tables 2 to 4 have a confusion matrix among all those of 473 to 493 malignant and 550 to 570",
        "Table 2: reading D, positive benign, transposed, is established",
        "Table 3: reading D, positive benign, transposed, is established",
        "in 15 of 15 rows accuracy is the mean of its two recalls weighted by class sizes (under any other in 4 at",
        "sensitivity under npv, specificity under ppv, ppv under specificity, npv under sensitivity",
        "Table 4: no reading is established. 4 of 4 rows have no confusion matrix, 4 of them for no test set of any",
        "0.780 against 0.769",
        "Table 1: 13 of 13 claims agree.",
        "EfficientNetB0 + SGDM is 7.4 times the computed size",
        "Table 6: accuracy 0.943 on fused images lies outside Table 4's 0.946 to 0.964",
    ):
        assert fact in text


# -- the command -----------------------------------------------------------------------------------------------------


def test_audit_prints_and_writes_what_it_found(call: Call, tmp_path: Path) -> None:
    code, out, err = call("audit", "--json", str(tmp_path / "audit.json"), "--tables", str(tmp_path / "tables"))
    assert (code, err) == (0, "")
    flat = re.sub(r"\s+", " ", out)
    assert all(sentence in flat for sentence in audit_summary())
    written = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert written["summary"] == audit_summary()
    assert list(written["tables"]) == sorted([*NAMES, "audit_witness"])
    assert len(written["tables"]["audit_verdicts"]) == 34
    (batches,) = (line for line in written["tables"]["audit_text"] if line["claim"] == "Model 3: batch sizes")
    assert batches["difference"] is None
    with (tmp_path / "tables" / "audit_verdicts.csv").open(encoding="utf-8", newline="") as lines:
        rows = {row["cell"]: row for row in csv.DictReader(lines)}
    assert rows["model1/inception_v3+nb"]["verdict"] == "one reading"
    assert {path.suffix for path in (tmp_path / "tables").iterdir()} == {".csv", ".md", ".tex"}
    assert [sum(line[name] for line in written["tables"]["audit_witness"]) for name in ("both_fit", "none_fits")] == [
        10,
        125,
    ]


def test_audit_into_a_place_that_cannot_be_written_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, _, err = call("audit", "--tables", str(tmp_path / "file" / "tables"))
    assert code == 2
    assert err.startswith("fusebench: can't")


def test_a_witness_who_disagrees_is_named() -> None:
    evidence, _ = paper_audit()
    answers = evidence[["cell", "reading", "residual"]].assign(ours=False, mlscorecheck=False)
    assert witness_table(answers).notes == ()
    answers.loc[3, "mlscorecheck"] = True
    table = witness_table(answers)
    assert table.frame["only_its"].tolist() == [0, 0, 0, 1]
    assert table.notes == (
        "model1/efficientnet_b0+lr, reading D: only mlscorecheck finds a matrix; its residual is 0.008737",
    )


# -- our own tables --------------------------------------------------------------------------------------------------

READ = {"sensitivity": "npv", "specificity": "ppv", "ppv": "specificity", "npv": "sensitivity"}


def test_our_scores_stand_beside_the_papers_in_the_established_reading(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    cell, last = "model1/efficientnet_b0+svm", "model3/cnn17+e25+b32"
    for name in (cell, last):
        write_cell(run_dir, name, scores(0.9))
    made = tables_of(run_dir)
    row = row_of(made["table2"], cell)
    for metric in COLUMNS:
        assert row[f"{metric}_paper"] == PAPER[cell, READ[metric]]
        assert row[f"{metric}_printed"] == PAPER[cell, metric]
        assert row[f"{metric}_difference"] == pytest.approx(0.9 - PAPER[cell, READ[metric]])
    assert (row["accuracy_paper"], row["kappa_paper"], row["reading"]) == (0.769, 0.534, "D")
    assert shown_in(made["table2"], cell)["Sens."] == "0.900 / 0.743 (+0.157)"
    as_printed = row_of(made["table4"], last)
    assert [as_printed[f"{metric}_paper"] for metric in COLUMNS] == [PAPER[last, metric] for metric in COLUMNS]
    assert as_printed["reading"] == "as printed"


def test_a_note_says_how_the_papers_columns_are_read(tmp_path: Path) -> None:
    made = tables_of(write_run(tmp_path / "run"))
    for name in ("table2", "table3"):
        (note,) = (note for note in made[name].notes if "columns" in note)
        assert note == (
            "the paper's columns are read as positive benign, transposed: beside our Sens. its NPV, beside our Spec. "
            "its PPV, beside our PPV its Spec., beside our NPV its Sens. stands; see 'fusebench audit'"
        )
    (note,) = (note for note in made["table4"].notes if "columns" in note)
    assert note.startswith("the paper's columns are compared as printed")
