import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import SafetensorError

from bench.metrics import Measured, classification_metrics
from bench.store import (
    DEFINITION,
    FILES,
    ROW_COLUMNS,
    ROWS,
    CellKey,
    definition_hash,
    done_rows,
    failed_rows,
    is_done,
    write_cell,
)
from fusion.checksums import SUMS, record
from fusion.errors import UserError

MEASURED = [
    *classification_metrics([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.6], [0, 1, 2, 3]),
    *(
        Measured(metric=name, value=1.0, unit="", low=math.nan, high=math.nan, n=4)
        for name in ("epochs", "wall_s", "setup_s", "peak_memory_mib")
    ),
]
OUTPUTS = [name for name in FILES if name not in (ROWS, DEFINITION)]


def definition_of(**changes: Any) -> dict[str, Any]:
    recipe = {"epochs": 30, "batch_size": 30}
    return {"cell": {"name": "model2/resnet50+sgdm", "recipe": recipe}, "seed": 0, "data_hash": "d" * 64} | changes


def key_of(definition: dict[str, Any], **changes: Any) -> CellKey:
    key = CellKey(
        cell="model2/resnet50+sgdm",
        protocol="paper",
        seed=0,
        weights="random",
        synthetic_sources="busi rsna",
        data_hash="d" * 64,
        config_hash=definition_hash(definition),
        environment_hash="e" * 64,
    )
    return replace(key, **changes)


DONE = definition_of()
KEY = key_of(DONE)


def write_done(out: Path, definition: dict[str, Any] = DONE, key: CellKey = KEY, text: str = "weights") -> Path:
    folder = key.folder(out)

    def write_files(to: Path) -> None:
        for name in OUTPUTS:
            (to / name).write_text(text)

    write_cell(folder, definition, done_rows(key, MEASURED), write_files)
    return folder


def write_failed(out: Path) -> Path:
    def write_trace(folder: Path) -> None:
        (folder / "error.txt").write_text("trace")

    write_cell(KEY.folder(out), DONE, failed_rows(KEY, "out of memory"), write_trace)
    return KEY.folder(out)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_finished_cell_has_one_row_per_metric_in_one_schema(tmp_path: Path) -> None:
    rows = pd.read_csv(write_done(tmp_path) / ROWS, keep_default_na=False, dtype=str)
    assert tuple(rows.columns) == ROW_COLUMNS
    assert list(rows["metric"]) == [one.metric for one in MEASURED]
    assert set(rows["status"]) == {"done"}
    assert set(rows["subset"]) == {"all"}
    assert set(rows["reason"]) == {""}
    for column, value in vars(KEY).items():
        assert set(rows[column]) == {str(value)}
    accuracy = rows.set_index("metric").loc["accuracy"]
    assert (float(accuracy["value"]), accuracy["unit"], accuracy["n"]) == (0.5, "1", "4")
    assert float(accuracy["low"]) < 0.5 < float(accuracy["high"])


def test_an_undefined_metric_is_an_empty_value() -> None:
    rows = done_rows(KEY, classification_metrics([1, 1], [0.9, 0.9], [0, 1])).set_index("metric")
    assert math.isnan(rows.loc["auc", "value"])
    assert rows.loc["auc", "status"] == "done"


def test_a_failed_cell_is_one_row_with_its_reason(tmp_path: Path) -> None:
    folder = write_failed(tmp_path)
    (row,) = pd.read_csv(folder / ROWS, keep_default_na=False, dtype=str).to_dict("records")
    assert list(row) == list(ROW_COLUMNS)
    assert (row["status"], row["reason"], row["n"]) == ("failed", "out of memory", "0")
    assert [row[column] for column in ("subset", "metric", "value", "unit", "low", "high")] == [""] * 6
    assert {column: row[column] for column in vars(KEY)} == {name: str(value) for name, value in vars(KEY).items()}


# -- finding a finished cell -----------------------------------------------------------------------------------------


def test_a_finished_cell_is_found(tmp_path: Path) -> None:
    assert not is_done(KEY, DONE, tmp_path)
    write_done(tmp_path)
    assert is_done(KEY, DONE, tmp_path)


def test_another_environment_does_not_undo_a_cell(tmp_path: Path) -> None:
    write_done(tmp_path)
    assert is_done(replace(KEY, environment_hash="f" * 64), DONE, tmp_path)


@pytest.mark.parametrize("change", [{"seed": 1}, {"protocol": "clean"}, {"cell": "model2/resnet50+adam"}])
def test_another_cell_seed_or_protocol_lies_elsewhere(tmp_path: Path, change: dict[str, Any]) -> None:
    write_done(tmp_path)
    assert not is_done(replace(KEY, **change), DONE, tmp_path)


def test_a_failed_cell_is_not_done_whatever_it_was(tmp_path: Path) -> None:
    write_failed(tmp_path)
    assert not is_done(KEY, DONE, tmp_path)
    assert not is_done(key_of(definition_of(seed=7)), definition_of(seed=7), tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data_hash": "x"}, f"data_hash: '{'d' * 64}', now 'x'"),
        (
            {"cell": {"name": "model2/resnet50+sgdm", "recipe": {"epochs": 3, "batch_size": 30}}},
            "cell.recipe.epochs: 30, now 3",
        ),
        ({"loader": "dali"}, "loader: None, now 'dali'"),
    ],
)
def test_a_changed_definition_is_never_taken_for_the_finished_one(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder = write_done(tmp_path)
    definition = definition_of(**change)
    with pytest.raises(UserError) as caught:
        is_done(key_of(definition), definition, tmp_path)
    assert str(caught.value) == (f"{folder} was made with other settings ({named}); choose another --out or delete it")


@pytest.mark.parametrize(
    "damage", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'config_hash,status\n"', b"status,config_hash\ndone\n1,2,3,4\n"]
)
def test_damaged_rows_are_refused_with_the_way_out(tmp_path: Path, damage: bytes) -> None:
    folder = write_done(tmp_path)
    (folder / ROWS).write_bytes(damage)
    with pytest.raises(UserError) as caught:
        is_done(KEY, DONE, tmp_path)
    assert f"{folder / ROWS} is damaged" in str(caught.value)
    assert f"delete the folder {folder}" in str(caught.value)


def test_rows_cut_short_are_not_done(tmp_path: Path) -> None:
    folder = write_done(tmp_path)
    header = (folder / ROWS).read_text().splitlines()[0]
    (folder / ROWS).write_text(header + "\n")
    record(folder / ROWS)
    assert not is_done(KEY, DONE, tmp_path)


# -- writing as a whole ----------------------------------------------------------------------------------------------


def test_a_cell_is_written_with_its_definition(tmp_path: Path) -> None:
    folder = write_done(tmp_path)
    assert sorted(everything(folder)) == sorted([*FILES, SUMS])
    assert json.loads((folder / DEFINITION).read_text()) == DONE
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_hash_follows_the_content_alone() -> None:
    assert definition_hash(dict(reversed(DONE.items()))) == definition_hash(DONE)
    assert definition_hash(definition_of(seed=1)) != definition_hash(DONE)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_cell_that_lacks_a_file_is_run_again(tmp_path: Path, name: str) -> None:
    (write_done(tmp_path) / name).unlink()
    assert not is_done(KEY, DONE, tmp_path)


def test_a_cell_that_lacks_a_metric_is_run_again(tmp_path: Path) -> None:
    rows = write_done(tmp_path) / ROWS
    rows.write_text("".join(line for line in rows.read_text().splitlines(keepends=True) if ",kappa," not in line))
    record(rows)
    assert not is_done(KEY, DONE, tmp_path)


def test_a_cell_of_a_version_without_subsets_is_run_again(tmp_path: Path) -> None:
    rows = write_done(tmp_path) / ROWS
    pd.read_csv(rows, dtype=str, keep_default_na=False).drop(columns="subset").to_csv(rows, index=False)
    record(rows)
    assert not is_done(KEY, DONE, tmp_path)


def test_a_metric_of_a_subset_is_none_of_all_rows(tmp_path: Path) -> None:
    rows = write_done(tmp_path) / ROWS
    rows.write_text(rows.read_text().replace(",all,kappa,", ",source=busi,kappa,"))
    record(rows)
    assert not is_done(KEY, DONE, tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_no_cell(tmp_path: Path, error: BaseException) -> None:
    def break_off(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_cell(KEY.folder(tmp_path), DONE, done_rows(KEY, MEASURED), break_off)
    assert not KEY.folder(tmp_path).exists()
    assert not is_done(KEY, DONE, tmp_path)
    write_done(tmp_path)
    assert is_done(KEY, DONE, tmp_path)
    assert [path.name for path in KEY.folder(tmp_path).parent.iterdir()] == ["resnet50+sgdm"]


def test_an_interrupted_write_leaves_the_earlier_failed_cell(tmp_path: Path) -> None:
    folder = write_failed(tmp_path)
    before = everything(folder)

    def break_off(_: Path) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_cell(folder, DONE, done_rows(KEY, MEASURED), break_off)
    assert everything(folder) == before


def test_a_failed_cell_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = write_failed(tmp_path)
    write_done(tmp_path)
    assert is_done(KEY, DONE, tmp_path)
    assert sorted(everything(folder)) == sorted([*FILES, SUMS])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    folder = KEY.folder(tmp_path)
    for name in (".resnet50+sgdm.partial", ".resnet50+sgdm.replaced"):
        (folder.parent / name).mkdir(parents=True)
        (folder.parent / name / "stale").write_text("stale")
    assert not is_done(KEY, DONE, tmp_path)
    write_done(tmp_path)
    assert "stale" not in everything(tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("in the way")
    with pytest.raises(UserError, match=r"can't create the folder .*cells.*: Not a directory"):
        write_done(tmp_path)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_refused_on_one_line(tmp_path: Path, error: Exception) -> None:
    def fill(_: Path) -> None:
        raise error

    with pytest.raises(UserError, match=r"can't write .*sgdm: .*No space left on device"):
        write_cell(KEY.folder(tmp_path), DONE, done_rows(KEY, MEASURED), fill)
    assert not KEY.folder(tmp_path).exists()
