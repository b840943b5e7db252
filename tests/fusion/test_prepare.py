"""What a prepared data set holds, and what is refused or put in quarantine."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_images import BATCH, COUNT, SIZE, needs_dali, picture, record, refuse, run, write_images

from fusion import decode
from fusion import prepare as preparing
from fusion.catalog import ImageRecord
from fusion.checksums import SUMS
from fusion.decode import decode_and_resize, decode_torchvision
from fusion.masks import MASKS
from fusion.prepared import CATALOG, DUPLICATE_COLUMNS, DUPLICATES, IMAGES, MANIFEST, QUARANTINE, load_prepared


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_a_prepared_data_set(records: list[ImageRecord], out: Path, decoder: decode.Decoder) -> None:
    prepared = run(records, out, decoder=decoder, notes=["a remark"])
    files = [IMAGES, MASKS, CATALOG, MANIFEST, QUARANTINE, DUPLICATES, SUMS]
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    assert prepared.images_u8.shape == (COUNT, 1, SIZE, SIZE)
    assert prepared.images_u8.dtype == np.uint8
    assert not prepared.images_u8.flags.writeable
    assert prepared.image_size == SIZE
    catalog = prepared.catalog
    assert catalog["image_id"].tolist() == [f"mine/{i:02}.png" for i in range(COUNT)]
    assert catalog["label"].tolist() == [i % 2 for i in range(COUNT)]
    assert catalog["width"].tolist() == [30 + i for i in range(COUNT)]
    assert catalog["height"].tolist() == [50 - i for i in range(COUNT)]
    assert catalog["file"].tolist() == [str(Path(path).resolve()) for path in catalog["path"]]
    (expected,) = decode_and_resize([Path(file) for file in catalog["file"]], SIZE, decoder)
    np.testing.assert_array_equal(prepared.images_u8, expected)
    manifest = prepared.manifest
    assert manifest["images"] == manifest["groups"] == COUNT
    assert manifest["image_size"] == SIZE
    assert manifest["decoder"] == decoder
    assert manifest["decoded_by_pillow"] == manifest["quarantined"] == 0
    assert manifest["duplicate_pairs"] == manifest["class_conflicts"] == 0
    assert manifest["notes"] == ["a remark"]
    assert manifest["counts"] == [
        {"source": "mine", "modality": "other", "label": 0, "images": 7, "copies": 7},
        {"source": "mine", "modality": "other", "label": 1, "images": 6, "copies": 6},
    ]
    assert manifest["software"]["numpy"] == np.__version__


def test_it_is_opened_again_as_it_was(records: list[ImageRecord], out: Path) -> None:
    prepared = run(records, out)
    loaded = load_prepared(out)
    np.testing.assert_array_equal(loaded.images_u8, prepared.images_u8)
    pd.testing.assert_frame_equal(loaded.catalog, prepared.catalog)
    assert loaded.manifest == prepared.manifest
    assert loaded.data_hash == prepared.data_hash
    pd.testing.assert_frame_equal(loaded.duplicates, prepared.duplicates)
    assert loaded.files() == [Path(file) for file in prepared.catalog["file"]]


def test_copies_are_counted_as_in_table_1(tmp_path: Path, out: Path) -> None:
    kinds = [("ultrasound", 0), ("ultrasound", 1), ("mammography", 0), ("mammography", 1), ("ultrasound", 1)]
    plain = sorted(write_images(tmp_path / "raw", len(kinds)), key=lambda r: r.image_id)
    changed = [record(r.path, modality=m, label=y, synthetic=True) for r, (m, y) in zip(plain, kinds, strict=True)]
    prepared = run(changed, out)
    counts = {(line["modality"], line["label"]): line["copies"] for line in prepared.manifest["counts"]}
    assert counts == {
        ("mammography", 0): 1,
        ("mammography", 1): 1,
        ("ultrasound", 0): 3,
        ("ultrasound", 1): 8,
    }
    assert prepared.synthetic_sources == ["mine"]


def test_duplicates_share_a_group_and_conflicts_are_marked(records: list[ImageRecord], out: Path) -> None:
    first, second = sorted(records, key=lambda r: r.image_id)[:2]
    shutil.copy(first.path, second.path)
    prepared = run(records, out)
    assert prepared.catalog["group_id"].tolist()[:3] == ["mine:00", "mine:00", "mine:02"]
    assert prepared.catalog["class_conflict"].tolist()[:3] == [True, True, False]
    manifest = prepared.manifest
    assert (manifest["duplicate_pairs"], manifest["groups"], manifest["class_conflicts"]) == (1, COUNT - 1, 2)
    # what was found stays apart from what the reader knew
    assert prepared.catalog["source_group"].tolist()[:3] == ["mine:00", "mine:01", "mine:02"]
    assert tuple(prepared.duplicates) == DUPLICATE_COLUMNS
    assert prepared.duplicates.to_numpy().tolist() == [["mine/00.png", "mine/01.png", "identical", 0, 1.0]]


@pytest.mark.usefixtures("small_batches")
def test_progress_is_told_to_the_end(records: list[ImageRecord], out: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(records, out, progress=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "check files"] == [("check files", i + 1, COUNT) for i in range(COUNT)]
    assert [done for stage, done, _ in told if stage == "decode and resize"] == [0, 4, 8, 12, 13]
    assert told[-1] == ("find duplicates", COUNT, COUNT)


def test_unreadable_files_go_to_quarantine(tmp_path: Path, records: list[ImageRecord], out: Path) -> None:
    truncated, text, gone = (tmp_path / name for name in ("truncated.png", "text.png", "gone.png"))
    whole = records[0].path.read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    text.write_text("no image\n" * 9)
    prepared = run([*records, record(truncated), record(text), record(gone)], out)
    assert len(prepared.catalog) == prepared.manifest["images"] == len(prepared.images_u8) == COUNT
    assert prepared.manifest["quarantined"] == 3
    table = pd.read_csv(out / QUARANTINE).set_index("path")["reason"]
    assert set(table.index) == {str(truncated), str(text), str(gone)}
    assert "truncated or damaged" in table[str(truncated)]
    assert "not a readable PNG" in table[str(text)]
    assert table[str(gone)] == "no such file"


def test_without_bad_files_the_quarantine_is_an_empty_table(records: list[ImageRecord], out: Path) -> None:
    run(records, out)
    table = pd.read_csv(out / QUARANTINE)
    assert table.columns.tolist() == ["path", "reason"]
    assert table.empty


def test_strict_stops_at_an_unreadable_file(tmp_path: Path, records: list[ImageRecord], out: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    refuse(r"bad\.png: not a readable.*--strict", lambda: run([*records, record(bad)], out, strict=True))
    assert not (out / MANIFEST).exists()
    run(records, out, strict=True)


def test_nothing_readable(tmp_path: Path, out: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(b"no image")
    refuse(r"none of the 2 files can be read; the first: .*a\.png", lambda: run([record(p) for p in paths], out))
    refuse("no image was found in any source", lambda: run([], out))


def test_two_records_of_one_name(records: list[ImageRecord], out: Path) -> None:
    refuse("image id 'mine/00.png' occurs 2 times", lambda: run([*records, records[-1]], out))


@pytest.mark.parametrize("size", [-1, 0, 7, 2049])
def test_image_size_outside_its_range(records: list[ImageRecord], out: Path, size: int) -> None:
    refuse(f"image size {size} is outside 8..2048", lambda: run(records, out, image_size=size))
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, records: list[ImageRecord]) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    refuse("can't create the folder", lambda: run(records, place))
    refuse("can't create the folder", lambda: run(records, place / "below"))
    assert place.read_text() == "mine"


def test_a_16_bit_image_keeps_its_contrast(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "deep.png"
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(path)
    prepared = run([record(path)], out, image_size=64, decoder=None)
    row = prepared.images_u8[0, 0, 30].astype(int)
    assert row[0] == 0
    assert row[-1] == 255
    assert np.all(np.diff(row) >= 2)
    file = prepared.files()[0]
    assert file.parent == (out / "converted").resolve()
    with Image.open(file) as image:
        assert (image.mode, image.size) == ("L", (64, 64))


def test_transparent_and_palette_images_are_decoded_as_what_they_show(tmp_path: Path, out: Path) -> None:
    grey = picture(1, 24, 24)
    opaque, clear, palette = (tmp_path / name for name in ("opaque.png", "clear.png", "palette.png"))
    grey.save(opaque)
    hidden = grey.convert("RGBA")
    hidden.putalpha(0)
    hidden.save(clear)
    coloured = grey.quantize(256)
    coloured.save(palette)
    prepared = run([record(opaque), record(clear), record(palette)], out, image_size=24, decoder=None)
    clear_u8, opaque_u8, palette_u8 = prepared.images_u8[:, 0].astype(int)
    np.testing.assert_array_equal(clear_u8, opaque_u8)
    assert np.abs(palette_u8 - opaque_u8).max() <= 2


@pytest.mark.usefixtures("small_batches")
def test_where_dali_gives_up_pillow_decodes_the_batch(
    tmp_path: Path, records: list[ImageRecord], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(paths: Sequence[Path], size: int, decoder: decode.Decoder) -> Iterator[np.ndarray]:
        calls.append(len(paths))
        batches = decode_and_resize(paths, size, decoder)
        yield next(batches)
        if len(calls) == 1:
            raise RuntimeError("nvJPEG error")
        yield from batches

    expected = run(records, tmp_path / "whole")
    assert expected.manifest["decoded_by_pillow"] == 0
    monkeypatch.setattr(preparing, "decode_and_resize", failing)
    prepared = run(records, out)
    assert prepared.manifest["decoded_by_pillow"] == BATCH
    assert calls == [COUNT, COUNT - 2 * BATCH]
    np.testing.assert_array_equal(prepared.images_u8, expected.images_u8)


@pytest.mark.usefixtures("small_batches")
def test_where_dali_always_gives_up_pillow_decodes_everything(
    records: list[ImageRecord], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Iterator[np.ndarray]:
        raise RuntimeError("no codec")
        yield

    monkeypatch.setattr(preparing, "decode_and_resize", failing)
    prepared = run(records, out)
    assert prepared.manifest["decoded_by_pillow"] == COUNT
    for image, file in zip(prepared.images_u8, prepared.files(), strict=True):
        np.testing.assert_array_equal(image, decode_torchvision(file, SIZE))


def test_a_package_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SOFTWARE", ("numpy", "no-such-package-of-fusebench"))
    assert preparing.software_versions() == {"numpy": np.__version__, "no-such-package-of-fusebench": "absent"}
