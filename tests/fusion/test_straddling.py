"""Groups on both sides of a split, counted by hand, by plain loops, and after ``prepare`` on generated images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusion.augment import COPIES
from fusion.catalog import ImageRecord
from fusion.groups import join_groups
from fusion.prepare import prepare
from fusion.prepared import DUPLICATE_COLUMNS
from fusion.split import split_rows
from fusion.straddling import COLUMNS, KINDS, straddling

Pairs = list[tuple[int, int, str]]


def made(sizes: list[int], pairs: Pairs, modality: str = "ultrasound") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a catalog with groups of these sizes, labels by turns, and the duplicates found in it."""
    groups = [f"busi:{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = [number % 2 for number, size in enumerate(sizes) for _ in range(size)]
    catalog = pd.DataFrame({"source": "busi", "modality": modality, "label": labels, "group_id": groups})
    catalog = catalog.assign(image_id=[f"busi/{i}" for i in range(len(catalog))], class_conflict=False)
    found = [(f"busi/{i}", f"busi/{j}", kind, 0, 1.0) for i, j, kind in pairs]
    joined = join_groups(catalog.assign(source_group=catalog["group_id"]), [(i, j) for i, j, _ in pairs])
    return joined, pd.DataFrame(found, columns=list(DUPLICATE_COLUMNS))


def by_kind(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(row["kind"]): row.to_dict() for _, row in table.iterrows()}


def counted_by_loops(members: list[set[int]], catalog: pd.DataFrame, seed: int) -> tuple[int, int]:
    split = split_rows(catalog, "paper", seed)
    train, test = split.train.image.tolist(), split.test.image.tolist()
    both = [group for group in members if group & set(train) and group & set(test)]
    return len(both), sum(image in group for group in both for image in test)


PAIRS: Pairs = [(0, 1, "identical"), (60, 61, "similar"), (61, 62, "similar"), (64, 67, "identical")]
SIZES = [1] * 60 + [2, 3, 1, 1, 4, 2]


def test_groups_of_every_kind_are_counted() -> None:
    catalog, duplicates = made(SIZES, PAIRS)
    table = straddling(catalog, duplicates, "paper", 0)
    assert tuple(table) == COLUMNS
    assert list(table["kind"]) == list(KINDS)
    found = {kind: (row["groups"], row["images"], row["two_classes"]) for kind, row in by_kind(table).items()}
    # joined are {0, 1}, {60 ... 64, 67 ... 70} and {71, 72}
    assert found == {
        "copies": (73, 73, 0),
        "known": (4, 11, 0),
        "identical": (2, 4, 2),
        "similar": (1, 3, 1),
        "joined": (3, 13, 2),
        "any": (63, 73, 2),
    }


@pytest.mark.parametrize("seed", range(5))
def test_straddling_groups_are_those_a_loop_finds(seed: int) -> None:
    catalog, duplicates = made(SIZES, PAIRS)
    rows = by_kind(straddling(catalog, duplicates, "paper", seed))
    images = range(len(catalog))
    joined = [set(group.index) for _, group in catalog.groupby("group_id")]
    members = {
        "copies": [{image} for image in images],
        "known": [set(group.index) for _, group in catalog.groupby("source_group") if len(group) > 1],
        "identical": [{0, 1}, {64, 67}],
        "similar": [{60, 61, 62}],
        "joined": [group for group in joined if len(group) > 1],
        "any": joined,
    }
    for kind, groups in members.items():
        assert (rows[kind]["straddling"], rows[kind]["leaked_rows"]) == counted_by_loops(groups, catalog, seed), kind
        assert rows[kind]["test_rows"] == len(split_rows(catalog, "paper", seed).test)
    assert rows["copies"]["straddling"] > 0
    assert rows["any"]["leaked_rows"] >= max(rows["copies"]["leaked_rows"], rows["joined"]["leaked_rows"])


@pytest.mark.parametrize("seed", range(5))
def test_under_clean_nothing_straddles(seed: int) -> None:
    catalog, duplicates = made(SIZES, PAIRS)
    table = straddling(catalog, duplicates, "clean", seed)
    assert (table["straddling"] == 0).all()
    assert (table["leaked_rows"] == 0).all()
    same = ["kind", "source", "groups", "images", "two_classes"]
    pd.testing.assert_frame_equal(table[same], straddling(catalog, duplicates, "paper", seed)[same])


def test_images_that_are_not_augmented_have_no_copies() -> None:
    assert COPIES["mammography", 0] == COPIES["mammography", 1] == 1
    rows = by_kind(straddling(*made([1] * 60 + [3], [], modality="mammography"), "paper", 0))
    assert (rows["copies"]["groups"], rows["copies"]["straddling"]) == (0, 0)
    assert (rows["any"]["groups"], rows["any"]["images"]) == (1, 3)


def test_known_groups_are_told_apart_by_source() -> None:
    first, duplicates = made([1] * 30 + [2, 2], [])
    second = first.assign(source="oasbud", **{name: "o" + first[name] for name in ("source_group", "group_id")})
    second = second.assign(image_id="o" + first["image_id"]).iloc[:-2]
    table = straddling(pd.concat([first, second], ignore_index=True), duplicates, "paper", 0)
    known = table[table["kind"] == "known"].set_index("source")["groups"].to_dict()
    assert known == {"busi": 2, "oasbud": 1}


def test_a_data_set_that_can_not_be_split_has_its_groups_counted_all_the_same() -> None:
    rows = by_kind(straddling(*made([1, 1, 2], [(0, 1, "identical")], modality="mammography"), "clean", 0))
    assert rows["known"]["groups"] == rows["identical"]["groups"] == 1
    assert all(np.isnan(rows["known"][name]) for name in ("straddling", "leaked_rows", "test_rows"))


def test_a_pair_under_two_classes_is_found_in_the_pixels_alone(tmp_path: Path) -> None:
    draw, records = np.random.default_rng(0), []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (24, 24), dtype=np.uint8)).resize((48, 48)).save(path)
        if number == 7:
            path.write_bytes((tmp_path / "4.png").read_bytes())
        name = f"mine/{number}"
        records.append(
            ImageRecord(image_id=name, source="mine", modality="ultrasound", label=number % 2, group_id=name, path=path)
        )
    prepared = prepare(records, tmp_path / "out", image_size=32, decoder="torchvision", progress=lambda *_: None)
    assert prepared.duplicates.to_numpy().tolist() == [["mine/4", "mine/7", "identical", 0, 1.0]]
    assert set(prepared.catalog.loc[prepared.catalog["class_conflict"], "image_id"]) == {"mine/4", "mine/7"}
    rows = by_kind(straddling(prepared.catalog, prepared.duplicates, "paper", 0))
    assert (rows["identical"]["groups"], rows["identical"]["two_classes"], rows["known"]["groups"]) == (1, 1, 0)
    assert by_kind(straddling(prepared.catalog, prepared.duplicates, "clean", 0))["any"]["straddling"] == 0
