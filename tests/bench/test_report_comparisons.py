"""Places are shared, and nothing is called better without a test."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_rows import row_of, scores, shown_in, tables_of, write_cell, write_run

from bench.metrics import decide, subset_metrics
from fusion.checksums import record

MODALITY, ABLATION = "baseline/modality", "ablation/cnn17+ultrasound"


def predictions(share: float, rows: int = 200) -> pd.DataFrame:
    """Return predictions of which a ``share`` is right, half of them of each modality and of each class."""
    label = np.arange(rows) % 2
    right = np.arange(rows) < share * rows
    probability = np.where(right, label, 1 - label) * 0.6 + 0.2
    modality = np.where(np.arange(rows) % 4 < 2, "mammography", "ultrasound")
    names = [f"mine/{number}" for number in range(rows)]
    columns = {"image_id": names, "copy": 0, "source": "mine", "modality": modality, "group_id": names}
    return pd.DataFrame({**columns, "label": label, "probability": probability, "decision": decide(probability)})


def add(folder: Path, cell: str, share: float, rows: int = 200) -> None:
    frame = predictions(share, rows)
    path = write_cell(folder, cell, [vars(one) for one in subset_metrics(frame)])
    frame.to_parquet(path.with_name("predictions.parquet"), index=False)
    record(path.with_name("predictions.parquet"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shares = {"model1/a+lr": 0.90, "model1/b+lr": 0.89, "model1/c+lr": 0.75, "model2/d+sgdm": 0.74, MODALITY: 0.5}
    folder = write_run(tmp_path, cells=[*shares, ABLATION])
    for cell, share in shares.items():
        add(folder, cell, share)
    add(folder, ABLATION, 0.99, 60)
    return folder


def test_cells_that_no_test_tells_apart_share_a_place(folder: Path) -> None:
    board = tables_of(folder)["leaderboard"]
    assert list(board.frame["cell"])[-1] == MODALITY
    assert list(board.frame["rank"]) == [1, 1, 3, 3, 5]
    assert list(board.display["Rank"]) == ["1", "1", "3", "3", "5"]
    assert any(note.startswith("place: ") for note in board.notes)


def test_only_a_test_calls_a_cell_better_than_the_modality(folder: Path) -> None:
    add(folder, "model3/cnn17+e1+b8", 0.52)
    tables = tables_of(folder)
    board = tables["leaderboard"]
    assert shown_in(board, "model1/a+lr")["vs. modality"] == "better (p < 0.001)"
    assert shown_in(board, "model3/cnn17+e1+b8")["vs. modality"] == "not separated"
    assert shown_in(board, MODALITY)["vs. modality"] == "–"
    pairs = tables["comparisons"].every
    assert pairs is not None
    better = pairs[pairs["verdict"].isin(["better", "worse"])]
    assert (better["accuracy_p_holm"] < 0.05).all()
    assert (pairs.drop(better.index)["accuracy_p_holm"] >= 0.05).all()


def test_a_cell_worse_than_the_modality_is_called_so(folder: Path) -> None:
    add(folder, "model1/z+nb", 0.2)
    assert shown_in(tables_of(folder)["leaderboard"], "model1/z+nb")["vs. modality"] == "worse (p < 0.001)"


def test_a_run_without_the_baseline_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, cells=["model1/a+lr"])
    add(folder, "model1/a+lr", 0.9)
    assert shown_in(tables_of(folder)["leaderboard"], "model1/a+lr")["vs. modality"] == "not run"


def test_a_cell_on_other_rows_is_not_tested(folder: Path) -> None:
    add(folder, "model3/cnn17+e1+b8", 0.2, 100)
    tables = tables_of(folder)
    last = row_of(tables["leaderboard"], "model3/cnn17+e1+b8")
    assert last["versus_modality"] == "not tested"
    pairs = tables["comparisons"].frame.set_index(["cell", "against"])
    found = pairs.loc[("model3/cnn17+e1+b8", "model1/a+lr")]
    assert (found["verdict"], found["reason"]) == ("not tested", "tested on other rows")
    assert math.isnan(found["accuracy_p"])


def test_the_comparisons_show_two_opponents_and_hold_all_pairs(folder: Path) -> None:
    table = tables_of(folder)["comparisons"]
    assert set(table.frame["against"]) == {"model1/a+lr", MODALITY}
    assert len(table.frame) == len(table.display) == 8
    assert table.every is not None
    assert len(table.every) == 10
    against_best = table.frame.set_index(["cell", "against"]).loc[("model1/c+lr", "model1/a+lr")]
    assert against_best["accuracy_difference"] == pytest.approx(-0.15)
    assert against_best["accuracy_difference_low"] < -0.15 < against_best["accuracy_difference_high"] < 0
    assert against_best["verdict"] == "worse"
    assert not table.every["cell"].str.startswith("ablation").any()


def test_every_cell_has_its_modalities_and_sources(folder: Path) -> None:
    table = tables_of(folder)["subsets"]
    assert len(table.frame) == 6 * 3
    of_cell = table.frame[table.frame["cell"] == "model1/c+lr"].set_index("subset")
    assert list(of_cell.index) == ["modality=mammography", "modality=ultrasound", "source=mine"]
    assert of_cell.loc["source=mine", "accuracy"] == 0.75
    assert of_cell.loc["source=mine", "accuracy_low"] < 0.75 < of_cell.loc["source=mine", "accuracy_high"]
    assert of_cell.loc["modality=ultrasound", "n"] == 100
    assert row_of(tables_of(folder)["leaderboard"], "model1/c+lr")["accuracy_ours"] == 0.75


def test_scores_without_a_subset_leave_the_table_empty(tmp_path: Path) -> None:
    folder = write_run(tmp_path, cells=["model1/a+lr"])
    write_cell(folder, "model1/a+lr", scores(0.8))
    assert tables_of(folder)["subsets"].frame.empty
