"""The two protocols: ``paper`` splits augmented rows, ``clean`` splits groups and augments the training part alone."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from fusion.augment import Rows, expand
from fusion.catalog import LABEL_NAMES
from fusion.errors import UserError

PROTOCOLS = ("paper", "clean")

TEST_FOLDS = 5
"""One of five parts is the test set: the paper's 80/20."""
VALIDATION_FOLDS = 10
"""One of ten parts of the training groups is the validation set under ``clean``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The rows a cell is trained on, watched on and judged on."""

    train: Rows
    validation: Rows
    """Under ``paper`` the same rows as ``test``: the paper has no third set, so early stopping watches the test set.
    Where the test is of another modality, the held-out rows of the trained one."""
    test: Rows
    fresh_augmentation: bool
    """Whether each epoch draws new augmentations (``clean``) or the first ones stay (``paper``)."""


def split_rows(
    catalog: pd.DataFrame,
    protocol: str,
    seed: int,
    *,
    modality: str | None = None,
    tested_on: str | None = None,
    augmented: bool = True,
) -> Split:
    """Split a prepared catalog.

    ``paper``: pool, augment, then a stratified 80/20 split of the augmented rows (Wang et al. 2024, 2.3.4), so copies
    of one image stand on both sides. ``clean``: images shown under two classes are dropped, groups are split 80/20, a
    tenth of the training groups is the validation set, and only training rows are augmented.

    Args:
        catalog: one row per image, in the order of the prepared array.
        protocol: ``paper`` or ``clean``.
        seed: draws the split.
        modality: keep only this modality (Table 6); None keeps all.
        tested_on: take the test rows of this modality's split instead, so that a model is judged on the very rows on
            which one trained on that modality is; None tests on ``modality``. Under ``clean`` no group of those rows
            stays in training or validation.
        augmented: whether copies are added at all.

    Raises:
        UserError: the protocol is unknown, or the data set is too small for every part to hold both classes.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}")
    keep = np.ones(len(catalog), dtype=bool) if modality is None else (catalog["modality"] == modality).to_numpy()
    if protocol == "clean":
        keep = keep & ~catalog["class_conflict"].to_numpy(dtype=bool)
    images = np.flatnonzero(keep)
    labels = catalog["label"].to_numpy()
    what = f"protocol {protocol!r}" + (f", modality {modality!r}" if modality else "")
    _require_both_classes(labels[images], f"{what}: the data set")
    if protocol == "paper":
        rows = expand(catalog, images, augmented=augmented)
        row_labels = labels[rows.image]
        if np.bincount(row_labels).min() < 2 or len(rows) < TEST_FOLDS * 2:
            raise UserError(f"{what}: {len(rows)} rows are too few for an 80/20 split with both classes on each side")
        train, test = train_test_split(
            np.arange(len(rows)), test_size=1 / TEST_FOLDS, stratify=row_labels, random_state=seed
        )
        split = Split(train=rows[train], validation=rows[test], test=rows[test], fresh_augmentation=False)
    else:
        rest, test = _split_groups(catalog, images, TEST_FOLDS, seed, what)
        train, validation = _split_groups(catalog, rest, VALIDATION_FOLDS, seed, what)
        split = Split(
            train=expand(catalog, train, augmented=augmented),
            validation=expand(catalog, validation, augmented=False),
            test=expand(catalog, test, augmented=False),
            fresh_augmentation=True,
        )
    if tested_on is not None:
        there = split_rows(catalog, protocol, seed, modality=tested_on, augmented=augmented)
        split = replace(split, test=there.test)
        if protocol == "clean":
            split = _without_groups_of_the_test(catalog, split)
    for part in ("train", "validation", "test"):
        _require_both_classes(labels[getattr(split, part).image], f"{what}: the {part} part")
    return split


def _split_groups(
    catalog: pd.DataFrame, images: np.ndarray, folds: int, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``images`` into (rest, one fold), no group on both sides, balanced by source and class."""
    chosen = catalog.iloc[images]
    per_class = chosen.groupby("label")["group_id"].nunique()
    for label, count in per_class.items():
        if count < folds:
            raise UserError(
                f"{what}: {count} groups of {LABEL_NAMES[int(str(label))]} images are too few; {folds} are needed"
            )
    strata = chosen["source"] + "/" + chosen["label"].astype(str)
    # Sources with fewer images of a class than folds are pooled: no split could balance each of them alone.
    rare = strata.groupby(strata).transform("size") < folds
    strata = strata.mask(rare, chosen["label"].astype(str))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # What was pooled may still be fewer images than folds, and is split as well as it can be.
        warnings.filterwarnings("ignore", message="The least populated class in y", category=UserWarning)
        rest, fold = next(splitter.split(images, strata, groups=chosen["group_id"]))
    return images[rest], images[fold]


def _without_groups_of_the_test(catalog: pd.DataFrame, split: Split) -> Split:
    """Leave out of training and validation what shares a group, e.g. a patient seen by both modalities."""
    group = catalog["group_id"].to_numpy()
    tested = set(group[split.test.image])

    def rest(rows: Rows) -> Rows:
        return rows[np.array([one not in tested for one in group[rows.image]], dtype=bool)]

    return replace(split, train=rest(split.train), validation=rest(split.validation))


def _require_both_classes(labels: np.ndarray, where: str) -> None:
    for label, name in LABEL_NAMES.items():
        if not (labels == label).any():
            raise UserError(
                f"{where} holds no {name} image ({len(labels)} in all); more data, or another seed, is needed"
            )
