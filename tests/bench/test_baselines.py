"""Models that see almost nothing, held to scikit-learn on what they see, computed another way."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_folders import BASELINES as NAMES
from run_folders import cell_folder, predictions_of, rows_of
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from bench.baselines import BASELINES, Source, fit_baseline
from bench.cell import Job, Settings, definition
from bench.matrix import Matrix, load_matrix
from bench.measure import Plan, measure
from bench.report.composition import SEES
from bench.runner import Summary
from fusion.errors import UserError
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import Prepared
from fusion.split import Split, split_rows


@pytest.fixture
def source(tiny_prepared: Prepared) -> Source:
    return Source(prepared=tiny_prepared, loader="resident", device=torch.device("cpu"), seed=0)


@pytest.fixture(params=["paper", "clean"])
def split(request: pytest.FixtureRequest, tiny_prepared: Prepared) -> Split:
    return split_rows(tiny_prepared.catalog, request.param, 0)


def labels(source: Source, split: Split) -> np.ndarray:
    return source.prepared.catalog["label"].to_numpy()[split.train.image]


def test_the_majority_is_the_share_of_malignant_training_rows(source: Source, split: Split) -> None:
    probability, learnt = fit_baseline("majority", source, split)
    share = labels(source, split).mean()
    assert probability.tolist() == pytest.approx([share] * len(split.test))
    assert learnt["class_prior"].tolist() == pytest.approx([1 - share, share])


@pytest.mark.parametrize("name", ["modality", "source"])
def test_a_label_alone_gives_one_probability_a_value_near_its_share(name: str, source: Source, split: Split) -> None:
    column = source.prepared.catalog[name].to_numpy()
    probability, _ = fit_baseline(name, source, split)
    for value in set(column[split.test.image]):
        told = probability[column[split.test.image] == value]
        assert np.ptp(told) < 1e-12
        # the ridge of logistic regression draws a share a little to the middle
        assert told[0] == pytest.approx(labels(source, split)[column[split.train.image] == value].mean(), abs=0.02)


def test_the_thumbnail_is_of_the_pixels_the_loader_gives(source: Source, split: Split) -> None:
    spec = BatchSpec(seed=0, mean=(0.0,), std=(1.0,))
    loader = make_loader("resident", source.prepared, spec)

    def tiles(rows: object) -> np.ndarray:
        pixels = np.concatenate([batch.numpy() for batch in loader.batches(rows, 7, epoch=0)])  # type: ignore[arg-type]
        return pixels.reshape(len(pixels), 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(pixels), 64)  # 32 px

    train, test = tiles(split.train), tiles(split.test)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    expected = LogisticRegression(max_iter=5000).fit((train - mean) / deviation, labels(source, split))
    probability, learnt = fit_baseline("thumbnail", source, split)
    np.testing.assert_allclose(probability, expected.predict_proba((test - mean) / deviation)[:, 1], atol=1e-3)
    np.testing.assert_allclose(learnt["mean"], mean, atol=1e-6)


@pytest.mark.parametrize("name", ["modality", "source", "thumbnail"])
def test_what_is_kept_gives_the_probabilities_again(name: str, source: Source, split: Split) -> None:
    probability, learnt = fit_baseline(name, source, split)
    seen = (BASELINES[name].features(source, split.test) - learnt["mean"]) / learnt["scale"]
    again = 1 / (1 + np.exp(-(seen @ learnt["coef"].T + learnt["intercept"])[:, 0]))
    np.testing.assert_allclose(again, probability, rtol=1e-9)


# -- as cells of a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_baselines_are_judged_on_the_rows_of_models_1_to_3(whole_run: Path, protocol: str) -> None:
    network = predictions_of(cell_folder(whole_run, "model3/cnn17+e1+b8", protocol))
    for name in NAMES:
        folder = cell_folder(whole_run, name, protocol)
        mine = predictions_of(folder)
        same = ["image_id", "copy", "label"]
        pd.testing.assert_frame_equal(mine[same], network[same])
        assert set(rows_of(folder)["status"]) == {"done"}
        assert all(array.dtype == np.float64 for array in load_file(folder / "model.safetensors").values())
    majority = rows_of(cell_folder(whole_run, "baseline/majority", protocol)).query("subset == 'all'")
    assert majority.set_index("metric")["value"]["auc"] == 0.5


def test_whatever_cells_are_chosen_the_baselines_run_too(
    call: Callable[..., tuple[int, str, str]], tiny_toml: Path, tiny_data: Path, tmp_path: Path
) -> None:
    command = ["run", tiny_toml, "--data", tiny_data, "--out", tmp_path / "run", "--device", "cpu"]
    code, text, _ = call(*command, "--only", "baseline/majority")
    assert (code, "4 cells done" in text) == (0, True)  # and nothing to measure
    assert [path.name for path in (tmp_path / "run" / "images").iterdir()] == ["augmentation"]
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["cells"] == NAMES


def test_the_report_says_what_each_baseline_sees() -> None:
    assert list(SEES) == NAMES == [f"baseline/{name}" for name in BASELINES]


def test_a_baseline_is_defined_by_its_estimator_and_no_weights(matrix: Matrix, tiny_prepared: Prepared) -> None:
    (cell,) = (one for one in matrix.cells if one.name == "baseline/thumbnail")
    job = Job(cell=cell, protocol="paper", seed=0)
    of = {weights: definition(job, tiny_prepared, Settings(weights=weights)) for weights in ("random", "imagenet")}
    assert of["random"] == of["imagenet"]
    assert "LogisticRegression" in of["random"]["baseline"][0]
    assert 0 < job.cost < min(Job(cell=one, protocol="paper", seed=0).cost for one in matrix.cells if one.network)


def test_a_baseline_can_not_be_measured(run_tiny: Callable[..., Summary], tmp_path: Path) -> None:
    assert run_tiny(tmp_path / "run", ["baseline/*"]).done == len(NAMES)
    quiet = {"progress": lambda *_: None, "finished": lambda _: None}
    with pytest.raises(UserError, match=r"no finished cell fits baseline/.*; baselines have no network to measure"):
        measure(tmp_path / "run", Plan(only=["baseline/*"]), **quiet)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["paper", "quick"])
def test_every_matrix_has_the_baselines(name: str) -> None:
    assert [cell.name for cell in load_matrix(name).cells if cell.network is None] == NAMES
