"""Masks of every kind that data sets hold, and their way into a prepared folder."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusion import images
from fusion.catalog import ImageRecord
from fusion.errors import UserError
from fusion.images import UnreadableImageError
from fusion.masks import MASKS, read_mask, resize_mask
from fusion.prepare import prepare
from fusion.prepared import QUARANTINE, Prepared, load_prepared

WIDTH, HEIGHT, SIZE = 61, 43, 32
LESION = (slice(10, 30), slice(35, 55))


def drawn(*boxes: tuple[slice, slice], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for box in boxes:
        mask[box] = True
    return mask


def grey(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def with_alpha(mask: np.ndarray, mode: str, alpha: int) -> Image.Image:
    image = grey(mask).convert(mode)
    image.putalpha(alpha)
    return image


MODES: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "one bit": lambda mask: grey(mask).convert("1"),
    "grey": grey,
    "RGB": lambda mask: grey(mask).convert("RGB"),
    "palette": lambda mask: grey(mask).convert("P"),
    "RGBA, all on": lambda mask: with_alpha(mask, "RGBA", 255),
    "RGBA, all off": lambda mask: with_alpha(mask, "RGBA", 0),
    "LA, all on": lambda mask: with_alpha(mask, "LA", 255),
    "LA, all off": lambda mask: with_alpha(mask, "LA", 0),
    "16 bit": lambda mask: Image.fromarray(np.where(mask, 65535, 0).astype(np.uint16)),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_a_mask_changes_nothing(tmp_path: Path, mode: str) -> None:
    MODES[mode](drawn(LESION)).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png", WIDTH, HEIGHT) == drawn(LESION)).all()


def test_an_empty_mask_is_empty_whatever_its_alpha_says(tmp_path: Path) -> None:
    with_alpha(drawn(), "RGBA", 255).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png", WIDTH, HEIGHT).any()


def test_a_resized_pixel_is_lesion_when_more_than_half_of_it_is() -> None:
    mask = drawn((slice(0, 8), slice(0, 7)), height=16, width=16)
    assert np.flatnonzero(resize_mask(mask, 4)[0]).tolist() == [0, 1]
    assert np.flatnonzero(resize_mask(mask, 4)[:, 0]).tolist() == [0, 1]
    assert (resize_mask(mask, 16) == mask).all()


def record(folder: Path, name: str, masks: int = 1) -> ImageRecord:
    draw = np.random.default_rng(len(name))
    pixels = draw.integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)
    pixels[LESION] = 250
    Image.fromarray(pixels).save(folder / f"{name}.png")
    paths = tuple(folder / f"{name}_mask_{number}.png" for number in range(masks))
    for path in paths:
        grey(drawn(LESION)).save(path)
    return ImageRecord(
        image_id=f"a/{name}",
        source="a",
        modality="ultrasound",
        label=0,
        group_id=name,
        path=folder / f"{name}.png",
        masks=paths,
    )


def prepared_of(records: list[ImageRecord], out: Path, strict: bool = False) -> Prepared:
    return prepare(records, out, image_size=SIZE, decoder="torchvision", strict=strict, progress=lambda *_: None)


def test_a_mask_has_the_geometry_of_its_image(tmp_path: Path) -> None:
    prepared = prepared_of([record(tmp_path, "seen"), record(tmp_path, "unseen", masks=0)], tmp_path / "out")
    mask = prepared.mask(0)
    assert mask is not None
    assert prepared.mask(1) is None
    bright = prepared.images_u8[0, 0] > 150
    assert (mask & bright).sum() / (mask | bright).sum() > 0.9
    assert prepared.manifest["masks"] == 1
    assert prepared.manifest["notes"] == ["masks: 1 of 2 images have one"]


def test_several_masks_are_one(tmp_path: Path) -> None:
    one = record(tmp_path, "one", masks=2)
    other = (slice(30, 42), slice(2, 12))
    grey(drawn(other)).save(one.masks[1])
    mask = prepared_of([one], tmp_path / "out").mask(0)
    assert (mask == resize_mask(drawn(LESION, other), SIZE)).all()


def big(path: Path) -> None:
    Image.new("1", (images.MAX_PIXELS // 1000 + 1, 1000)).save(path)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file"),
    "no image": (lambda path: path.write_text("mask"), "not a readable PNG"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated or damaged"),
    "other size": (lambda path: grey(drawn().T).save(path), "43 x 61 pixels, but the image has 61 x 43"),
    "huge": (big, "more than the limit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mask_that_is_no_mask_is_named_and_its_image_stays(tmp_path: Path, fault: str) -> None:
    damage, reason = FAULTS[fault]
    records = [record(tmp_path, "bad", masks=2), record(tmp_path, "good")]
    damage(records[0].masks[1])
    prepared = prepared_of(records, tmp_path / "out")
    assert prepared.catalog["mask"].tolist() == [-1, 1]
    (line,) = pd.read_csv(tmp_path / "out" / QUARANTINE).to_dict("records")
    assert line["path"] == str(records[0].masks[1])
    assert reason in line["reason"]
    assert line["reason"].endswith("a/bad has no mask")
    with pytest.raises(UserError, match="--strict stops at the first unreadable file"):
        prepared_of(records, tmp_path / "strict", strict=True)


def test_a_mask_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    one = record(tmp_path, "one", masks=0)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        read_mask(tmp_path / "pipe.png", WIDTH, HEIGHT)
    piped = ImageRecord(**{**vars(one), "masks": (tmp_path / "pipe.png",)})
    assert prepared_of([piped], tmp_path / "out").mask(0) is None


def test_an_empty_mask_is_none_and_counted(tmp_path: Path) -> None:
    records = [record(tmp_path, "empty"), record(tmp_path, "vanishing"), record(tmp_path, "whole")]
    grey(drawn()).save(records[0].masks[0])
    grey(drawn((slice(20, 21), slice(20, 21)))).save(records[1].masks[0])
    prepared = prepared_of(records, tmp_path / "out")
    assert [prepared.mask(image) is None for image in range(3)] == [True, True, False]
    assert prepared.manifest["notes"][-1] == f"masks: 2 are empty at {SIZE} px, which counts as none"


def test_masks_change_the_plan_and_not_the_data(tmp_path: Path) -> None:
    one = record(tmp_path, "one")
    first = prepared_of([one], tmp_path / "first")
    grey(drawn((slice(0, 20), slice(0, 20)))).save(one.masks[0])
    second = prepared_of([one], tmp_path / "second")
    assert second.data_hash == first.data_hash
    assert second.manifest["masks_hash"] != first.manifest["masks_hash"]
    with pytest.raises(UserError, match="already holds another prepared data set"):
        prepared_of([one], tmp_path / "first")


def one_other_pixel(root: Path) -> None:
    masks_u8 = np.load(root / MASKS, mmap_mode="r+")
    masks_u8[0, 0, 0] ^= 1
    masks_u8.flush()


def other_place(root: Path) -> None:
    catalog = pd.read_parquet(root / "catalog.parquet")
    catalog.assign(mask=5).to_parquet(root / "catalog.parquet", index=False)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one other pixel": one_other_pixel,
    "a place that is not there": other_place,
    "no file": lambda root: (root / MASKS).unlink(),
    "another size": lambda root: np.save(root / MASKS, np.zeros((1, 8, 8), np.uint8)),
    "no array": lambda root: (root / MASKS).write_bytes(b"masks"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_masks_are_refused(tmp_path: Path, kind: str) -> None:
    prepared_of([record(tmp_path, "one")], tmp_path / "out")
    load_prepared(tmp_path / "out")
    DAMAGE[kind](tmp_path / "out")
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(tmp_path / "out")
