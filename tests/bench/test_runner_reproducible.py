"""The same predictions again: from the stored models, from the same seed, from images that are streamed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from run_folders import CELLS, EXTRACTED, PROTOCOLS, SMALL, TRAINED, cell_folder, predictions_of
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

import bench.cell
import fusion.loaders
from bench.matrix import Matrix
from bench.runner import Summary
from bench.step import predict_logits
from fusion.decode import HAVE_DALI
from fusion.loaders import BatchSpec, make_loader
from fusion.models import build_model, normalisation
from fusion.models.backbones import build_backbone
from fusion.prepared import Prepared
from fusion.split import split_rows

# -- from what was stored --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", list(TRAINED))
def test_a_stored_network_gives_its_predictions_again(
    whole_run: Path, matrix: Matrix, tiny_prepared: Prepared, cell: str
) -> None:
    (planned,) = (one for one in matrix.cells if one.name == cell)
    split = bench.cell.rows_of(planned, tiny_prepared, "paper", 0)
    mean, std = normalisation(planned.network)
    loader = make_loader("resident", tiny_prepared, BatchSpec(seed=0, mean=mean, std=std))
    torch.manual_seed(123)
    model = build_model(planned.network, "random", 32)
    model.load_state_dict(load_torch(cell_folder(whole_run, cell) / "model.safetensors"))
    logits = predict_logits(model, loader, split.test, precision="fp32")
    again = torch.softmax(logits.double(), dim=1)[:, 1].numpy()
    assert np.allclose(again, predictions_of(cell_folder(whole_run, cell))["probability"], atol=1e-5)


def test_a_stored_classifier_gives_its_predictions_again(whole_run: Path, tiny_prepared: Prepared) -> None:
    split = split_rows(tiny_prepared.catalog, "paper", 0)
    mean, std = normalisation("mobilenet_v2")
    loader = make_loader("resident", tiny_prepared, BatchSpec(seed=0, mean=mean, std=std))
    (kept,) = (whole_run / "features").iterdir()
    model = build_backbone("mobilenet_v2", "random", classes=0)
    model.load_state_dict(load_torch(kept / "backbone.safetensors"))
    features = predict_logits(model, loader, split.test, precision="fp32").double().numpy()

    for name, formula in HEADS.items():
        folder = cell_folder(whole_run, f"model1/mobilenet_v2+{name}")
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


# -- run once more ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_predictions_in_another_folder(
    tmp_path: Path, whole_run: Path, run_tiny: Callable[..., Summary]
) -> None:
    # The order of the work must not matter either.
    for only in ("ablation/*", "model3/*", "model2/*", "model1/*+svm", "model1/*", "transfer/*", "baseline/*"):
        run_tiny(tmp_path / "run", [only], protocols=PROTOCOLS[::-1])
    for protocol in PROTOCOLS:
        for cell in CELLS:
            one, two = (cell_folder(out, cell, protocol) for out in (whole_run, tmp_path / "run"))
            pd.testing.assert_frame_equal(predictions_of(one), predictions_of(two), check_exact=True)
            assert (one / "history.csv").read_bytes() == (two / "history.csv").read_bytes()
            assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
            assert (one / "cell.json").read_bytes() == (two / "cell.json").read_bytes()


def test_another_seed_gives_other_rows_and_predictions(
    tmp_path: Path, whole_run: Path, run_tiny: Callable[..., Summary]
) -> None:
    cells = ["model1/mobilenet_v2+lr", *SMALL]
    assert run_tiny(tmp_path / "run", cells, seeds=(0, 1)).done == 6
    for cell in cells:
        zero, one = (predictions_of(cell_folder(tmp_path / "run", cell, seed=seed)) for seed in (0, 1))
        pd.testing.assert_frame_equal(zero, predictions_of(cell_folder(whole_run, cell)), check_exact=True)
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


@pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")
def test_images_larger_than_the_memory_are_streamed_with_the_same_results(
    tmp_path: Path,
    whole_run: Path,
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
            here, there = (predictions_of(cell_folder(out, cell, protocol)) for out in (tmp_path / "run", whole_run))
            assert here["image_id"].tolist() == there["image_id"].tolist()
            assert np.allclose(here["probability"], there["probability"], atol=1e-4), cell
