"""The explanations of a run: what is written, found again, and refused."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import write_textures
from PIL import Image

from bench.explain import Plan, Summary, explain, shown_rows
from bench.explanation_rows import EXPLANATION_COLUMNS, IMAGE_COLUMNS
from bench.overlay import OUTLINE, SMALLEST_SIDE, overlay
from bench.report import build_tables, read_results
from bench.report.explanations import explanations_table
from bench.report.read_explanations import read_explanations
from bench.report.summary import mean_interval
from bench.run_images import find_test_rows
from fusion.checksums import record
from fusion.errors import UserError
from fusion.prepare import prepare
from fusion.prepared import Prepared
from fusion.sources.folder import read_folder

CELLS = ("model2/mobilenet_v2+sgdm", "model3/cnn17+e1+b8", "ablation/cnn17+mammography")
CNN = "model3/cnn17+e1+b8"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Textures whose ultrasound images have a square lesion."""
    root = tmp_path_factory.mktemp("masked")
    records, notes = read_folder("tiny", write_textures(root / "raw", seed=0))
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 5:20] = 255
    Image.fromarray(mask).save(root / "mask.png")
    records = [replace(one, masks=(root / "mask.png",) if one.modality == "ultrasound" else ()) for one in records]
    return prepare(records, root / "data", image_size=32, decoder="torchvision", notes=notes, progress=lambda *_: None)


@pytest.fixture(scope="module")
def made(run_tiny: Callable[..., Any], masked: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its explanations; tests only read it."""
    out = tmp_path_factory.mktemp("explained") / "run"
    assert run_tiny(out, [*CELLS, "model1/mobilenet_v2+lr"], prepared=masked, protocols=("clean",)).done == 4
    assert explained(out) == Summary(explained=3, found=0, failed=())
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def explained(out: Path, **changes: Any) -> Summary:
    plan = Plan(**{"images": 4, "device": "cpu", **changes})
    return explain(out, plan, progress=lambda *_: None, finished=lambda _: None)


def folder(out: Path, cell: str = CNN) -> Path:
    return out / "explanations" / "clean" / "0" / cell


def test_masks_of_the_run_are_those_of_the_data(made: Path, masked: Prepared) -> None:
    rows = find_test_rows(made, made / "cells" / "clean" / "0" / CNN)
    ultrasound = rows.predictions.index[rows.predictions["modality"] == "ultrasound"]
    assert sorted(rows.mask_files) == list(ultrasound)
    with Image.open(rows.mask_files[int(ultrasound[0])]) as image:
        assert image.mode == "1"
        assert (np.asarray(image) == masked.masks_u8[0]).all()


def test_what_is_written_of_a_cell(made: Path) -> None:
    found = read_explanations(made)
    assert set(found) == {("clean", 0, cell) for cell in CELLS}
    one = found["clean", 0, CNN]
    assert (tuple(one.rows.columns), tuple(one.images.columns)) == (EXPLANATION_COLUMNS, IMAGE_COLUMNS)
    rows = find_test_rows(made, made / "cells" / "clean" / "0" / CNN)
    with_mask = one.images[one.images["mask_area"].notna()]
    assert sorted(with_mask["row"]) == sorted(rows.mask_files)  # scores are of all, not of those shown alone
    assert len(one.pictures) == 4
    for file in one.pictures.values():
        with Image.open(file) as picture:
            assert (picture.size, picture.mode) == ((256, 256), "RGB")
    kept = rows.predictions.loc[one.images["row"]]
    assert kept["image_id"].tolist() == one.images["image_id"].tolist()
    assert kept["probability"].tolist() == pytest.approx(one.images["probability"].tolist())
    shown = one.images[one.images["shown"] == 1]
    assert sorted(zip(shown["modality"], shown["label"], strict=True)) == [
        *(("mammography", 0), ("mammography", 1), ("ultrasound", 0), ("ultrasound", 1))
    ]
    captions = one.captions()
    assert [line["label"] for line in captions] == [0, 0, 1, 1]
    assert {line["file"] for line in captions} == set(one.pictures.values())


def test_a_cell_without_masks_has_pictures_and_no_scores(made: Path) -> None:
    one = read_explanations(made)["clean", 0, "ablation/cnn17+mammography"]
    scores = one.rows.set_index("metric")
    assert scores["value"].drop("zero_maps").isna().all()
    assert scores.at["mask_share", "n"] == 0
    assert len(one.pictures) == 4


def test_the_table_says_what_it_rests_on(made: Path) -> None:
    table = build_tables(read_results(made))["explanations"]
    assert set(table.frame["cell"]) == set(CELLS)
    rows = read_explanations(made)["clean", 0, CNN].rows.set_index("metric")
    line = table.frame.set_index("cell").loc[CNN]
    for metric in ("mask_share", "mask_gain", "pointing_hit"):
        assert line[metric] == pytest.approx(rows.at[metric, "value"], nan_ok=True)
        assert line[f"{metric}_high"] == pytest.approx(rows.at[metric, "high"], nan_ok=True)
    assert "not pre-trained" in " ".join(table.notes)


def test_explained_cells_are_found_and_those_of_other_weights_are_not(out: Path) -> None:
    assert explained(out) == Summary(explained=0, found=3, failed=())
    assert explained(out, images=2) == Summary(explained=0, found=3, failed=())
    assert explained(out, images=8, only=[CNN]).explained == 1
    assert explained(out, again=True, only=["model3/*"]).explained == 1
    other = out / "cells" / "clean" / "0" / CNN / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-4] + bytes(4))
    record(other)
    assert explained(out) == Summary(explained=1, found=2, failed=())
    next(folder(out, CELLS[0]).glob("*.png")).unlink()
    assert explained(out) == Summary(explained=1, found=2, failed=())
    (folder(out, CELLS[0]) / "rows.csv").write_text("nothing")
    assert explained(out) == Summary(explained=1, found=2, failed=())


def test_one_of_each_network_is_explained_at_the_end_of_a_run(out: Path) -> None:
    shutil.rmtree(out / "explanations")
    assert explained(out, every=False).explained == 2
    assert {key[2] for key in read_explanations(out)} == set(CELLS[:2])


def test_explanations_of_a_cell_that_is_another_now_are_left_out(out: Path) -> None:
    path = folder(out) / "rows.csv"
    rows = pd.read_csv(path).assign(config_hash="0" * 64)
    rows.to_csv(path, index=False)
    record(path)
    table = build_tables(read_results(out))["explanations"]
    assert CNN not in set(table.frame["cell"])
    assert f"left out, as the cell was run again since or is gone: {CNN}" in table.notes


def test_explanations_of_a_cell_that_was_trained_anew_are_left_out(out: Path) -> None:
    path = out / "cells" / "clean" / "0" / CNN / "predictions.parquet"
    predictions = pd.read_parquet(path)
    predictions["probability"] = predictions["probability"].to_numpy() * 0.999
    predictions.to_parquet(path, index=False)
    record(path)
    table = build_tables(read_results(out))["explanations"]
    assert CNN not in set(table.frame["cell"])
    assert f"left out, as the cell was run again since or is gone: {CNN}" in table.notes


def test_one_cell_that_fails_does_not_end_the_others(out: Path) -> None:
    shutil.rmtree(out / "explanations")
    (out / "cells" / "clean" / "0" / CNN / "model.safetensors").write_bytes(b"no weights")
    summary = explained(out)
    assert summary.explained == 2
    assert summary.failed[0].startswith(f"clean/0/{CNN}: ")
    assert not folder(out).exists()


def test_seeds_that_differ_widen_the_interval_of_a_score(out: Path) -> None:
    one = read_results(out).explanations["clean", 0, CNN]
    ends = {"value": (0.1, 0.5), "low": (0.08, 0.48), "high": (0.12, 0.52)}
    seeds = {
        ("clean", seed, CNN): replace(one, rows=one.rows.assign(**{name: two[seed] for name, two in ends.items()}))
        for seed in (0, 1)
    }
    (line,) = explanations_table(seeds, [CNN], [], ()).frame.to_dict("records")
    expected = mean_interval(*(np.array(two) for two in ends.values()))
    assert (line["mask_share"], line["mask_share_low"], line["mask_share_high"]) == (pytest.approx(0.3), *expected)
    assert line["mask_gain_high"] > 1 > line["mask_share_high"] - 1e-9


def test_masks_that_are_gone_are_named(out: Path) -> None:
    rows = find_test_rows(out, out / "cells" / "clean" / "0" / CNN)
    shutil.rmtree(next(iter(rows.mask_files.values())).parent)
    (failure,) = explained(out, only=[CNN]).failed
    assert "mask is missing: call the same 'fusebench run' again" in failure


def test_a_damaged_mask_of_the_run_is_named(out: Path) -> None:
    rows = find_test_rows(out, out / "cells" / "clean" / "0" / CNN)
    next(iter(rows.mask_files.values())).write_bytes(b"no mask")
    (failure,) = explained(out, only=[CNN]).failed
    assert "mask/" in failure
    assert "call the same 'fusebench run' again" in failure


def edited(name: str, column: str, value: object) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        frame = pd.read_csv(place / name, dtype=str)
        frame[column] = value
        frame.to_csv(place / name, index=False)
        record(place / name)

    return edit


def edited_lines(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    record(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (lambda place: (place / "images.csv").unlink(), "is missing"),
    "no text": (lambda place: (place / "rows.csv").write_bytes(b"\xff\xfe\x00"), "is damaged: it was changed"),
    "another column": (edited("rows.csv", "more", 1), "its columns are not"),
    "another place": (edited("rows.csv", "cell", "model2/x"), "does not belong here"),
    "another metric": (edited("rows.csv", "metric", "auc"), "its metrics are not"),
    "a value as text": (edited("rows.csv", "value", "high"), "value 'high' is not a number"),
    "a share of 2": (edited("images.csv", "mask_share", 2), "is not within 0 and 1"),
    "a row that is a path": (edited("images.csv", "row", "../../x"), "row '../../x' is not a whole number"),
    "a lost line": (lambda place: edited_lines(place / "images.csv"), "does not have a line for each image"),
    "a lost picture": (lambda place: next(place.glob("*.png")).unlink(), "it is no file"),
    "a row twice": (edited("images.csv", "row", 1), "a row occurs twice"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_explanations_are_named(out: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder(out))
    with pytest.raises(UserError, match=message) as caught:
        read_explanations(out)
    assert str(folder(out)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_from_files_are_shown_on_one_line(out: Path) -> None:
    edited("images.csv", "image_id", "a\x1b[31m\nb")(folder(out))
    assert set(read_explanations(out)["clean", 0, CNN].images["image_id"]) == {"a b"}


def test_shown_rows_take_turns_and_skip_copies() -> None:
    lines = [
        {"image_id": f"{modality}/{label}/{number}", "copy": int(number == 0), "modality": modality, "label": label}
        for modality in ("mammography", "ultrasound")
        for label in (0, 1)
        for number in range(5)
    ]
    frame = pd.DataFrame(lines)
    masked = [17, 18]
    rows = shown_rows(frame, masked, 6)
    assert len(rows) == len(set(rows)) == 6
    assert (frame.loc[rows, "copy"] == 0).all()
    assert set(frame.loc[rows[:4], ["modality", "label"]].itertuples(index=False, name=None)) == {
        (modality, label) for modality in ("mammography", "ultrasound") for label in (0, 1)
    }
    digest = {row: hashlib.sha256(frame.at[row, "image_id"].encode()).hexdigest() for row in masked}
    assert next(row for row in rows if row >= 15) == min(masked, key=lambda row: digest[row])
    assert shown_rows(frame, masked, 3) == rows[:3]
    assert shown_rows(frame.iloc[:0], [], 3) == []


@pytest.mark.parametrize("size", [32, 300])
def test_a_picture_shows_image_map_and_outline(size: int) -> None:
    image_u8 = np.full((size, size), 100, np.uint8)
    activation, mask = np.zeros((size, size), np.float32), np.zeros((size, size), bool)
    activation[size // 2 :, :] = 3
    mask[: size // 4, : size // 4] = True
    pixels = np.asarray(overlay(image_u8, activation, mask))
    factor = len(pixels) // size
    assert len(pixels) >= SMALLEST_SIDE
    assert (pixels[factor * size // 3, -1] == 100).all()  # where the map is zero the image is left alone
    assert (pixels[-1, -1] != 100).any()
    assert tuple(pixels[0, 0]) == OUTLINE
    assert (pixels[factor * size // 8, factor * size // 8] == 100).all()
    assert (np.asarray(overlay(image_u8, np.zeros((size, size)), None)) == 100).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "model1/*"], "no finished network fits model1/\\*; cells of model2, model3"),
        (["--images", "0"], "--images 0 is not a whole number from 1"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
    ],
)
def test_the_command_refuses(made: Path, refusal: Callable[..., str], arguments: list[str], message: str) -> None:
    assert re.search(message, refusal("explain", made, *arguments))


def test_the_command_explains_and_says_what_it_found(out: Path, call: Call) -> None:
    code, text, _ = call("explain", out, "--images", 4, "--device", "cpu")
    assert code == 0
    assert "0 cells explained, 3 found explained, 0 failed" in text
    assert "Class-activation maps" in text
    assert f"next: look at {out}/explanations/" in text
