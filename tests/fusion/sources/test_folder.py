import os
from pathlib import Path

import pytest

from fusion.errors import UserError
from fusion.sources import inputs
from fusion.sources.folder import read_folder


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root


def test_table(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.TIF", "3.dcm", "4.png")
    table(
        tmp_path, "path,label,group,modality,age\na/1.png,Benign,w1,ultrasound,50\na/2.TIF,1,w1,,\n3.dcm,0,w2,other,3\n"
    )
    records, notes = read_folder("mine", tmp_path)
    assert [record.image_id for record in records] == ["mine/a/1.png", "mine/a/2.TIF", "mine/3.dcm"]
    assert [record.label for record in records] == [0, 1, 0]
    assert [record.group_id for record in records] == ["mine:w1", "mine:w1", "mine:w2"]
    assert [record.modality for record in records] == ["ultrasound", "other", "other"]
    assert {(record.source, record.synthetic) for record in records} == {("mine", False)}
    assert notes == [
        "mine: 2 benign and 1 malignant images",
        "mine: 2 groups by the column 'group'",
        "mine: columns not used: age",
        "mine: 1 image files are not listed in labels.csv",
    ]


def test_table_without_groups(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "phantom.json")
    records, notes = read_folder("mine", table(tmp_path, "\ufeffpath,label\n1.png,malignant\n./2.png,benign\n"))
    assert [record.group_id for record in records] == ["mine:1.png", "mine:2.png"]
    assert all(record.synthetic for record in records)
    assert "no column 'group', so each image is its own group: results leak" in notes[1]


def test_class_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "benign/10.png",
        "benign/x/9.jpg",
        "benign/.h.png",
        "benign/notes.txt",
        "malignant/1.pgm",
        "normal/1.png",
    )
    records, notes = read_folder("mine", tmp_path)
    assert [record.image_id for record in records] == [
        "mine/benign/10.png",
        "mine/benign/x/9.jpg",
        "mine/malignant/1.pgm",
    ]
    assert [record.label for record in records] == [0, 0, 1]
    assert {record.modality for record in records} == {"other"}
    assert "class folders tell no groups, so each image is its own group: results leak" in notes[1]
    assert notes[2:] == [
        "mine: 1 files without an image suffix were left out",
        "mine: folders not read: normal",
    ]


def test_modality_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{m}/{c}/1.png" for m in ("ultrasound", "mammography") for c in ("benign", "malignant")))
    records, _ = read_folder("mine", tmp_path)
    assert [(record.modality, record.label) for record in records] == [
        ("mammography", 0),
        ("mammography", 1),
        ("ultrasound", 0),
        ("ultrasound", 1),
    ]
    touch(tmp_path, "benign/1.png", "malignant/1.png")
    with pytest.raises(UserError, match="holds both class and modality folders"):
        read_folder("mine", tmp_path)


@pytest.mark.parametrize("name", ["", "busi", "oasbud", "rsna", "Mine", "-a", "a b", "a/b", "é", "a\n"])
def test_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a data set; expected a-z, 0-9"):
        read_folder(name, tmp_path)


def test_folder_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine: no such folder"):
        read_folder("mine", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images in a known layout; expected one csv file with columns path,label"):
        read_folder("mine", tmp_path)
    touch(tmp_path, "benign/a.txt")
    with pytest.raises(UserError, match="has no subfolder malignant; expected benign and malignant"):
        read_folder("mine", tmp_path)
    touch(tmp_path, "malignant/b.txt")
    with pytest.raises(UserError, match=r"no images in .*; expected files of \.png \.jpg"):
        read_folder("mine", tmp_path)
    touch(tmp_path, "a.csv", "b.CSV", ".c.csv")
    with pytest.raises(UserError, match=r"holds 2 csv files \(a\.csv, b\.CSV\); expected one"):
        read_folder("mine", tmp_path)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "holds no rows; expected a header with path, label"),
        ("path,label\n", "holds no rows"),
        ("file,label\n1.png,0\n", "no column 'path'; the columns are file, label"),
        ("path,group\n1.png,0\n", "no column 'label'; the columns are path, group"),
        ("path,label\n1.png,0\n\n2.png,0\n", r"line 4: no such file: '2\.png'"),
        ("path,label\n1.png,0\n./1.png,1\n", r"line 3: '\./1\.png' was listed in line 2 before"),
        ("path,label\n1.png,\n", "line 2: label '' is not benign, malignant, 0 or 1"),
        ("path,label\n1.png,cancer\n", "line 2: label 'cancer' is not benign"),
        ("path,label\n,0\n", "line 2: the path is empty"),
        ("path,label\n../out.png,0\n", r"line 2: path '\.\./out\.png' must be relative to the folder, without '\.\.'"),
        ("path,label\n/etc/passwd.png,0\n", "line 2: path '/etc/passwd.png' must be relative"),
        ("path,label\nout.png,0\n", r"line 2: 'out\.png' is a link out of the folder"),
        ("path,label\nlinks/out.png,0\n", r"line 2: 'links/out\.png' is a link out of the folder"),
        ("path,label\ncircle.png,0\n", r"line 2: no such file: 'circle\.png'"),
        ("path,label\nlabels.csv,0\n", r"line 2: 'labels\.csv' is no image by its suffix; expected \.png"),
        ("path,label\nfolder.png,0\n", r"line 2: 'folder\.png' is no file"),
        ("path,label\na\0.png,0\n", "line 2.*is not printable Unicode"),
        (f"path,label\n{'x' * 300}.png,0\n", "line 2: no such file"),
        ("path,label,group\n1.png,0,\n", "line 2: the group is empty; name the patient or lesion"),
        ("path,label,modality\n1.png,0,mri\n", "line 2: modality 'mri' is not one of mammography, ultrasound, other"),
        ("path,label\n1.png,0,extra\n", "line 2 has 3 cells, the header 2"),
        ("path,label\n" + "x" * 200_000 + ",0\n", "line 2 is not valid csv"),
    ],
)
def test_table_mistakes(tmp_path: Path, rows: str, reason: str) -> None:
    root = touch(tmp_path / "root", "1.png", "folder.png/inner.txt")
    touch(tmp_path, "out.png")
    (root / "out.png").symlink_to(tmp_path / "out.png")
    (root / "links").symlink_to(tmp_path)
    (root / "circle.png").symlink_to(root / "circle.png")
    with pytest.raises(UserError, match=reason) as caught:
        read_folder("mine", table(root, rows))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_encoding_and_size_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.png")
    (tmp_path / "labels.csv").write_bytes("path,label\n1.png,0\né.png,0\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"labels\.csv: line 3 is not UTF-8; save the file as UTF-8"):
        read_folder("mine", tmp_path)
    monkeypatch.setattr(inputs, "MAX_TABLE_BYTES", 10)
    with pytest.raises(UserError, match="bytes; the limit is 10"):
        read_folder("mine", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "benign/x/1.png", "malignant/1.png")
    (tmp_path / "benign/x").chmod(0)
    with pytest.raises(UserError, match=r"cannot list .*Permission denied"):
        read_folder("mine", tmp_path)
    (tmp_path / "benign/x").chmod(0o700)
