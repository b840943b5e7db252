"""A run's folder is read whole: damaged and foreign files are refused by name."""

import json
import re
import shutil
from pathlib import Path

import pytest
from report_rows import counts, run_json, scores, write_cell, write_run

from bench.report import read_rows, read_run, write_tables
from bench.store import ROW_COLUMNS
from fusion.checksums import record
from fusion.errors import UserError


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(",unit,", ",units,"), "lacks unit and has the unknown units"),
        (lambda text: text.replace("metric,value", "value,metric"), "another order"),
        (lambda text: text.replace(",0.8,", ",0.8 mm,", 1), "value '0.8 mm' is not a number"),
        (lambda text: text.replace(",0.8,", ",-inf,", 1), "value -inf of sensitivity is not within −1 and 1"),
        (lambda text: text.replace(",0.8,", ",8.0,", 1), "value 8.0 of sensitivity is not within −1 and 1"),
        (lambda text: text.replace(",done,", ",perhaps,", 1), "status 'perhaps' is not one of done, failed"),
        (lambda _: "", "cannot be read as CSV"),
        (lambda text: text + '"', "cannot be read as CSV"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, damage: object, message: str) -> None:
    path = write_cell(write_run(tmp_path), "model1/resnet50+svm", scores(0.8))
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")  # type: ignore[operator]
    record(path)
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
        (json.dumps(run_json(data={"counts": [counts()[0] | {"images": 10**400}]})), "images is not a number from 0"),
        (json.dumps(run_json(data={"synthetic_sources": [{}]})), "synthetic_sources: {} is dict, not str"),
        (json.dumps(run_json(environments=[])), "'environments' is list, not dict"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_on_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
        record(tmp_path / "run.json")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.csv", "predictions.parquet", "history.csv"])
def test_a_cell_that_was_edited_is_refused_on_one_line(scored_run: Path, name: str) -> None:
    file = scored_run / "cells" / "paper" / "0" / "model1" / "resnet50+svm" / name
    content = file.read_bytes()
    file.write_bytes(content.replace(b"0.8", b"0.9") if name == "rows.csv" else content[:-1] + b"x")
    assert file.read_bytes() != content
    with pytest.raises(UserError) as caught:
        write_tables(scored_run)
    assert str(caught.value) == (
        f"{file} is damaged: it was changed after it was written (see SHA256SUMS); "
        f"delete the folder {file.parent} to run the cell again"
    )


def test_a_run_of_an_earlier_version_is_refused_on_one_line(scored_run: Path) -> None:
    for sums in scored_run.rglob("SHA256SUMS"):
        sums.unlink()
    with pytest.raises(UserError, match="has no SHA256SUMS: an earlier version made it; run the matrix again, into"):
        write_tables(scored_run)


def test_a_copy_of_a_cell_is_refused(scored_run: Path) -> None:
    folder = scored_run / "cells" / "paper" / "0" / "model3"
    (cell, *_) = folder.iterdir()
    shutil.copytree(cell, folder / f"{cell.name}.bak")
    with pytest.raises(UserError, match="does not belong here"):
        write_tables(scored_run)


def test_a_metric_given_twice_is_refused(scored_run: Path) -> None:
    rows = scored_run / "cells" / "paper" / "0" / "model1" / "resnet50+svm" / "rows.csv"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join([*lines, lines[1]]), encoding="utf-8")
    record(rows)
    with pytest.raises(UserError, match="occurs twice"):
        write_tables(scored_run)


def test_the_readme_describes_every_column() -> None:
    readme = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    for column in ROW_COLUMNS:
        assert f"`{column}`" in readme
