import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusion import decode
from fusion import prepare as preparing
from fusion.catalog import ImageRecord
from fusion.decode import HAVE_DALI, decode_and_resize, decode_torchvision
from fusion.errors import UserError
from fusion.files import sole_writer
from fusion.masks import MASKS
from fusion.prepare import (
    CATALOG,
    DUPLICATE_COLUMNS,
    DUPLICATES,
    IMAGES,
    MANIFEST,
    QUARANTINE,
    Prepared,
    load_prepared,
    prepare,
)

needs_dali = pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")

SIZE = 16
COUNT = 13
BATCH = 4


class Interruption(BaseException):
    """What the user's Ctrl-C is to a program."""


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def record(path: Path, **changes: Any) -> ImageRecord:
    facts: dict[str, Any] = {
        "image_id": f"mine/{path.name}",
        "source": "mine",
        "modality": "other",
        "label": 0,
        "group_id": f"mine:{path.stem}",
        "path": path,
    }
    return ImageRecord(**{**facts, **changes})


def write_images(folder: Path, count: int = COUNT) -> list[ImageRecord]:
    """Write images of many sizes, by turns benign and malignant, and return their records in no special order."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(count):
        path = folder / f"{i:02}.png"
        picture(i, 30 + i, 50 - i).save(path)
        records.append(record(path, label=i % 2))
    return records[::-1]


def run(records: Sequence[ImageRecord], out: Path, **options: Any) -> Prepared:
    settings: dict[str, Any] = {"image_size": SIZE, "decoder": "torchvision", "progress": lambda *_: None}
    return prepare(records, out, **{**settings, **options})


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    return write_images(tmp_path / "raw")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "prepared"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BATCH", BATCH)
    monkeypatch.setattr(preparing, "BATCH", BATCH)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of every batch that is decoded."""
    sizes: list[int] = []

    def counted(*arguments: Any) -> Iterator[np.ndarray]:
        for batch in decode_and_resize(*arguments):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(preparing, "decode_and_resize", counted)
    return sizes


def refuse(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_a_prepared_data_set(records: list[ImageRecord], out: Path, decoder: decode.Decoder) -> None:
    prepared = run(records, out, decoder=decoder, notes=["a remark"])
    files = [IMAGES, MASKS, CATALOG, MANIFEST, QUARANTINE, DUPLICATES]
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
    refuse("is damaged .*: delete it and prepare again", lambda: load_prepared(out))


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


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("stage", "done"), [("check files", 5), ("decode and resize", 8), ("find duplicates", COUNT)])
@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_an_interrupted_call_goes_on_where_it_was(
    tmp_path: Path,
    records: list[ImageRecord],
    out: Path,
    decoded: list[int],
    stage: str,
    done: int,
    decoder: decode.Decoder,
) -> None:
    whole = run(records, tmp_path / "whole", decoder=decoder)
    decoded.clear()

    def interrupt(*step: object) -> None:
        if step[:2] == (stage, done):
            raise Interruption

    with pytest.raises(Interruption):
        run(records, out, decoder=decoder, progress=interrupt)
    refuse("is not a prepared data set", lambda: load_prepared(out))
    before = sum(decoded)
    assert before == {"check files": 0, "decode and resize": 8, "find duplicates": COUNT}[stage]
    resumed = run(records, out, decoder=decoder)
    assert sum(decoded) == COUNT
    assert (out / IMAGES).read_bytes() == (tmp_path / "whole" / IMAGES).read_bytes()
    assert resumed.data_hash == whole.data_hash
    assert not (out / "partial").exists()
    pd.testing.assert_frame_equal(resumed.catalog, whole.catalog)


def test_an_interruption_before_the_manifest_is_mended(
    records: list[ImageRecord], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json = preparing.write_json

    def interrupt(path: Path, content: object) -> None:
        if path.name == MANIFEST:
            raise Interruption
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "write_json", interrupt)
        with pytest.raises(Interruption):
            run(records, out)
    refuse("is not a prepared data set", lambda: load_prepared(out))
    assert run(records, out).data_hash == run(records, tmp_path / "whole").data_hash


@pytest.mark.usefixtures("small_batches")
def test_what_was_decoded_of_other_files_is_not_used(records: list[ImageRecord], out: Path, decoded: list[int]) -> None:
    def interrupt(*step: object) -> None:
        if step[:2] == ("decode and resize", 8):
            raise Interruption

    with pytest.raises(Interruption):
        run(records, out, progress=interrupt)
    first = min(records, key=lambda r: r.image_id).path
    picture(99, 70, 20).save(first)
    prepared = run(records, out)
    assert sum(decoded) == 8 + COUNT
    np.testing.assert_array_equal(prepared.images_u8[0], decode_torchvision(first, SIZE))


def test_a_second_call_changes_nothing(records: list[ImageRecord], out: Path, decoded: list[int]) -> None:
    first = run(records, out)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    decoded.clear()
    second = run(records, out)
    assert decoded == []
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    assert second.data_hash == first.data_hash


def test_other_data_into_the_same_folder_is_refused(records: list[ImageRecord], out: Path) -> None:
    first = run(records, out)
    message = f"already holds another prepared data set \\({COUNT} images at {SIZE} px\\)"
    refuse(message, lambda: run(records[1:], out))
    refuse(message, lambda: run(records, out, image_size=SIZE + 1))
    picture(77).save(records[0].path)
    refuse(message, lambda: run(records, out))
    assert load_prepared(out).data_hash == first.data_hash


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


@pytest.fixture
def finished(records: list[ImageRecord], out: Path) -> Path:
    run(records, out)
    return out


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
    damage, message = DAMAGE[kind]
    load_prepared(finished)
    damage(finished)
    refuse(message, lambda: load_prepared(finished))


def test_a_file_that_is_gone_cannot_be_streamed(records: list[ImageRecord], out: Path) -> None:
    prepared = run(records, out)
    records[3].path.unlink()
    refuse(f"{records[3].path.name} is gone.*choose the loader 'resident'", prepared.files)


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


def test_a_package_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SOFTWARE", ("numpy", "no-such-package-of-fusebench"))
    assert preparing.software_versions() == {"numpy": np.__version__, "no-such-package-of-fusebench": "absent"}


def test_two_calls_never_write_into_one_folder(records: list[ImageRecord], out: Path) -> None:
    with sole_writer(out), pytest.raises(UserError, match="another process is writing to"):
        run(records, out)
    assert len(run(records, out).catalog) == COUNT
