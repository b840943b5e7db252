import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields
from PIL import Image

from fusion.errors import UserError
from fusion.sources import matfile, oasbud
from fusion.sources.matfile import Struct, read_mat
from fusion.sources.oasbud import bmode_from_rf, read_oasbud

FIELDS = ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")
CODES = ["1mm", "18gn_1(19GN)", "30nh", "31NH", "148"]


def echoes(seed: int, samples: int = 120, lines: int = 30) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(samples, lines)) * 300).astype(np.int16)


def lesions(codes: list[str] = CODES, fields: tuple[str, ...] = FIELDS) -> np.ndarray:
    """Return ``data`` as loadmat gives it for the published file: a 1 x n struct array."""
    data = np.empty((1, len(codes)), dtype=[(name, object) for name in fields])
    for position, code in enumerate(codes):
        rf = (echoes(2 * position), echoes(2 * position + 1, samples=140))
        rois = tuple(np.zeros(scan.shape, np.uint8) for scan in rf)
        label = np.array([[position % 2]], np.uint8)
        data[0, position] = (np.array([code]), *rf, *rois, np.array(["4b"]), label)
    return data


def save(path: Path, data: Any = None, **more: Any) -> Path:
    scipy.io.savemat(path, {"data": lesions() if data is None else data, **more}, do_compression=True)
    return path


def test_a_region_lies_where_the_echoes_of_the_lesion_do(tmp_path: Path) -> None:
    samples, lines = 1800, 60
    carrier = np.cos(np.arange(samples) * 1.6)[:, None]
    region = np.zeros((samples, lines), np.uint8)
    region[700:1200, 20:35] = 1
    rf = (carrier * np.where(region, 3000, 30)).astype(np.int16)
    data = lesions(["1mm"])
    data[0, 0]["rf1"], data[0, 0]["roi1"] = rf, region
    records, _ = read_oasbud(save(tmp_path / "OASBUD.mat", data), tmp_path / "bmode")
    with Image.open(records[0].path) as image, Image.open(records[0].masks[0]) as mask:
        assert (mask.mode, mask.size) == ("1", image.size)
        bright, inside = np.asarray(image) > 128, np.asarray(mask)
    # 20 rows less, and 0.01925 mm a row to 0.0745 mm
    expected = np.abs(np.flatnonzero(inside.any(axis=1))[[0, -1]] - np.array([680, 1180]) * 0.01925 / 0.0745)
    assert expected.max() <= 1
    assert np.flatnonzero(inside.any(axis=0))[[0, -1]].tolist() == [20, 34]
    assert (bright & inside).sum() / (bright | inside).sum() > 0.97  # the envelope blurs the ends of a line


@pytest.mark.parametrize("roi", [None, np.zeros((3, 3), np.uint8), "text", np.zeros((120, 30)) + 1j])
def test_a_scan_without_a_region_that_fits_has_no_mask_and_a_note(tmp_path: Path, roi: Any) -> None:
    data = lesions(["1mm"])
    data[0, 0]["roi1"] = roi
    if roi is None:
        data = repack_fields(data[[name for name in FIELDS if name != "roi1"]])
    records, notes = read_oasbud(save(tmp_path / "OASBUD.mat", data), tmp_path / "bmode")
    assert [len(record.masks) for record in records] == [0, 1]
    assert notes[-1] == "oasbud: 1 scans have no region roi1 or roi2 of their size, so no mask"


def test_masks_that_an_earlier_version_did_not_write_are_added(tmp_path: Path) -> None:
    file, folder = save(tmp_path / "OASBUD.mat"), tmp_path / "bmode"
    records, _ = read_oasbud(file, folder)
    for record in records:
        record.masks[0].unlink()
    read_oasbud(file, folder)
    assert all(record.masks[0].is_file() for record in records)


def test_records(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = tmp_path / "deep" / "bmode"
    records, notes = read_oasbud(save(tmp_path / "OASBUD.mat"), folder, progress=lambda *step: told.append(step))
    assert [record.image_id for record in records[:3]] == ["oasbud/000-1", "oasbud/000-2", "oasbud/001-1"]
    assert [record.label for record in records] == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert told == [(done, 10) for done in range(1, 11)]
    assert records[3].path == folder / "oasbud_001_2.png"
    with Image.open(records[3].path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (30, 31))
        np.testing.assert_array_equal(np.asarray(image), bmode_from_rf(echoes(3, samples=140)))
    assert sorted(path.name for path in folder.iterdir())[-1] == "source.json"
    assert len(list(folder.iterdir())) == 21
    assert [record.masks for record in records[:2]] == [(folder / f"oasbud_000_{scan}_mask.png",) for scan in (1, 2)]
    assert not any(record.synthetic or record.class_conflict for record in records)
    assert "3 benign and 2 malignant lesions" in notes[0]
    assert "4 groups by the letters of the lesion code, 5 by lesion" in notes[1]


def test_groups(tmp_path: Path) -> None:
    path = save(tmp_path / "OASBUD.mat")
    groups = [record.group_id for record in read_oasbud(path, tmp_path)[0][::2]]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 4
    assert all(len(group) == len("oasbud:") + 12 for group in groups)
    assert not any(code in group for code in ("mm", "gn", "nh") for group in groups)
    save(path, lesions(["19GN", "18gn_1(19GN)", "7", "7", ""]))
    groups = [record.group_id for record in read_oasbud(path, tmp_path)[0][::2]]
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3
    by_lesion = read_oasbud(path, tmp_path, grouping="lesion")[0]
    assert [record.group_id for record in by_lesion[:3]] == ["oasbud:lesion-000"] * 2 + ["oasbud:lesion-001"]
    with pytest.raises(UserError, match="grouping 'woman'; choose patient or lesion"):
        read_oasbud(path, tmp_path, grouping="woman")  # type: ignore[arg-type]


def test_images_are_kept_while_the_source_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "OASBUD.mat")
    image = read_oasbud(path, tmp_path)[0][0].path
    image.write_bytes(b"kept")
    (tmp_path / "oasbud_001_1.png").unlink()
    read_oasbud(path, tmp_path)
    assert image.read_bytes() == b"kept"
    assert (tmp_path / "oasbud_001_1.png").is_file()
    os.utime(path, ns=(1, 1))
    read_oasbud(path, tmp_path)
    assert image.read_bytes() != b"kept"
    for change in (lambda: monkeypatch.setattr(oasbud, "RANGE_DB", 40.0), (tmp_path / "source.json").unlink):
        image.write_bytes(b"kept")
        change()
        read_oasbud(path, tmp_path)
        assert image.read_bytes() != b"kept"
    image.write_bytes(b"kept")
    (tmp_path / "source.json").write_text(json.dumps({"size": 1}))
    read_oasbud(path, tmp_path)
    assert image.read_bytes() != b"kept"


def test_phantom_variable_and_capital_fields(tmp_path: Path) -> None:
    fields = ("Id", "RF1", "RF2", "ROI1", "ROI2", "Birads", "Class")
    records, notes = read_oasbud(save(tmp_path / "a.mat", lesions(fields=fields), phantom=1), tmp_path)
    assert all(record.synthetic for record in records)
    assert "phantom" in notes[0]


def test_bmode() -> None:
    rf = echoes(0, samples=1824, lines=510)
    grey = bmode_from_rf(rf)
    assert grey.shape == (466, 510)  # 34.7 mm deep, 38 mm wide
    assert grey.dtype == np.uint8
    loud = rf.copy()
    loud[:10] = 24_000  # what is not tissue does not count
    np.testing.assert_array_equal(bmode_from_rf(loud), grey)
    np.testing.assert_array_equal(bmode_from_rf(rf * 4), grey)  # nor does the gain
    assert (bmode_from_rf(np.zeros((100, 4), np.int16)) == 0).all()


def test_bmode_decibels() -> None:
    wave = np.cos(2 * np.pi * np.arange(820) / 4)[:, None]
    levels = 10 ** (-np.array([0, 10, 25, 40, 60, 70]) / 20)
    grey = bmode_from_rf(np.rint(30_000 * wave * np.repeat(levels, 10)).astype(np.int16))
    centre = grey[len(grey) // 2, 5::10].astype(int)
    np.testing.assert_allclose(centre, [255, 204, 127.5, 51, 0, 0], atol=3)


@pytest.mark.parametrize(
    ("rf", "reason"),
    [
        (np.zeros((0, 0), np.int16), "shape"),
        (np.zeros((39, 510), np.int16), "at least 40 samples and 2 lines"),
        (np.zeros((100, 1), np.int16), "at least 40 samples and 2 lines"),
        (np.broadcast_to(np.int16(0), (10_000, 10_000)), "at most 8388608 values"),
        (np.zeros((100, 10)), "type float64"),
        (np.zeros((100, 10, 2), np.int16), "expected integers"),
    ],
)
def test_bmode_refuses(rf: np.ndarray, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        bmode_from_rf(rf)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_oasbud(path, path.parent / "bmode")
    assert "\n" not in str(caught.value)
    assert not (path.parent / "bmode" / "source.json").exists()


def test_what_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "OASBUD.mat"
    refused(path, r"cannot be read: No such file or directory; expected a \.mat file")
    refused(tmp_path, r"cannot be read: Is a directory; expected a \.mat file")
    for content in (b"", b"text\n" * 100, b"\x00" * 400):
        path.write_bytes(content)
        refused(path, "is not a MATLAB v5-v7 .mat file")
    for head in (b"MATLAB 7.3 MAT-file", b"\x89HDF\r\n", b"\x00" * 512 + b"\x89HDF"):
        path.write_bytes(head + bytes(600))
        refused(path, "v7.3 .HDF5. file; re-save it with save -v7")
    save(path)
    monkeypatch.setattr(matfile, "MAX_FILE_BYTES", 100)
    refused(path, "bytes; the limit is 100")


def test_truncated(tmp_path: Path) -> None:
    path = save(tmp_path / "OASBUD.mat")
    content = path.read_bytes()
    for keep in (128, 130, 136, 200, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:keep])
        refused(path, r"truncated or damaged|has no variable 'data'")


def test_content_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "OASBUD.mat"
    scipy.io.savemat(path, {"other": 1, "more": 2})
    refused(path, "no variable 'data'; it holds more, other")
    refused(save(path, np.zeros((2, 2))), "'data' .* is no struct array; expected fields id, rf1, rf2, class")
    refused(save(path, repack_fields(lesions()[list(FIELDS[:2])])), "has no field 'rf2'; its fields are id, rf1")
    empty = np.empty((1, 0), dtype=[(name, object) for name in FIELDS])
    refused(save(path, empty), "'data' in .* holds no lesions")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("class", np.array([[2]], np.uint8), "class '.*2.*' is not 0"),
        ("class", np.array([["b"]]), "is not 0 .benign. or 1"),
        ("class", np.zeros((0, 0)), "is not 0"),
        ("rf1", np.zeros((0, 0), np.int16), "rf1: echoes of shape"),
        ("rf2", np.zeros((100, 10)), "rf2: echoes of type float64"),
        ("rf2", np.array(["x"]), "rf2: expected integer echoes"),
        ("id", np.zeros((2, 2)), "id is neither text nor a number"),
        ("id", np.array([["a", 1]], object), "id is neither text nor a number"),
        ("rf1", np.zeros((100, 10, 2), np.int16), "rf1: echoes of type int16 and shape"),
    ],
)
def test_broken_lesion_is_named(tmp_path: Path, field: str, value: np.ndarray, reason: str) -> None:
    data = lesions()
    data[0, 3][field] = value
    refused(save(tmp_path / "OASBUD.mat", data), f"lesion 3: .*{reason}")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't create the folder"):
        read_oasbud(save(tmp_path / "a.mat"), tmp_path / "file")


def _valid(compress: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        scipy.io.savemat(path, {"data": lesions(CODES[:1])}, do_compression=compress)
        return path.read_bytes()


VALID = [_valid(True), _valid(False)]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_never_raises_anything_else(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for position in data.draw(st.lists(st.integers(0, 900), max_size=6)):
        content[position % len(content)] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        try:
            records, _ = read_oasbud(path, Path(folder, "bmode"))
        except UserError:
            return
        assert len(records) % 2 == 0


@pytest.mark.parametrize("content", VALID)
def test_the_same_is_read_as_by_scipy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    data = read_mat(path)["data"]
    assert isinstance(data, Struct)
    for name, expected in zip(FIELDS, scipy.io.loadmat(path)["data"][0, 0], strict=True):
        value = data.entries[0][name]
        if isinstance(value, str):
            assert value == str(expected[0])
        else:
            assert value is not None
            assert value.dtype == expected.dtype
            np.testing.assert_array_equal(value, expected)


def test_what_is_not_read_does_not_hinder(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    cell = np.array([[1, "a"]], object)
    sparse = scipy.sparse.csc_array(np.eye(3))
    scipy.io.savemat(path, {"cell": cell, "sparse": sparse, "complex": 1j, "nested": {"a": {"b": 1}}, "text": "word"})
    variables = read_mat(path)
    assert list(variables) == ["cell", "sparse", "complex", "nested", "text"]
    assert [variables[name] for name in ("cell", "sparse", "complex", "text")] == [None, None, None, "word"]


def test_compressed_data_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.mat")
    monkeypatch.setattr(matfile, "MAX_INFLATED_BYTES", 1000)
    refused(path, "its variables take more than 1000 bytes")


def test_dimensions_that_lie(tmp_path: Path) -> None:
    content = bytearray(VALID[1])
    start = content.index(struct.pack("<IIii", 5, 8, 1, 1))  # the dimensions of the struct array
    content[start + 8 : start + 16] = struct.pack("<ii", 2**15, 2**15)
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    refused(path, "a struct array of 1073741824 entries; the limit is 10000")
