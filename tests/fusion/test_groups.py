import numpy as np
import pandas as pd

from fusion.groups import components, join_groups


def catalog_of(groups_of: list[str], labels: list[int], conflict: list[bool] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {"group_id": groups_of, "label": labels, "class_conflict": conflict or [False] * len(labels)},
    )


def test_groups_without_pairs_stay_as_they_are() -> None:
    catalog = catalog_of(["b", "a", "b"], [0, 1, 1])
    joined = join_groups(catalog, [])
    pd.testing.assert_frame_equal(joined, catalog, check_dtype=False)


def test_joining_is_transitive_through_pairs_and_groups() -> None:
    #   0-1 share a group, 1-2 are duplicates, 2-3 share a group, 3-4 are duplicates; 5 stands alone
    joined = join_groups(catalog_of(["d", "d", "c", "c", "b", "a"], [0] * 6), [(1, 2), (3, 4)])
    assert joined["group_id"].tolist() == ["b"] * 5 + ["a"]
    assert not joined["class_conflict"].any()


def test_the_catalog_is_not_changed() -> None:
    catalog = catalog_of(["b", "a"], [0, 1])
    before = catalog.copy()
    join_groups(catalog, [(0, 1)])
    pd.testing.assert_frame_equal(catalog, before)


def test_duplicates_of_different_label_are_in_conflict() -> None:
    joined = join_groups(catalog_of(["a", "b", "c", "d"], [0, 1, 0, 0]), [(0, 1), (2, 3)])
    assert joined["class_conflict"].tolist() == [True, True, False, False]
    assert joined["group_id"].tolist() == ["a", "a", "c", "c"]


def test_conflict_spreads_to_duplicates_of_duplicates() -> None:
    joined = join_groups(catalog_of(list("abcd"), [0, 0, 1, 0]), [(0, 1), (1, 2)])
    assert joined["class_conflict"].tolist() == [True, True, True, False]


def test_a_patient_with_both_classes_is_not_in_conflict() -> None:
    joined = join_groups(catalog_of(["p", "p", "q", "q"], [0, 1, 0, 1]), [])
    assert not joined["class_conflict"].any()


def test_a_conflict_does_not_spread_to_the_other_images_of_the_patient() -> None:
    joined = join_groups(catalog_of(["p", "p", "q"], [0, 0, 1]), [(0, 2)])
    assert joined["class_conflict"].tolist() == [True, False, True]
    assert joined["group_id"].nunique() == 1


def test_a_published_conflict_spreads_to_the_copies() -> None:
    joined = join_groups(catalog_of(list("abc"), [0, 0, 0], [True, False, False]), [(0, 1)])
    assert joined["class_conflict"].tolist() == [True, True, False]


def test_components_are_those_of_the_links() -> None:
    assert components(5, np.array([[0, 3], [3, 4]])).tolist() == [0, 1, 2, 0, 0]
    assert components(3, np.empty((0, 2))).tolist() == [0, 1, 2]
