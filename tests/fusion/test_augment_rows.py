import numpy as np
import pandas as pd
import pytest

from fusion.augment import COPIES, Rows, expand

# Images of the paper's three sources: (source, modality, benign, malignant).
ORIGINAL = [("rsna", "mammography", 1200, 1158), ("busi", "ultrasound", 437, 210), ("oasbud", "ultrasound", 96, 104)]


def catalog_of(counts: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    rows = [
        (source, modality, label)
        for source, modality, *numbers in counts
        for label, number in enumerate(numbers)
        for _ in range(number)
    ]
    return pd.DataFrame(rows, columns=["source", "modality", "label"])


def test_counts_of_table_1() -> None:
    catalog = catalog_of(ORIGINAL)
    rows = expand(catalog, np.arange(len(catalog)), augmented=True)
    labels = catalog["label"].to_numpy()[rows.image]
    assert (len(catalog), len(rows)) == (3205, 5213)
    assert np.bincount(labels).tolist() == [2799, 2414]
    per_source = pd.Series(catalog["source"].to_numpy()[rows.image]).value_counts().to_dict()
    assert per_source == {"rsna": 2358, "busi": 3 * 437 + 4 * 210, "oasbud": 3 * 96 + 4 * 104}


def test_order_is_kept_and_copy_0_comes_first() -> None:
    catalog = catalog_of([("rsna", "mammography", 1, 1), ("busi", "ultrasound", 1, 1), ("mine", "other", 1, 1)])
    rows = expand(catalog, np.array([3, 0, 2, 5, 1]), augmented=True)
    assert rows.image.tolist() == [3, 3, 3, 3, 0, 2, 2, 2, 5, 1]
    assert rows.copy.tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 0, 0]
    assert rows.image.dtype == rows.copy.dtype == np.int64


def test_without_augmentation_every_image_is_one_row() -> None:
    catalog = catalog_of(ORIGINAL)
    images = np.random.default_rng(0).permutation(len(catalog))[:100]
    rows = expand(catalog, images, augmented=False)
    np.testing.assert_array_equal(rows.image, images)
    assert not rows.copy.any()


@pytest.mark.parametrize("augmented", [True, False])
def test_no_images_are_no_rows(augmented: bool) -> None:
    rows = expand(catalog_of(ORIGINAL), np.array([], dtype=np.int64), augmented=augmented)
    assert len(rows) == len(rows.copy) == 0
    assert rows.image.dtype == rows.copy.dtype == np.int64


def test_a_catalog_with_any_index_is_read_by_position() -> None:
    catalog = catalog_of([("rsna", "mammography", 1, 0), ("busi", "ultrasound", 0, 1)]).set_index(pd.Index([9, 4]))
    assert expand(catalog, np.array([1]), augmented=True).copy.tolist() == [0, 1, 2, 3]


def test_rows_are_chosen_by_slice_and_by_index() -> None:
    rows = Rows(np.array([4, 4, 7]), np.array([0, 1, 0]))
    assert rows[1:].image.tolist() == [4, 7]
    assert rows[np.array([2, 1])].copy.tolist() == [0, 1]
    assert len(rows[:0]) == 0


def test_every_modality_and_label_has_its_copies() -> None:
    assert set(COPIES) == {(m, label) for m in ("mammography", "ultrasound", "other") for label in (0, 1)}
    assert min(COPIES.values()) == 1
