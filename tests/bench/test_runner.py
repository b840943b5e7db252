import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, roc_auc_score

import bench.cell
import bench.extract
import bench.runner
import fusion.loaders
from bench.cell import Job, Outcome, Settings
from bench.matrix import Matrix, read_matrix
from bench.runner import Summary
from bench.step import predict_logits
from bench.store import ROW_COLUMNS
from fusion.decode import HAVE_DALI
from fusion.errors import UserError
from fusion.loaders import BatchSpec, make_loader
from fusion.models import build_model, normalisation
from fusion.models.backbones import build_backbone
from fusion.prepare import Prepared
from fusion.split import split_rows

TRAINED = {
    "model2/mobilenet_v2+sgdm": 1,
    "model3/cnn17+e1+b8": 1,
    "model3/cnn17+e2+b8": 2,
    "ablation/cnn17+ultrasound": 1,
    "ablation/cnn17+mammography": 1,
    "ablation/cnn17+fused": 1,
}
"""Cells that train a network, with the epochs they have."""
EXTRACTED = ["model1/mobilenet_v2+lr", "model1/mobilenet_v2+nb", "model1/mobilenet_v2+svm"]
CELLS = [*EXTRACTED, *TRAINED]
SMALL = ["model3/cnn17+e1+b8", "model3/cnn17+e2+b8"]
PROTOCOLS = ("paper", "clean")


@pytest.fixture(scope="module")
def finished(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run under both protocols; tests only read it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run_tiny(out, protocols=PROTOCOLS) == Summary(done=2 * len(CELLS), found=0, failed=())
    return out


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a finished cell is computed again")

    monkeypatch.setattr(bench.runner, "compute", refuse)


def cell_folder(out: Path, cell: str, protocol: str = "paper", seed: int = 0) -> Path:
    return out / "cells" / protocol / str(seed) / cell


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv", keep_default_na=False, na_values={"value": [""], "low": [""], "high": [""]})


def predictions_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


# -- what a run leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_its_files(finished: Path, cell: str, protocol: str) -> None:
    folder = cell_folder(finished, cell, protocol)
    assert sorted(path.name for path in folder.iterdir()) == [
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


def test_nothing_unfinished_is_left(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == ["cells", "features", "images", "run.json"]
    assert list(finished.rglob(".*")) == []
    cells = {path.parent.relative_to(finished / "cells").as_posix() for path in finished.rglob("rows.csv")}
    assert cells == {f"{protocol}/0/{cell}" for protocol in PROTOCOLS for cell in CELLS}


def test_the_run_says_what_it_was(finished: Path, tiny_prepared: Prepared) -> None:
    said = json.loads((finished / "run.json").read_text(encoding="utf-8"))
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
    used = {key for path in finished.rglob("rows.csv") for key in rows_of(path.parent)["environment_hash"]}
    assert used == set(said["environments"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_predictions_are_those_of_the_test_rows(
    finished: Path, matrix: Matrix, tiny_prepared: Prepared, cell: str, protocol: str
) -> None:
    (planned,) = matrix.select([cell])
    catalog = tiny_prepared.catalog
    test = split_rows(catalog, protocol, 0, modality=planned.modality, augmented=planned.augmented).test
    predictions = predictions_of(cell_folder(finished, cell, protocol))
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
    finished: Path, tiny_prepared: Prepared, cell: str, protocol: str
) -> None:
    folder = cell_folder(finished, cell, protocol)
    rows, predictions = rows_of(folder), predictions_of(folder)
    label, decision = predictions["label"], predictions["decision"]
    tn, fp, fn, tp = map(int, confusion_matrix(label, decision, labels=[0, 1]).ravel())
    values = rows.set_index("metric")["value"].to_dict()
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp) if tp + fp else math.nan,
        "npv": tn / (tn + fn) if tn + fn else math.nan,
        "accuracy": accuracy_score(label, decision),
        "kappa": cohen_kappa_score(label, decision),
        "auc": roc_auc_score(label, predictions["probability"]),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "epochs": TRAINED.get(cell, 0),
    }
    assert values.pop("wall_s") > 0
    assert values.pop("setup_s") == 0  # nothing is captured on the CPU
    assert math.isnan(values.pop("peak_memory_mib"))  # nor is its memory measured
    assert values == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert tuple(rows) == ROW_COLUMNS
    same = rows[["cell", "protocol", "seed", "status", "weights", "synthetic_sources", "data_hash", "reason"]]
    assert same.drop_duplicates().to_numpy().tolist() == [
        [cell, protocol, 0, "done", "random", "", tiny_prepared.data_hash, ""]
    ]
    assert set(rows["n"][rows["metric"] == "accuracy"]) == {len(predictions)}


@pytest.mark.parametrize("cell", list(TRAINED))
def test_a_stored_network_gives_its_predictions_again(
    finished: Path, matrix: Matrix, tiny_prepared: Prepared, cell: str
) -> None:
    (planned,) = matrix.select([cell])
    split = split_rows(tiny_prepared.catalog, "paper", 0, modality=planned.modality, augmented=planned.augmented)
    mean, std = normalisation(planned.network)
    loader = make_loader("resident", tiny_prepared, BatchSpec(seed=0, mean=mean, std=std))
    torch.manual_seed(123)
    model = build_model(planned.network, "random", 32)
    model.load_state_dict(load_torch(cell_folder(finished, cell) / "model.safetensors"))
    logits = predict_logits(model, loader, split.test, precision="fp32")
    again = torch.softmax(logits.double(), dim=1)[:, 1].numpy()
    assert np.allclose(again, predictions_of(cell_folder(finished, cell))["probability"], atol=1e-5)


def test_a_stored_classifier_gives_its_predictions_again(finished: Path, tiny_prepared: Prepared) -> None:
    split = split_rows(tiny_prepared.catalog, "paper", 0)
    mean, std = normalisation("mobilenet_v2")
    loader = make_loader("resident", tiny_prepared, BatchSpec(seed=0, mean=mean, std=std))
    (kept,) = (finished / "features").iterdir()
    model = build_backbone("mobilenet_v2", "random", classes=0)
    model.load_state_dict(load_torch(kept / "backbone.safetensors"))
    features = predict_logits(model, loader, split.test, precision="fp32").double().numpy()

    for name, formula in HEADS.items():
        folder = cell_folder(finished, f"model1/mobilenet_v2+{name}")
        again = formula(features, **load_file(folder / "model.safetensors"))
        assert np.allclose(again, predictions_of(folder)["probability"], atol=1e-4), name


def logistic(X: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(X @ coef[0] + intercept)))


def naive_bayes(X: np.ndarray, theta: np.ndarray, var: np.ndarray, class_prior: np.ndarray) -> np.ndarray:
    log = np.log(class_prior) - 0.5 * (np.log(var) + (X[:, None] - theta) ** 2 / var).sum(axis=2)
    return 1 / (1 + np.exp(np.clip(log[:, 0] - log[:, 1], -500, 500)))


def support_vectors(
    X: np.ndarray,
    support_vectors: np.ndarray,
    dual_coef: np.ndarray,
    intercept: np.ndarray,
    gamma: np.ndarray,
    sigmoid_a: np.ndarray,
    sigmoid_b: np.ndarray,
) -> np.ndarray:
    distance = ((X[:, None] - support_vectors) ** 2).sum(axis=2)
    decision = np.exp(-gamma * distance) @ dual_coef[0] + intercept
    return 1 / (1 + np.exp(sigmoid_a * decision + sigmoid_b))


HEADS: dict[str, Callable[..., np.ndarray]] = {"lr": logistic, "nb": naive_bayes, "svm": support_vectors}


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


# -- again -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
def test_a_finished_run_is_found_and_nothing_is_touched(finished: Path, run_tiny: Callable[..., Summary]) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished.rglob("*") if path.is_file()}
    told: list[str] = []
    summary = run_tiny(finished, protocols=PROTOCOLS, finished=told.append)
    assert summary == Summary(done=0, found=2 * len(CELLS), failed=())
    assert told == []
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished.rglob("*") if path.is_file()}
    run_json = finished / "run.json"
    assert before.pop(run_json)[1] == after.pop(run_json)[1]
    assert before == after


def test_the_same_seed_gives_the_same_predictions_in_another_folder(
    tmp_path: Path, finished: Path, run_tiny: Callable[..., Summary]
) -> None:
    # The order of the work must not matter either.
    for only in (["ablation/*"], ["model3/*"], ["model2/*"], ["model1/*+svm"], ["model1/*"]):
        run_tiny(tmp_path / "run", only, protocols=PROTOCOLS[::-1])
    for protocol in PROTOCOLS:
        for cell in CELLS:
            one, two = (cell_folder(out, cell, protocol) for out in (finished, tmp_path / "run"))
            pd.testing.assert_frame_equal(predictions_of(one), predictions_of(two), check_exact=True)
            assert (one / "history.csv").read_bytes() == (two / "history.csv").read_bytes()
            assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
            assert (one / "cell.json").read_bytes() == (two / "cell.json").read_bytes()


def test_another_seed_gives_other_rows_and_predictions(
    tmp_path: Path, finished: Path, run_tiny: Callable[..., Summary]
) -> None:
    cells = ["model1/mobilenet_v2+lr", *SMALL]
    assert run_tiny(tmp_path / "run", cells, seeds=(0, 1)).done == 6
    for cell in cells:
        zero, one = (predictions_of(cell_folder(tmp_path / "run", cell, seed=seed)) for seed in (0, 1))
        pd.testing.assert_frame_equal(zero, predictions_of(cell_folder(finished, cell)), check_exact=True)
        assert set(map(tuple, zero[["image_id", "copy"]].to_numpy())) != set(
            map(tuple, one[["image_id", "copy"]].to_numpy())
        )
        shared = zero.merge(one, on=["image_id", "copy"])
        assert len(shared) > 3
        assert (shared["probability_x"] != shared["probability_y"]).all()


def test_every_cell_of_a_network_starts_from_the_same_weights(
    tmp_path: Path, run_tiny: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    train = bench.cell.train

    def note(model: Any, *rest: Any, **named: Any) -> Any:
        starts[len(starts[0]) // len(SMALL)].append(
            torch.cat([value.flatten() for value in model.parameters()]).clone()
        )
        return train(model, *rest, **named)

    monkeypatch.setattr(bench.cell, "train", note)
    run_tiny(tmp_path, SMALL, seeds=(0, 1))
    for weights in starts.values():
        assert len(weights) == len(SMALL)
        assert torch.equal(*weights)
    assert not torch.equal(starts[0][0], starts[1][0])


def test_an_interrupted_run_goes_on_with_the_cells_that_lack(
    tmp_path: Path, finished: Path, run_tiny: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, compute = tmp_path / "run", bench.runner.compute

    def interrupted(job: Job, *rest: Any) -> Outcome:
        if job.cell.name == SMALL[1]:
            raise KeyboardInterrupt
        return compute(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(bench.runner, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(out, ["model3/*"])
    assert cell_folder(out, SMALL[0]).is_dir()
    assert not cell_folder(out, SMALL[1]).exists()
    kept = (cell_folder(out, SMALL[0]) / "rows.csv").read_bytes()
    assert run_tiny(out, ["model3/*"]) == Summary(done=1, found=1, failed=())
    assert (cell_folder(out, SMALL[0]) / "rows.csv").read_bytes() == kept
    for cell in SMALL:
        pd.testing.assert_frame_equal(
            predictions_of(cell_folder(out, cell)), predictions_of(cell_folder(finished, cell)), check_exact=True
        )


def test_a_run_killed_before_its_first_line_can_be_started_again(
    tmp_path: Path, run_tiny: Callable[..., Summary]
) -> None:
    (tmp_path / ".run.json.4711.partial").write_text("{")
    assert run_tiny(tmp_path, SMALL[:1]).done == 1


def test_a_run_grows_by_seeds_protocols_and_cells(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    run_tiny(tmp_path, SMALL[:1])
    run_tiny(tmp_path, SMALL[1:], seeds=(3,))
    assert run_tiny(tmp_path, SMALL[:1], protocols=("clean", "paper")) == Summary(done=1, found=1, failed=())
    said = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (said["cells"], said["protocols"], said["seeds"]) == (SMALL, ["paper", "clean"], [0, 3])


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_changed_recipe_is_never_taken_for_the_finished_one(
    finished: Path, tiny_toml: Path, run_tiny: Callable[..., Summary]
) -> None:
    table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
    table["model2"]["epochs"] = 3
    changed = read_matrix(table, "changed")
    folder = cell_folder(finished, "model2/mobilenet_v2+sgdm")
    before = (folder / "rows.csv").read_bytes()
    with pytest.raises(UserError) as caught:
        run_tiny(finished, ["model2/*"], matrix=changed)
    assert f"{folder} was made with other settings (cell.recipe.epochs: 1, now 3)" in str(caught.value)
    assert (folder / "rows.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "change"),
    [("weights", {"weights": "imagenet"}), ("data", {}), ("matrix", {})],  # named in the message
)
def test_a_run_of_another_kind_is_refused(
    finished: Path,
    run_tiny: Callable[..., Summary],
    tiny_toml: Path,
    other_prepared: Prepared,
    name: str,
    change: dict[str, Any],
) -> None:
    if name == "data":
        change = {"prepared": other_prepared}
    if name == "matrix":
        table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
        change = {"matrix": read_matrix({**table, "name": "mine"}, "mine")}
    before = (finished / "run.json").read_bytes()
    with pytest.raises(UserError, match=f"holds .* other {name} .*; choose another --out") as caught:
        run_tiny(finished, **change)
    assert str(finished) in str(caught.value)
    assert (finished / "run.json").read_bytes() == before


needs_dali = pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")


@needs_dali
def test_images_larger_than_the_memory_are_streamed_with_the_same_results(
    tmp_path: Path,
    finished: Path,
    run_tiny: Callable[..., Summary],
    tiny_prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells, told = [*EXTRACTED, "model2/mobilenet_v2+sgdm", "model3/cnn17+e2+b8"], list[str]()
    monkeypatch.setattr(fusion.loaders, "free_bytes", lambda _: tiny_prepared.images_u8.nbytes)
    assert run_tiny(tmp_path / "run", cells, protocols=PROTOCOLS, finished=told.append).failed == ()
    assert "more than 50% of the cpu's" in told[0]
    assert told[0].endswith("streamed from their files by dali")
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["loader"] == "dali"
    for protocol in PROTOCOLS:
        for cell in cells:
            here, there = (predictions_of(cell_folder(out, cell, protocol)) for out in (tmp_path / "run", finished))
            assert here["image_id"].tolist() == there["image_id"].tolist()
            assert np.allclose(here["probability"], there["probability"], atol=1e-4), cell


@needs_dali
def test_a_run_goes_on_with_the_loader_it_began_with(
    tmp_path: Path, run_tiny: Callable[..., Summary], tiny_prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tiny(tmp_path / "run", SMALL[:1])
    monkeypatch.setattr(fusion.loaders, "free_bytes", lambda _: tiny_prepared.images_u8.nbytes)
    with pytest.raises(
        UserError, match=r"other loader \(resident, now dali\); choose another --out, or --loader resid"
    ):
        run_tiny(tmp_path / "run", SMALL)
    assert run_tiny(tmp_path / "run", SMALL, loader="resident") == Summary(done=1, found=1, failed=())


def test_other_weights_under_the_same_folder_name_are_noticed(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    weights, cell = tmp_path / "weights", "model1/mobilenet_v2+nb"
    weights.mkdir()

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        state = build_backbone("mobilenet_v2", "random").state_dict()
        save_torch(state, weights / "mobilenetv2_100.ra_in1k.safetensors")

    write(seed=1)
    assert run_tiny(tmp_path / "run", [cell], weights=str(weights)).done == 1
    assert set(rows_of(cell_folder(tmp_path / "run", cell))["weights"]) == {"folder weights"}
    write(seed=2)
    with pytest.raises(UserError, match=r"made with other settings \(weights\.start: "):
        run_tiny(tmp_path / "run", [cell], weights=str(weights))


def test_weights_may_change_while_no_backbone_is_done(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    assert run_tiny(tmp_path / "run", ["model3/*"]).done == 2
    assert run_tiny(tmp_path / "run", ["model3/*"], weights="imagenet") == Summary(done=0, found=2, failed=())


def test_a_foreign_folder_is_left_alone(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run's folder; choose another --out"):
        run_tiny(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


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
