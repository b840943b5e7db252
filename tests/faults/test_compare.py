"""The judge of the campaign sees what it is there to see."""

import os
import shutil
from pathlib import Path

import pytest

from bench.store import FILES

from .compare import differences, finished_cells, finished_files, lost

ROWS = "metric,value,low,high,n\nauc,0.5,,,9\nwall_s,{seconds},,,9\n"
CELL = "cells/paper/0/model3/cnn17"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    (folder / CELL).mkdir(parents=True)
    for name in FILES:
        (folder / CELL / name).touch()
    (folder / CELL / "rows.csv").write_text(ROWS.format(seconds=1.5), encoding="utf-8")
    (folder / "tables").mkdir()
    (folder / "tables" / "table2.csv").write_text("0.5", encoding="utf-8")
    return folder


@pytest.fixture
def trial(whole: Path) -> Path:
    return Path(shutil.copytree(whole, whole.with_name("trial")))


def test_seconds_may_differ_and_nothing_else(whole: Path, trial: Path) -> None:
    rows = trial / CELL / "rows.csv"
    rows.write_text(ROWS.format(seconds=7.25), encoding="utf-8")
    assert differences(whole, trial, measured=False) == []
    rows.write_text(ROWS.format(seconds=7.25).replace("0.5", "0.6"), encoding="utf-8")
    assert differences(whole, trial, measured=False) == [f"{CELL}/rows.csv differs"]


def test_a_changed_table_and_files_too_few_or_too_many_are_seen(whole: Path, trial: Path) -> None:
    (trial / "tables" / "table2.csv").write_text("0.6", encoding="utf-8")
    (trial / ".run.json.17.partial").touch()
    (trial / "cells" / ".x.replaced").mkdir()
    shutil.rmtree(trial / CELL)
    assert differences(whole, trial, measured=False) == [
        f"{CELL}/ is missing",
        *(f"{CELL}/{name} is missing" for name in sorted(FILES)),
        ".run.json.17.partial is left over",
        "cells/.x.replaced/ is left over",
        "tables/table2.csv differs",
    ]


@pytest.mark.parametrize("fault", ["gone", "changed", "written again"])
def test_a_finished_cell_that_is_not_left_alone_is_lost(trial: Path, fault: str) -> None:
    before, rows = finished_files(trial), trial / CELL / "rows.csv"
    assert finished_cells(before) == {CELL}
    assert lost(before, finished_files(trial)) == (0, [])
    if fault == "gone":
        rows.unlink()
    elif fault == "changed":
        rows.write_text(ROWS, encoding="utf-8")
    else:
        os.utime(rows, ns=(1, 1))
    count, lines = lost(before, finished_files(trial))
    assert count == 1
    assert f"{CELL}/rows.csv was finished before and is {'gone' if fault == 'gone' else 'changed'}" in lines


def test_a_cell_that_failed_may_be_written_again(trial: Path) -> None:
    (trial / CELL / "model.safetensors").unlink()
    assert finished_files(trial) == {}
