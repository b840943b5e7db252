import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from fusion.errors import UserError
from fusion.sources import inputs
from fusion.sources.rsna import read_rsna

# patient, image, cancer; patient 7 has images of both classes
ROWS = [(7, 70, 1), (7, 71, 0), (8, 80, 1), (8, 81, 1), (9, 90, 0), (9, 91, 0), (10, 100, 0)]
IDS = ["rsna/7_71", "rsna/9_90", "rsna/9_91", "rsna/10_100", "rsna/7_70", "rsna/8_80", "rsna/8_81"]


def touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def table(
    root: Path, rows: list[tuple[int, int, int]] = ROWS, head: str = "site_id,patient_id,image_id,cancer"
) -> None:
    lines = [head, *(f"1,{patient},{image},{cancer}" for patient, image, cancer in rows)]
    (root / "train.csv").write_text("\n".join(lines) + "\n")


LAYOUTS = {
    "train/0/pid_iid with csv": (True, [f"train/{cancer}/{pid}_{iid}.png" for pid, iid, cancer in ROWS]),
    "class folders": (False, [f"data/{cancer}/{pid}_{iid}.png" for pid, iid, cancer in ROWS]),
    "flat": (True, [f"{pid}_{iid}.png" for pid, iid, _ in ROWS]),
    "radek1": (True, [f"images_as_pngs_cv2_256/train_images_processed/{pid}/{iid}.png" for pid, iid, _ in ROWS]),
    "rsna": (True, [f"train_images/{pid}/{iid}.dcm" for pid, iid, _ in ROWS]),
    "names": (False, [f"{('benign', 'malignant')[cancer]}/{pid}_{iid}.jpeg" for pid, iid, cancer in ROWS]),
    "names and patients": (False, [f"{('benign', 'malignant')[cancer]}/{pid}/{iid}.jpg" for pid, iid, cancer in ROWS]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    with_table, names = LAYOUTS[layout]
    touch(tmp_path, names)
    touch(tmp_path, ["test/0/1_2.png", "test_images/3/4.dcm", "test.csv", ".hidden/5_6.png"])
    if with_table:
        table(tmp_path)
    records, notes = read_rsna(tmp_path)
    assert [record.image_id for record in records] == IDS
    assert [record.label for record in records] == [0, 0, 0, 0, 1, 1, 1]
    assert [record.group_id for record in records[:2]] == ["rsna:7", "rsna:9"]
    assert {(record.source, record.modality, record.synthetic) for record in records} == {
        ("rsna", "mammography", False)
    }
    assert all(record.path.is_file() for record in records)
    assert notes[0] == "rsna: 3 positive images, 4 drawn of 4 negative ones"
    assert "1200 negative images were asked for; all 4 are taken" in notes[1]
    assert "4 patients, 1.8 images each, 1 with images of both classes" in notes[2]


def test_leading_zeros_and_the_phantom_mark(tmp_path: Path) -> None:
    touch(tmp_path, ["0/007_0070.png", "1/8_80.png", "phantom.json"])
    table(tmp_path, [(7, 70, 0), (8, 80, 1)])
    records, _ = read_rsna(tmp_path)
    assert [record.image_id for record in records] == ["rsna/7_70", "rsna/8_80"]
    assert all(record.synthetic for record in records)


def test_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"0/{patient}_{image}.png" for patient in range(100, 140) for image in range(2)] + ["1/5_5.png"]
    touch(tmp_path, names)
    first = read_rsna(tmp_path, negatives=30, seed=1)[0]
    assert [sum(record.label == label for record in first) for label in (0, 1)] == [30, 1]
    assert first == read_rsna(tmp_path, negatives=30, seed=1)[0]
    assert first != read_rsna(tmp_path, negatives=30, seed=2)[0]
    assert [record.label for record in read_rsna(tmp_path, negatives=0)[0]] == [1]
    walk = inputs.os.walk  # type: ignore[attr-defined]

    def shuffled(*args: object, **options: object) -> Iterable[object]:
        return [
            (parent, folders, random.sample(files, len(files))) for parent, folders, files in walk(*args, **options)
        ]

    monkeypatch.setattr(inputs.os, "walk", shuffled)  # type: ignore[attr-defined]
    assert first == read_rsna(tmp_path, negatives=30, seed=1)[0]
    with pytest.raises(UserError, match="-1 negatives; expected 0 or more"):
        read_rsna(tmp_path, negatives=-1)


def test_without_patient_ids(tmp_path: Path) -> None:
    touch(tmp_path, ["0/a.png", "0/12.png", "1/b.png", "1/7_70.png"])
    with pytest.raises(UserError, match=r"12\.png has no patient id; expected .*--allow-ungrouped"):
        read_rsna(tmp_path)
    records, notes = read_rsna(tmp_path, allow_ungrouped=True)
    assert [record.image_id for record in records] == ["rsna/12", "rsna/a", "rsna/7_70", "rsna/b"]
    assert [record.group_id for record in records] == ["rsna:image-12", "rsna:image-a", "rsna:7", "rsna:image-b"]
    assert "3 images without patient id, each its own group: may leak" in notes[-1]


def test_rows_and_files_that_do_not_match(tmp_path: Path) -> None:
    touch(tmp_path, ["1/7_70.png", "0/7_71.png", "0/99_1.png"])
    table(tmp_path)
    _, notes = read_rsna(tmp_path)
    assert notes[-2:] == ["rsna: 5 rows of train.csv have no image file", "rsna: 1 images have no row in train.csv"]
    table(tmp_path, [(1, 2, 0), (3, 4, 1)])
    with pytest.raises(UserError, match=r"no row of .*train\.csv names an image of this folder"):
        read_rsna(tmp_path)
    table(tmp_path)
    touch(tmp_path, ["more/55_5.png"])
    with pytest.raises(UserError, match=r"55_5\.png has no label: no row in train\.csv and no class folder"):
        read_rsna(tmp_path)


def test_labels_that_contradict_each_other(tmp_path: Path) -> None:
    touch(tmp_path, ["train/0/7_70.png"])
    table(tmp_path)
    with pytest.raises(UserError, match=r"7_70\.png lies in folder 0, but train\.csv says cancer 1"):
        read_rsna(tmp_path)


def test_full_set_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusion.sources import rsna

    touch(tmp_path, LAYOUTS["class folders"][1])
    monkeypatch.setattr(rsna, "FULL_IMAGES", 7)
    assert "rsna: full set: 7 images, 3 positive, but 1158 were expected" in read_rsna(tmp_path)[1]
    monkeypatch.setattr(rsna, "FULL_POSITIVES", 3)
    assert "rsna: full set: 7 images, 3 positive, as expected" in read_rsna(tmp_path)[1]


def test_folder_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_rsna(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images in"):
        read_rsna(touch(tmp_path, ["test/7_70.png", "train.txt"]))
    touch(tmp_path, ["a/7_70.png"])
    with pytest.raises(UserError, match=r"7_70\.png has no label; expected .*train\.csv or class folders 0 and 1"):
        read_rsna(tmp_path)
    touch(tmp_path, ["1/7_70.png"])
    with pytest.raises(UserError, match=r"7_70\.png and .*7_70\.png are the same image"):
        read_rsna(tmp_path)
    (tmp_path / "a/7_70.png").unlink()
    (tmp_path / "1/7_70.png").rename(tmp_path / "a/7_71.png")
    table(tmp_path)
    with pytest.raises(UserError, match=r"none of the 1 images in .* has cancer = 1"):
        read_rsna(tmp_path)


def test_table_with_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    touch(tmp_path, ["7_70.png"])
    text = '\ufeff"patient_id","image_id","cancer","view"\r\n"7","70","1","C,C"\r\n\r\n'
    (tmp_path / "train.csv").write_bytes(text.encode())
    assert [record.label for record in read_rsna(tmp_path)[0]] == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "holds no rows; expected a header with patient_id, image_id"),
        (b"patient_id,image_id,cancer\n", "holds no rows"),
        (b"patient_id,cancer\n7,1\n", "no column 'image_id'; the columns are patient_id, cancer"),
        (b"patient_id;image_id;cancer\n7;70;1\n", "no column 'patient_id'; the columns are patient_id;image_id;cancer"),
        (b"patient_id,image_id,cancer,cancer\n7,70,1,0\n", "column 'cancer' occurs twice"),
        (b"patient_id,image_id,cancer\n7,70,1\nx,71,0\n", "line 3: patient_id 'x' is not an integer"),
        (b"patient_id,image_id,cancer\n7,../70,1\n", r"line 2: image_id '\.\./70' is not an integer"),
        (b"patient_id,image_id,cancer\n7,70,2\n", "line 2: cancer '2' is not 0 or 1"),
        (b"patient_id,image_id,cancer\n7,70,\n", "line 2: cancer '' is not 0 or 1"),
        (b"patient_id,image_id,cancer\n7,70,1\n07,70,1\n", "line 3: patient 7, image 70 was listed before"),
        (b"patient_id,image_id,cancer\n7,70\n", "line 2 has 2 cells, the header 3"),
        (b"patient_id,image_id,cancer\n7,70,\xff\n", "line 2 is not UTF-8"),
        (b'patient_id,image_id,cancer\n7,70,"1\n', "is not valid csv"),
        (b"patient_id,image_id\n7,70\n", "has no column 'cancer' and .* lies in no class folder"),
    ],
)
def test_table_mistakes(tmp_path: Path, text: bytes, reason: str) -> None:
    touch(tmp_path, ["7_70.png"])
    (tmp_path / "train.csv").write_bytes(text)
    with pytest.raises(UserError, match=reason) as caught:
        read_rsna(tmp_path)
    assert "\n" not in str(caught.value)
