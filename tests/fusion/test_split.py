import contextlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.augment import COPIES, Rows
from fusion.errors import UserError
from fusion.split import Split, split_rows

PARTS = ("train", "validation", "test")


def random_catalog(seed: int, groups: int = 320) -> pd.DataFrame:
    """Return 1 to 4 images a group from three sources; in some groups both classes, in some images a conflict."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        source, modality = [("busi", "ultrasound"), ("oasbud", "ultrasound"), ("rsna", "mammography")][group % 3]
        label = int(rng.random() < 0.4)
        for _ in range(rng.integers(1, 5)):
            own = 1 - label if rng.random() < 0.1 else label
            rows.append((source, modality, own, f"{source}:{group}", bool(rng.random() < 0.05)))
    frame = pd.DataFrame(rows, columns=["source", "modality", "label", "group_id", "class_conflict"])
    return frame.sample(frac=1, random_state=seed, ignore_index=True)


def simple_catalog(benign: int, malignant: int, source: str = "busi", modality: str = "ultrasound") -> pd.DataFrame:
    labels = [0] * benign + [1] * malignant
    return pd.DataFrame(
        {
            "source": source,
            "modality": modality,
            "label": labels,
            "group_id": [f"{source}:{i}" for i in range(len(labels))],
            "class_conflict": False,
        }
    )


def pairs(rows: Rows) -> list[tuple[int, int]]:
    return list(zip(rows.image.tolist(), rows.copy.tolist(), strict=True))


def same(first: Split, second: Split) -> bool:
    return all(pairs(getattr(first, part)) == pairs(getattr(second, part)) for part in PARTS)


@settings(deadline=None, max_examples=15)
@given(data_seed=st.integers(0, 10**6), seed=st.integers(0, 2**32 - 1))
def test_clean_keeps_groups_together_and_augments_the_training_part_alone(data_seed: int, seed: int) -> None:
    catalog = random_catalog(data_seed)
    split = split_rows(catalog, "clean", seed)
    assert split.fresh_augmentation
    images = {part: np.unique(getattr(split, part).image) for part in PARTS}
    groups = {part: set(catalog["group_id"].iloc[images[part]]) for part in PARTS}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    usable = np.flatnonzero(~catalog["class_conflict"])
    np.testing.assert_array_equal(np.sort(np.concatenate(list(images.values()))), usable)
    for part in ("validation", "test"):
        rows = getattr(split, part)
        assert not rows.copy.any()
        assert len(rows) == len(images[part])
    chosen = catalog.iloc[images["train"]]
    expected = sum(COPIES[key] for key in zip(chosen["modality"], chosen["label"], strict=True))
    assert len(set(pairs(split.train))) == len(split.train) == expected


@settings(deadline=None, max_examples=15)
@given(data_seed=st.integers(0, 10**6), seed=st.integers(0, 2**32 - 1))
def test_clean_parts_have_their_shares_of_every_source_and_class(data_seed: int, seed: int) -> None:
    catalog = random_catalog(data_seed)
    split = split_rows(catalog, "clean", seed, augmented=False)
    usable = catalog[~catalog["class_conflict"]]
    for part, share in (("test", 0.2), ("validation", 0.08)):
        chosen = catalog.iloc[getattr(split, part).image]
        assert abs(len(chosen) / len(usable) - share) < 0.02
        assert set(chosen["label"]) == {0, 1}
        for (source, label), images in usable.groupby(["source", "label"]):
            here = ((chosen["source"] == source) & (chosen["label"] == label)).sum()
            assert abs(here / len(images) - share) < 0.1


@settings(deadline=None, max_examples=15)
@given(data_seed=st.integers(0, 10**6), seed=st.integers(0, 2**32 - 1))
def test_paper_splits_augmented_rows_80_to_20_and_stratified(data_seed: int, seed: int) -> None:
    catalog = random_catalog(data_seed, groups=60)
    split = split_rows(catalog, "paper", seed)
    assert not split.fresh_augmentation
    assert pairs(split.validation) == pairs(split.test)
    expected = {
        (image, copy)
        for image, key in enumerate(zip(catalog["modality"], catalog["label"], strict=True))
        for copy in range(COPIES[key])
    }
    together = pairs(split.train) + pairs(split.test)
    assert len(together) == len(expected)
    assert set(together) == expected
    assert len(split.test) == -(-len(expected) // 5)
    labels = catalog["label"].to_numpy()
    for label in (0, 1):
        total = (labels[[image for image, _ in together]] == label).sum()
        assert abs((labels[split.test.image] == label).sum() - total / 5) <= 1


def test_paper_leaks_copies_of_one_image_to_both_sides_and_clean_does_not() -> None:
    catalog = simple_catalog(60, 60)
    for protocol, leaks in (("paper", True), ("clean", False)):
        split = split_rows(catalog, protocol, 0)
        assert bool(set(split.train.image) & set(split.test.image)) == leaks


def test_paper_keeps_images_in_conflict() -> None:
    catalog = simple_catalog(30, 30).assign(class_conflict=True)
    split = split_rows(catalog, "paper", 0)
    assert len(split.train) + len(split.test) == 30 * 3 + 30 * 4
    with pytest.raises(UserError, match="the data set holds no benign image"):
        split_rows(catalog, "clean", 0)


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_the_seed_alone_decides(protocol: str) -> None:
    catalog = random_catalog(3)
    split = split_rows(catalog, protocol, 5)
    assert same(split, split_rows(catalog.copy(), protocol, 5))
    assert not same(split, split_rows(catalog, protocol, 6))


@pytest.mark.parametrize("protocol", ["paper", "clean"])
@pytest.mark.parametrize("modality", ["ultrasound", "mammography"])
def test_one_modality_alone(protocol: str, modality: str) -> None:
    catalog = random_catalog(1, groups=600)
    split = split_rows(catalog, protocol, 0, modality=modality, augmented=False)
    images = np.unique(np.concatenate([getattr(split, part).image for part in PARTS]))
    wanted = catalog["modality"] == modality
    if protocol == "clean":
        wanted &= ~catalog["class_conflict"]
    np.testing.assert_array_equal(images, np.flatnonzero(wanted))


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_without_augmentation_there_are_no_copies(protocol: str) -> None:
    split = split_rows(random_catalog(2), protocol, 0, augmented=False)
    assert not any(getattr(split, part).copy.any() for part in PARTS)


def test_unknown_protocol() -> None:
    with pytest.raises(UserError, match="protocol 'fair' is unknown; choose from paper, clean"):
        split_rows(simple_catalog(50, 50), "fair", 0)


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_a_class_that_is_missing_is_named(protocol: str) -> None:
    with pytest.raises(UserError, match=f"protocol '{protocol}': the data set holds no malignant image"):
        split_rows(simple_catalog(50, 0), protocol, 0)
    with pytest.raises(UserError, match="modality 'mammography': the data set holds no benign image"):
        split_rows(simple_catalog(50, 50), protocol, 0, modality="mammography")


@pytest.mark.parametrize(
    ("benign", "malignant", "message"),
    [
        (50, 4, "4 groups of malignant images are too few; 5 are needed"),
        (50, 10, "8 groups of malignant images are too few; 10 are needed"),
    ],
)
def test_too_few_groups_for_clean(benign: int, malignant: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_rows(simple_catalog(benign, malignant), "clean", 0)


@pytest.mark.parametrize(("benign", "malignant"), [(1, 1), (4, 4), (50, 1), (3, 6)])
def test_too_few_rows_for_paper(benign: int, malignant: int) -> None:
    with pytest.raises(UserError, match="too few for an 80/20 split"):
        split_rows(simple_catalog(benign, malignant), "paper", 0, augmented=False)


def test_a_part_without_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="the validation part holds no malignant image"):
        split_rows(simple_catalog(50, 2), "paper", 0, augmented=False)


@settings(deadline=None, max_examples=40)
@given(benign=st.integers(0, 40), malignant=st.integers(0, 40), sources=st.integers(1, 12), seed=st.integers(0, 99))
@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_small_data_sets_are_split_well_or_refused(
    protocol: str, benign: int, malignant: int, sources: int, seed: int
) -> None:
    catalog = simple_catalog(benign, malignant)
    catalog["source"] = [f"set{i % sources}" for i in range(len(catalog))]
    with contextlib.suppress(UserError):
        split = split_rows(catalog, protocol, seed)
        labels = catalog["label"].to_numpy()
        assert all(set(labels[getattr(split, part).image]) == {0, 1} for part in PARTS)


def test_many_small_sources_are_balanced_by_class() -> None:
    catalog = pd.concat([simple_catalog(2, 2, source=f"set{i}") for i in range(30)], ignore_index=True)
    split = split_rows(catalog, "clean", 0)
    test = catalog.iloc[split.test.image]
    assert test["label"].value_counts().to_dict() == {0: 12, 1: 12}


# -- trained on one modality, tested on another ----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["paper", "clean"])
@pytest.mark.parametrize(("here", "there"), [("ultrasound", "mammography"), ("mammography", "ultrasound")])
def test_a_transfer_is_tested_on_the_rows_of_the_other_modality(protocol: str, here: str, there: str) -> None:
    catalog = random_catalog(3)
    split = split_rows(catalog, protocol, 7, modality=here, tested_on=there, augmented=False)
    own = split_rows(catalog, protocol, 7, modality=here, augmented=False)
    other = split_rows(catalog, protocol, 7, modality=there, augmented=False)
    assert pairs(split.test) == pairs(other.test)
    assert (pairs(split.train), pairs(split.validation)) == (pairs(own.train), pairs(own.validation))
    assert set(catalog["modality"].iloc[split.train.image]) == {here}
    assert set(catalog["modality"].iloc[split.test.image]) == {there}


def test_clean_trains_on_no_patient_whose_other_modality_is_tested() -> None:
    first = simple_catalog(60, 60).assign(group_id=[f"patient {i}" for i in range(120)])
    catalog = pd.concat([first, first.assign(modality="mammography")], ignore_index=True)
    split = split_rows(catalog, "clean", 0, modality="ultrasound", tested_on="mammography", augmented=False)
    own = split_rows(catalog, "clean", 0, modality="ultrasound", augmented=False)
    groups = {part: set(catalog["group_id"].iloc[getattr(split, part).image]) for part in PARTS}
    assert not groups["test"] & (groups["train"] | groups["validation"])
    tested = catalog["group_id"].iloc[own.train.image].isin(groups["test"]).to_numpy()
    assert len(split.train) == (~tested).sum()


def test_a_modality_that_is_not_there_can_not_be_tested_on() -> None:
    with pytest.raises(UserError, match="modality 'mammography': the data set holds no benign image"):
        split_rows(simple_catalog(50, 50), "paper", 0, modality="ultrasound", tested_on="mammography")
