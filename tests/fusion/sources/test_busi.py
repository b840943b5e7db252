import json
import os
from pathlib import Path

import pytest

from fusion.errors import UserError
from fusion.sources.busi import read_busi


def make(folder: Path, names: dict[str, list[str]]) -> Path:
    for part, files in names.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / part / name).touch()
    return folder


def usual(folder: Path) -> Path:
    names = {
        "benign": ["benign (10).png", "benign (2).png", "benign (1).png", "benign (433).png", "benign (318).png"],
        "malignant": ["malignant (145).png", "malignant (145)_mask.png", "malignant (999).png"],
        "normal": ["normal (1).png", "normal (1)_mask.png"],
    }
    names["benign"] += ["benign (2)_mask.png", "benign (2)_mask_1.png", ".DS_Store", "._benign (1).png", "readme.txt"]
    return make(folder, names)


def test_records(tmp_path: Path) -> None:
    records, notes = read_busi(usual(tmp_path))
    assert [record.image_id for record in records] == [
        "busi/benign (1)",
        "busi/benign (2)",
        "busi/benign (10)",
        "busi/benign (318)",
        "busi/benign (433)",
        "busi/malignant (145)",
        "busi/malignant (999)",
    ]
    by_id = {record.image_id: record for record in records}
    assert by_id["busi/benign (1)"].group_id == "busi:BUSI-G0001" == by_id["busi/benign (318)"].group_id
    assert by_id["busi/benign (433)"].group_id == by_id["busi/malignant (145)"].group_id
    assert [record.class_conflict for record in records] == [False] * 4 + [True] * 2 + [False]
    assert by_id["busi/malignant (999)"].group_id == "busi:malignant (999)"
    assert [record.label for record in records] == [0] * 5 + [1] * 2
    assert {(record.modality, record.source, record.synthetic) for record in records} == {("ultrasound", "busi", False)}
    assert records[0].path == tmp_path / "benign" / "benign (1).png"
    assert "5 benign and 2 malignant images, not the full set" in notes[0]
    assert "2 images in groups of two classes" in notes[1]
    assert notes[2:] == ["busi: 5 images have no mask file"]


def test_masks_belong_to_the_image_of_their_name(tmp_path: Path) -> None:
    make(usual(tmp_path), {"benign": ["benign (12)_mask.png", "benign (1)_mask.png"]})
    records, notes = read_busi(tmp_path)
    masks = {record.path.stem: [path.name for path in record.masks] for record in records if record.masks}
    assert masks == {
        "benign (1)": ["benign (1)_mask.png"],
        "benign (2)": ["benign (2)_mask.png", "benign (2)_mask_1.png"],
        "malignant (145)": ["malignant (145)_mask.png"],
    }
    assert notes[2:] == ["busi: 4 images have no mask file", "busi: 1 masks belong to no image"]


def test_parent_folder_is_accepted(tmp_path: Path) -> None:
    usual(tmp_path / "Dataset_BUSI_with_GT")
    assert len(read_busi(tmp_path)[0]) == 7


def test_phantom_gets_no_published_groups(tmp_path: Path) -> None:
    usual(tmp_path)
    (tmp_path / "phantom.json").write_text("{}")
    records, notes = read_busi(tmp_path)
    assert records[0].group_id == "busi:benign (1)"
    assert all(record.synthetic and not record.class_conflict for record in records)
    assert "phantom" in notes[0]
    (tmp_path / "phantom.json").write_text(json.dumps({"groups": {"benign (1)": "g1", "malignant (145)": "g1"}}))
    groups = {record.image_id: record.group_id for record in read_busi(tmp_path)[0]}
    assert groups["busi/benign (1)"] == groups["busi/malignant (145)"] == "busi:g1"
    assert groups["busi/benign (2)"] == "busi:benign (2)"


@pytest.mark.parametrize("text", ["{", "[]", '{"groups": [1]}', '{"groups": {"benign (1)": 3}}', "\xff"])
def test_faulty_phantom_mark(tmp_path: Path, text: str) -> None:
    usual(tmp_path)
    (tmp_path / "phantom.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"phantom\.json"):
        read_busi(tmp_path)


@pytest.mark.parametrize(
    "name", ["benign (01).png", "benign (3) - Copy.png", "malignant (1).png", "benign (3).jpg", "Benign (3).png"]
)
def test_strange_image_is_named(tmp_path: Path, name: str) -> None:
    make(usual(tmp_path), {"benign": [name]})
    with pytest.raises(UserError, match="is neither image nor mask by its name; expected names like") as caught:
        read_busi(tmp_path)
    assert name in str(caught.value)


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_busi(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such folder"):
        read_busi(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; expected the data set's folder"):
        read_busi(tmp_path / "file")
    with pytest.raises(UserError, match="no subfolders benign and malignant; give the folder Dataset_BUSI_with_GT"):
        read_busi(tmp_path)
    make(tmp_path, {"benign": ["other.png", "benign (1)_mask.png"], "malignant": ["malignant (1).png"]})
    with pytest.raises(UserError, match=r"no images in .*benign; expected names like"):
        read_busi(tmp_path)


def test_file_name_outside_unicode(tmp_path: Path) -> None:
    usual(tmp_path)
    with open(os.path.join(os.fsencode(tmp_path), b"benign", b"caf\xe9.png"), "wb"):
        pass
    with pytest.raises(UserError, match="is not printable Unicode; rename the file"):
        read_busi(tmp_path)


@pytest.mark.skipif("FUSEBENCH_BUSI" not in os.environ, reason="FUSEBENCH_BUSI does not name the real BUSI folder")
def test_real_data() -> None:
    records, notes = read_busi(Path(os.environ["FUSEBENCH_BUSI"]))
    assert [sum(record.label == label for record in records) for label in (0, 1)] == [437, 210]
    assert sum(record.class_conflict for record in records) == 17
    assert "full set as expected" in notes[0]
