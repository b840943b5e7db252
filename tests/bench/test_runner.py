"""What a run leaves, and the settings it is not started with."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from run_folders import CELLS, PROTOCOLS, TRAINED, cell_folder, predictions_of, rows_of
from sklearn.metrics import accuracy_score, brier_score_loss, cohen_kappa_score, confusion_matrix, roc_auc_score

import bench.extract
from bench.cell import Settings
from bench.matrix import Matrix
from bench.runner import Summary
from bench.step import predict_logits
from bench.store import ROW_COLUMNS
from fusion.errors import UserError
from fusion.prepared import Prepared
from fusion.split import split_rows

# -- what a run leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_its_files(whole_run: Path, cell: str, protocol: str) -> None:
    folder = cell_folder(whole_run, cell, protocol)
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "cell.json",
        "history.csv",
        "model.safetensors",
        "predictions.parquet",
        "rows.csv",
    ]
    definition = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    assert (definition["cell"]["name"], definition["protocol"], definition["seed"]) == (cell, protocol, 0)
    history = pd.read_csv(folder / "history.csv")
    assert list(history) == [
        *("epoch", "train_loss", "train_accuracy"),
        *("validation_loss", "validation_accuracy", "learning_rate"),
    ]
    assert list(history["epoch"]) == list(range(1, TRAINED.get(cell, 0) + 1))


def test_nothing_unfinished_is_left(whole_run: Path) -> None:
    assert sorted(path.name for path in whole_run.iterdir()) == [
        "SHA256SUMS",
        "cells",
        "features",
        "images",
        "run.json",
        "straddling.csv",
    ]
    assert list(whole_run.rglob(".*")) == []
    cells = {path.parent.relative_to(whole_run / "cells").as_posix() for path in whole_run.rglob("rows.csv")}
    assert cells == {f"{protocol}/0/{cell}" for protocol in PROTOCOLS for cell in CELLS}


def test_the_run_says_what_it_was(whole_run: Path, tiny_prepared: Prepared) -> None:
    said = json.loads((whole_run / "run.json").read_text(encoding="utf-8"))
    assert (said["matrix"]["name"], said["weights"], said["precision"], said["loader"]) == (
        *("tiny", "random"),
        *("fp32", "resident"),
    )
    assert (said["cells"], said["protocols"], said["seeds"]) == (CELLS, list(PROTOCOLS), [0])
    assert said["data"]["data_hash"] == tiny_prepared.data_hash
    assert said["data"]["synthetic_sources"] == []
    (environment,) = said["environments"].values()
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    used = {key for path in whole_run.rglob("rows.csv") for key in rows_of(path.parent)["environment_hash"]}
    assert used == set(said["environments"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_predictions_are_those_of_the_test_rows(
    whole_run: Path, matrix: Matrix, tiny_prepared: Prepared, cell: str, protocol: str
) -> None:
    (planned,) = (one for one in matrix.cells if one.name == cell)
    catalog = tiny_prepared.catalog
    test = split_rows(
        catalog, protocol, 0, modality=planned.tested_on or planned.modality, augmented=planned.augmented
    ).test
    predictions = predictions_of(cell_folder(whole_run, cell, protocol))
    assert " ".join(predictions) == "image_id copy source modality group_id label probability decision"
    expected = catalog.iloc[test.image].reset_index(drop=True)
    for column in ("image_id", "source", "modality", "group_id", "label"):
        assert list(predictions[column]) == list(expected[column])
    assert list(predictions["copy"]) == list(test.copy)
    assert predictions["probability"].dtype == np.float64
    assert predictions["probability"].between(0, 1).all()
    assert list(predictions["decision"]) == list((predictions["probability"] >= 0.5).astype(int))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_rows_are_what_scikit_learn_says_of_the_predictions(
    whole_run: Path, tiny_prepared: Prepared, cell: str, protocol: str
) -> None:
    folder = cell_folder(whole_run, cell, protocol)
    rows, predictions = rows_of(folder), predictions_of(folder)
    label, decision = predictions["label"], predictions["decision"]
    tn, fp, fn, tp = map(int, confusion_matrix(label, decision, labels=[0, 1]).ravel())
    values = rows[rows["subset"] == "all"].set_index("metric")["value"].to_dict()
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp) if tp + fp else math.nan,
        "npv": tn / (tn + fn) if tn + fn else math.nan,
        "accuracy": accuracy_score(label, decision),
        "kappa": cohen_kappa_score(label, decision),
        "auc": roc_auc_score(label, predictions["probability"]),
        "brier": brier_score_loss(label, predictions["probability"]),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "epochs": TRAINED.get(cell, 0),
    }
    assert values.pop("wall_s") > 0
    assert values.pop("setup_s") == 0  # nothing is captured on the CPU
    assert 0 <= values.pop("ece") <= 1
    assert math.isnan(values.pop("peak_memory_mib"))  # nor is its memory measured
    assert values == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert tuple(rows) == ROW_COLUMNS
    same = rows[["cell", "protocol", "seed", "status", "weights", "synthetic_sources", "data_hash", "reason"]]
    assert same.drop_duplicates().to_numpy().tolist() == [
        [cell, protocol, 0, "done", "random", "", tiny_prepared.data_hash, ""]
    ]
    accuracy = rows[rows["metric"] == "accuracy"].set_index("subset")["n"].to_dict()
    parts = {f"{column}={value}" for column in ("modality", "source") for value in predictions[column]}
    assert (accuracy.pop("all"), set(accuracy)) == (len(predictions), parts)
    assert sum(n for name, n in accuracy.items() if name.startswith("modality=")) == len(predictions)


def test_the_features_of_a_backbone_are_computed_once_for_all_classifiers(
    tmp_path: Path, run_tiny: Callable[..., Summary], tiny_prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def count(model: Any, loader: Any, rows: Any, **rest: Any) -> Any:
        counted.append(len(rows))
        return predict_logits(model, loader, rows, **rest)

    monkeypatch.setattr(bench.extract, "predict_logits", count)
    assert run_tiny(tmp_path / "run", ["model1/*"], protocols=PROTOCOLS).done == 6
    assert counted == [sum(line["copies"] for line in tiny_prepared.manifest["counts"])]


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "fast"}, "step 'fast' is unknown; choose from auto, eager, graph, compiled"),
        ({"loader": "fast"}, "loader 'fast' is unknown; choose from auto, resident, dali, torchvision"),
        ({"device": "tpu"}, "device 'tpu' is unknown; choose from auto, cpu, cuda"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown; choose from auto, fp32, bf16, fp16"),
    ],
)
def test_unknown_settings_are_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings(weights="random", **change)
    assert str(caught.value) == message


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU here; choose 'cpu' or 'auto'"):
        Settings(weights="random", device="cuda")
    assert Settings(weights="random").torch_device() == torch.device("cpu")
