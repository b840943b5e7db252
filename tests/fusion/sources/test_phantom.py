"""Tests for the phantoms: formats, determinism, difficulty and errors."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.signal import hilbert
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fusion.errors import UserError
from fusion.sources import phantom
from fusion.sources.phantom import phantom_counts, write_phantom

SCALE = 0.001  # the minimum of every count


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    # The matrices are small: threads would only wait for each other.
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "raw"
    write_phantom(out, scale=SCALE, workers=1)
    return out


def digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def read(path: Path) -> tuple[str, NDArray[np.uint8]]:
    """Return the mode of an image and its grey values."""
    with Image.open(path) as image:
        return image.mode, np.asarray(image.convert("L"))


def test_scale_one_has_the_counts_of_table_1() -> None:
    assert phantom_counts(1.0) == {
        "busi_benign": 437,
        "busi_malignant": 210,
        "busi_normal": 133,
        "oasbud_benign": 48,
        "oasbud_malignant": 52,
        "rsna_negative": 1200,
        "rsna_positive": 1158,
    }


def test_small_scales_keep_both_classes_everywhere() -> None:
    for scale in (1e-6, 0.01, 0.04):
        counts = phantom_counts(scale)
        assert counts["oasbud_benign"] + counts["oasbud_malignant"] >= 4
        assert min(counts["oasbud_benign"], counts["oasbud_malignant"]) >= 2
        assert all(n >= 8 for name, n in counts.items() if not name.startswith("oasbud"))


def test_plans_at_scale_one_draw_every_image_once(tmp_path: Path) -> None:
    counts = phantom_counts(1.0)
    busi = phantom._plan_busi(tmp_path / "busi", counts, seed=0)
    patients = phantom._plan_rsna(tmp_path / "rsna", counts, seed=0)
    lesions = phantom._plan_oasbud(counts, seed=0)
    views = [view for patient in patients for view in patient.views]

    assert len(busi) == len({image.name for image in busi}) == 780
    assert sum(image.lesions - 1 for image in busi if image.lesions) == 18
    assert 70 <= sum(image.view != "first" for image in busi) <= 85
    assert all(image.group <= image.item for image in busi)
    assert [sum(view.cancer == label for view in views) for label in (0, 1)] == [1200, 1158]
    assert len({view.image_id for view in views}) == 2358
    assert len({patient.views[0].patient_id for patient in patients}) == len(patients)
    assert sum(len({view.cancer for view in patient.views}) == 2 for patient in patients) > 100
    assert any(view.age is None for view in views)
    assert len(lesions) == 100
    assert sum(lesion.malignant for lesion in lesions) == 52
    assert len({lesion.code for lesion in lesions}) == 99


def test_busi_has_the_names_and_modes_of_the_real_set(tree: Path) -> None:
    folder = tree / "busi" / "Dataset_BUSI_with_GT"
    groups = json.loads((folder / "phantom.json").read_text())["groups"]
    images = [p for p in folder.glob("*/*.png") if "_mask" not in p.name]
    masks = [p for p in folder.glob("*/*.png") if "_mask" in p.name]

    names = {f"{kind} ({k})" for kind in ("benign", "malignant", "normal") for k in range(1, 9)}
    assert {p.stem for p in images} == names == set(groups)
    assert {p.parent.name for p in images} == {"benign", "malignant", "normal"}
    assert len(set(groups.values())) < len(groups)
    assert {p.name for p in masks} == {f"{name}_mask.png" for name in names} | {"benign (4)_mask_1.png"}
    assert {read(p)[0] for p in images} == {"RGB", "L", "RGBA"}
    assert {read(p)[0] for p in masks} == {"1", "L", "RGBA"}
    for path in masks:
        grey = read(path)[1]
        image = read(path.with_name(path.name.split("_mask")[0] + ".png"))[1]
        assert grey.shape == image.shape
        assert grey.any() == (path.parent.name != "normal")
        assert set(np.unique(grey)) <= {0, 255}


def test_oasbud_has_the_fields_shapes_and_dtypes_of_the_real_file(tree: Path) -> None:
    mat = loadmat(tree / "oasbud" / "OASBUD.mat")
    data = mat["data"]

    assert mat["phantom"].item() == 1
    assert data.shape == (1, 4)
    assert data.dtype.names == ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")
    assert sorted(int(np.ravel(row["class"])[0]) for row in data[0]) == [0, 0, 1, 1]
    assert len({str(row["id"][0]) for row in data[0]}) == 3
    for row in data[0]:
        assert row["id"].shape == row["birads"].shape == (1,)
        assert row["birads"][0] in {"3", "4a", "4b", "4c", "5"}
        assert row["class"].dtype == np.uint8
        assert row["class"].shape == (1, 1)
        for rf, roi in ((row["rf1"], row["roi1"]), (row["rf2"], row["roi2"])):
            assert rf.dtype == np.int16
            assert roi.dtype == np.uint8
            assert rf.shape == roi.shape
            assert rf.shape[1] == 510
            assert 1558 <= rf.shape[0] <= 2596
            assert set(np.unique(roi)) == {0, 1}
            assert np.abs(rf[1:3].astype(int)).max() > 10_000


def test_oasbud_holds_echoes_of_a_10_mhz_pulse(tree: Path) -> None:
    rf = loadmat(tree / "oasbud" / "OASBUD.mat")["data"][0, 0]["rf1"][20:].astype(float)

    power = (np.abs(np.fft.rfft(rf, axis=0)) ** 2).mean(1)
    frequency = np.fft.rfftfreq(len(rf), 1 / 40)

    assert abs((power * frequency).sum() / power.sum() - 10) < 0.5


def test_rsna_has_the_columns_and_files_of_the_real_set(tree: Path) -> None:
    table = pd.read_csv(tree / "rsna" / "train.csv")
    files = {str(p.relative_to(tree / "rsna" / "train")) for p in tree.glob("rsna/train/*/*.png")}

    columns = "site_id,patient_id,image_id,laterality,view,age,implant,machine_id,cancer"
    assert ",".join(table.columns) == columns
    assert files == {f"{row.cancer}/{row.patient_id}_{row.image_id}.png" for row in table.itertuples()}
    assert table["cancer"].value_counts().to_dict() == {0: 8, 1: 8}
    for name in files:
        mode, pixels = read(tree / "rsna" / "train" / name)
        assert (mode, pixels.shape) == ("L", (256, 256))
    assert json.loads((tree / "rsna" / "phantom.json").read_text())["phantom"] is True


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom, "POOL_FROM", 0)
    seen = []
    write_phantom(tmp_path / "two", scale=SCALE, workers=2, progress=lambda done, total: seen.append((done, total)))

    assert digests(tmp_path / "two") == digests(tree)
    assert seen == [(k, len(seen)) for k in range(1, len(seen) + 1)]


def test_another_seed_gives_other_pictures(tree: Path) -> None:
    job = phantom.BusiImage(folder=tree, kind="benign", number=1, item=0, group=0, view="first", lesions=1, seed=1)
    other = read(tree / "busi" / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png")[1]

    assert not np.array_equal(job.draw()[0], other)


def busi(item: int, malignant: bool) -> NDArray[np.uint8]:
    """Return a B-mode image on a coarse grid, enough for a thumbnail."""
    rng = np.random.default_rng([item, 5])
    grid = phantom.physics.Grid(rows=150, columns=180, depth_mm=rng.uniform(32, 46), width_mm=40)
    level, _ = phantom.physics.echo_map(rng, grid, phantom.physics.draw_lesions(rng, malignant, grid, 1))
    return phantom.physics.b_mode(rng, level, grid, phantom.physics.draw_display(rng))


def oasbud(item: int, malignant: bool) -> NDArray[np.uint8]:
    rf, _ = phantom.OasbudLesion(item=item, code="", malignant=malignant, seed=5).draw(0)
    level = 20 * np.log10(np.abs(hilbert(rf[20:, ::8].astype(float), axis=0)) + 1)
    return (255 * np.clip((level - 40) / 40, 0, 1)).astype(np.uint8)


def ultrasound(item: int, malignant: bool) -> NDArray[np.uint8]:
    return (oasbud if item % 12 == 0 else busi)(item, malignant)


def mammography(item: int, malignant: bool) -> NDArray[np.uint8]:
    rng = np.random.default_rng([item, 5])
    breast = phantom.physics.draw_breast(rng, malignant)
    return phantom.physics.mammogram(rng, breast, ("CC", "MLO")[item % 2], left=item % 3 == 0)


@pytest.mark.parametrize("draw", [ultrasound, mammography])
def test_thumbnails_do_not_tell_the_classes_apart(draw: Callable[[int, bool], NDArray[np.uint8]]) -> None:
    labels = np.arange(200) % 3 % 2
    images = [Image.fromarray(draw(k, bool(label))) for k, label in enumerate(labels)]
    thumbnails = np.stack([np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)) for image in images])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    accuracy = cross_val_score(model, thumbnails.reshape(len(labels), -1), labels, cv=folds)

    assert accuracy.mean() < 0.75


def test_near_duplicates_resemble_their_first_image() -> None:
    def draw(item: int, view: str) -> NDArray[np.uint8]:
        return phantom.BusiImage(
            folder=Path(), kind="benign", number=1, item=item, group=0, view=view, lesions=1, seed=0
        ).draw()[0]

    first, gain, crop, plane = draw(0, "first"), draw(1, "gain"), draw(2, "crop"), draw(3, "plane")

    assert gain.shape == plane.shape == first.shape
    assert np.corrcoef(gain.ravel(), first.ravel())[0, 1] > 0.8
    assert crop.shape < first.shape
    assert not np.array_equal(gain, first)


def test_finished_folder_is_found_and_left_alone(tree: Path) -> None:
    before = digests(tree)

    assert write_phantom(tree, scale=SCALE) == phantom_counts(SCALE)
    assert digests(tree) == before


def test_other_scale_or_seed_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"scale 0\.001, seed 0, .* not scale 0\.001, seed 3"):
        write_phantom(tree, scale=SCALE, seed=3)
    with pytest.raises(UserError, match=r"scale 0\.001, seed 0, .* not scale 0\.02, seed 0"):
        write_phantom(tree, scale=0.02)


def test_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(UserError, match="not a finished phantom folder"):
        write_phantom(tmp_path, scale=SCALE)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("scale", [0.0, -1.0, 10.5, float("nan")])
def test_scale_out_of_range_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(UserError, match="above 0 and at most 10"):
        write_phantom(tmp_path / "out", scale=scale)


def test_negative_seed_and_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed -1"):
        write_phantom(tmp_path / "out", seed=-1)
    with pytest.raises(UserError, match="workers 0"):
        write_phantom(tmp_path / "out", workers=0)


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="cannot be written") as caught:
        write_phantom(tmp_path / "file" / "out", scale=SCALE)
    assert "\n" not in str(caught.value)


def test_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", scale=SCALE, workers=1, progress=stop)
    assert not any(tmp_path.iterdir())
