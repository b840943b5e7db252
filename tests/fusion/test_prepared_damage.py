"""A prepared folder in which something was lost or changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_images import COUNT, SIZE, refuse, run

from fusion.catalog import ImageRecord
from fusion.checksums import SUMS, record
from fusion.masks import MASKS
from fusion.prepared import CATALOG, DUPLICATES, IMAGES, MANIFEST, QUARANTINE, load_prepared


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "first,second\n",
        "first,second,kind,hash_distance,similarity\n",
        "first,second,kind,hash_distance,similarity\nmine/00.png,mine/99.png,identical,0,1\n",
        "first,second,kind,hash_distance,similarity\nmine/00.png,mine/01.png,alike,0,1\n",
        "first,second,kind,hash_distance,similarity\nmine/00.png,mine/01.png,similar,few,1\n",
    ],
    ids=["gone", "empty", "columns", "count", "image", "kind", "number"],
)
def test_a_damaged_list_of_duplicates_is_refused(records: list[ImageRecord], out: Path, content: str | None) -> None:
    first, second = sorted(records, key=lambda r: r.image_id)[:2]
    shutil.copy(first.path, second.path)
    run(records, out)
    (out / DUPLICATES).unlink()
    if content is not None:
        (out / DUPLICATES).write_text(content)
        record(out / DUPLICATES)
    refuse("(is damaged .*: delete it|is missing; delete the folder) and prepare again", lambda: load_prepared(out))


def change_a_pixel(root: Path) -> None:
    images = np.load(root / IMAGES, mmap_mode="r+")
    images[0, 0, 0, 0] ^= 1
    images.flush()


def drop_from_manifest(key: str) -> Callable[[Path], None]:
    def drop(root: Path) -> None:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        del manifest[key]
        (root / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    return drop


def edit_manifest(**changes: object) -> Callable[[Path], object]:
    def edit(root: Path) -> None:
        manifest = json.loads((root / MANIFEST).read_text())
        manifest.update(changes)
        (root / MANIFEST).write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))

    return edit


def edit_catalog(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    return lambda root: change(pd.read_parquet(root / CATALOG)).to_parquet(root / CATALOG)


def truncate(name: str, keep: int) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:keep])


def replace_images(array: np.ndarray) -> Callable[[Path], object]:
    return lambda root: np.save(root / IMAGES, array, allow_pickle=True)


def as_npz(root: Path) -> None:
    with (root / IMAGES).open("wb") as file:
        np.savez(file, images=np.zeros((COUNT, 1, SIZE, SIZE), np.uint8))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda root: (root / MANIFEST).unlink(), "is missing.*is not a prepared data set"),
    "no folder": (shutil.rmtree, "is missing.*is not a prepared data set"),
    "manifest no JSON": (lambda root: (root / MANIFEST).write_text("{,"), "can't be read as JSON"),
    "manifest no UTF-8": (lambda root: (root / MANIFEST).write_bytes(b"\xff\xfe{}"), "can't be read as JSON"),
    "manifest too deep": (lambda root: (root / MANIFEST).write_text("[" * 10**6), "can't be read as JSON"),
    "manifest a list": (lambda root: (root / MANIFEST).write_text("[]"), "holds no JSON object"),
    "manifest truncated": (truncate(MANIFEST, 100), "can't be read as JSON"),
    "manifest without hash": (edit_manifest(data_hash=None), "is damaged"),
    "manifest without size": (edit_manifest(image_size=None), "is damaged"),
    "older format": (
        edit_manifest(format=1),
        "prepared in format 1, this version reads 2: delete it and prepare again",
    ),
    "other count": (edit_manifest(images=COUNT - 1), "do not fit its manifest"),
    "count no number": (edit_manifest(images="many"), "is damaged"),
    "one other pixel": (change_a_pixel, "do not fit its manifest"),
    "key missing": (drop_from_manifest("notes"), "its manifest lacks 'notes'"),
    "no images": (lambda root: (root / IMAGES).unlink(), "is damaged"),
    "images empty": (truncate(IMAGES, 0), "is damaged"),
    "images without end": (truncate(IMAGES, -1), "is damaged"),
    "images without pixels": (truncate(IMAGES, 60), "is damaged"),
    "images no array": (lambda root: (root / IMAGES).write_bytes(b"PK\x03\x04 no zip"), "is damaged"),
    "images an archive": (as_npz, "is damaged"),
    "images pickled": (replace_images(np.array([{"a": 1}], dtype=object)), "is damaged"),
    "images of floats": (replace_images(np.zeros((COUNT, 1, SIZE, SIZE))), "do not fit its manifest"),
    "images of other size": (replace_images(np.zeros((COUNT, 1, 8, 8), np.uint8)), "do not fit its manifest"),
    "no catalog": (lambda root: (root / CATALOG).unlink(), "is damaged"),
    "catalog empty": (truncate(CATALOG, 0), "is damaged"),
    "catalog truncated": (truncate(CATALOG, 500), "is damaged"),
    "catalog relabelled": (edit_catalog(lambda c: c.assign(label=1 - c["label"])), "do not fit its manifest"),
    "catalog shortened": (edit_catalog(lambda c: c.iloc[1:]), "do not fit its manifest"),
    "catalog reordered": (edit_catalog(lambda c: c.iloc[::-1]), "do not fit its manifest"),
    "catalog without groups": (edit_catalog(lambda c: c.drop(columns="group_id")), "do not fit its manifest"),
    "catalog without files": (edit_catalog(lambda c: c.drop(columns="file")), "do not fit its manifest"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_refused(finished: Path, kind: str) -> None:
    """By what its manifest says, as where an earlier version has left no checksums."""
    damage, message = DAMAGE[kind]
    load_prepared(finished)
    (finished / SUMS).unlink()
    damage(finished)
    refuse(message, lambda: load_prepared(finished))


@pytest.mark.parametrize("name", [IMAGES, MASKS, CATALOG, DUPLICATES, QUARANTINE, MANIFEST])
def test_no_changed_file_is_opened(finished: Path, name: str) -> None:
    content = bytearray((finished / name).read_bytes())
    content[-1] ^= 1
    (finished / name).write_bytes(content)
    refuse(f"({finished}|{name}) is damaged.* prepare again", lambda: load_prepared(finished))


def test_a_data_set_without_checksums_is_opened_with_a_note_and_prepare_adds_them(
    records: list[ImageRecord], out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(records, out)
    before = (out / SUMS).read_bytes()
    (out / SUMS).unlink()
    load_prepared(out)
    assert f"{out} has no checksums (an earlier version or a killed call)" in caplog.text
    run(records, out)
    assert (out / SUMS).read_bytes() == before


def test_a_file_that_is_gone_cannot_be_streamed(records: list[ImageRecord], out: Path) -> None:
    prepared = run(records, out)
    records[3].path.unlink()
    refuse(f"{records[3].path.name} is gone.*choose the loader 'resident'", prepared.files)
