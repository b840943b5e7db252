"""What the hash of a data set depends on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_images import needs_dali, picture, record, run

from fusion.catalog import ImageRecord


def test_the_hash_does_not_depend_on_where_the_files_lie(tmp_path: Path, records: list[ImageRecord], out: Path) -> None:
    moved = tmp_path / "elsewhere" / "raw"
    shutil.copytree(tmp_path / "raw", moved)
    there = [record(moved / r.path.name, label=r.label) for r in records]
    first, second = run(records, out), run(there[::-1], tmp_path / "second")
    assert second.data_hash == first.data_hash
    assert second.manifest["plan_hash"] == first.manifest["plan_hash"]


@needs_dali
def test_the_hash_does_not_depend_on_the_name_of_the_decoder(tmp_path: Path) -> None:
    records = []
    for seed in range(3):  # grey PNGs of the right size, which both decoders give as they are
        path = tmp_path / f"{seed}.png"
        picture(seed, 32, 32).save(path)
        records.append(record(path))
    first = run(records, tmp_path / "first", image_size=32, decoder="dali")
    second = run(records, tmp_path / "second", image_size=32, decoder="torchvision")
    assert first.manifest["decoder"] != second.manifest["decoder"]
    assert first.data_hash == second.data_hash


@pytest.mark.parametrize("change", [{"label": 1}, {"group_id": "mine:other"}, {"synthetic": True}, {"image_id": "b"}])
def test_the_hash_tells_what_the_catalog_says(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "a.png"
    picture(0).save(path)
    first = run([record(path)], tmp_path / "first")
    second = run([record(path, **change)], tmp_path / "second")
    assert first.data_hash != second.data_hash


def test_the_hash_tells_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(0).save(path)
    first = run([record(path)], tmp_path / "first")
    picture(1).save(path)
    assert run([record(path)], tmp_path / "second").data_hash != first.data_hash
