"""Figures of a run's images: those the run has kept, named, and never of a size that was not promised."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report_figures import texts

import bench.report.figures
from bench.augmented_image import SHOWN
from bench.report import read_results
from bench.report.figures import FIGURES, Figure, write_figures
from bench.runner import Summary
from fusion.augment import COPIES, Rows
from fusion.checksums import record
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import Prepared


@pytest.fixture(scope="module")
def out(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "run"
    assert run_tiny(folder, ["model3/cnn17+e1+b8"]).done == 1
    return folder


@pytest.fixture
def copied(out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(out, tmp_path / "run"))


@pytest.fixture(autouse=True)
def images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.report.figures, "FIGURES", {name: FIGURES[name] for name in ("samples", "augmentation")})


def figures_of(run_dir: Path) -> dict[str, Figure]:
    return {figure.name: figure for figure in write_figures(run_dir, read_results(run_dir), {})}


def test_the_run_keeps_an_image_with_its_copies_as_the_loader_makes_them(out: Path, tiny_prepared: Prepared) -> None:
    folder = out / "images" / "augmentation"
    facts = json.loads((folder / "copies.json").read_text())
    catalog = tiny_prepared.catalog
    (place,) = np.flatnonzero(catalog["image_id"] == facts["image_id"])
    image = catalog.iloc[place]
    assert COPIES[image["modality"], image["label"]] == max(COPIES.values())
    rows = Rows(np.full(SHOWN, place), np.arange(SHOWN))
    spec = BatchSpec(seed=0, mean=(0.0,), std=(1.0,))
    (expected,) = make_loader("resident", tiny_prepared, spec).batches(rows, SHOWN, epoch=0)
    for number in range(SHOWN):
        found = np.asarray(Image.open(folder / f"{number}.png"))
        assert np.abs(found / 255 - expected[number, 0].numpy()).max() <= 0.5 / 255 + 1e-6
    assert len(facts["copies"]) == SHOWN
    assert facts["copies"][0] == {"angle_degrees": 0, "zoom": 1, "flip_x": False, "flip_y": False, "noise_sigma": 0}


def test_both_figures_show_and_name_images_and_their_terms(out: Path) -> None:
    figures = figures_of(out)
    copies = texts(figures["augmentation"])
    assert "the image itself" in copies
    assert [text for text in copies if text.startswith("copy ")] == [f"copy {n}" for n in range(1, SHOWN)]
    rows = next(iter(read_results(out).predictions.values()))
    unaugmented = set(rows.loc[rows["copy"] == 0, "image_id"])
    samples = [text for text in texts(figures["samples"]) if text.endswith(".png")]
    assert len(samples) == 6
    assert all(any(name.endswith(text.lstrip("…")) for name in unaugmented) for text in samples)
    for name in ("augmentation", "samples"):
        assert "read the terms of the data set" in figures[name].caption
        assert "weights" not in figures[name].caption


def test_phantoms_are_called_phantoms(copied: Path) -> None:
    run = json.loads((copied / "run.json").read_text())
    run["data"]["synthetic_sources"] = ["tiny"]
    (copied / "run.json").write_text(json.dumps(run))
    record(copied / "run.json")
    caption = figures_of(copied)["samples"].caption
    assert "Phantom, not patients: tiny" in caption
    assert "terms" not in caption


@pytest.mark.parametrize("name", ["samples", "augmentation"])
def test_a_file_that_is_missing_damaged_or_of_another_size_is_named(copied: Path, name: str) -> None:
    pattern = "images/augmentation/*.png" if name == "augmentation" else "images/paper-*/test/*.png"
    files = sorted(copied.glob(pattern))
    for file in files:
        Image.new("L", (32, 32)).save(file)
    assert "is damaged: it was changed after it was written" in figures_of(copied)[name].reason
    for file in files:
        Image.new("L", (900, 700)).save(file)
    assert "900 x 700 pixels, not the run's 32 x 32" in figures_of(copied)[name].reason
    for file in files:
        file.write_bytes(b"no image")
    assert "not a readable PNG" in figures_of(copied)[name].reason
    for file in files:
        file.unlink()
    assert "no such file" in figures_of(copied)[name].reason


@pytest.mark.parametrize("facts", ["{}", "[]", '{"image_id": 1, "source": 2, "synthetic": 3, "copies": [1, 2]}', "x"])
def test_a_damaged_list_of_copies_is_named(copied: Path, facts: str) -> None:
    (copied / "images" / "augmentation" / "copies.json").write_text(facts)
    assert "copies.json" in figures_of(copied)["augmentation"].reason
