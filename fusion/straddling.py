"""How many groups of images that belong together have rows on both sides of a split."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fusion.augment import expand
from fusion.catalog import LABEL_NAMES
from fusion.errors import UserError
from fusion.groups import IDENTICAL, SIMILAR, components
from fusion.split import split_rows

COPIES, KNOWN, JOINED, ANY = "copies", "known", "joined", "any"
KINDS = {
    COPIES: "an image and its augmented copies",
    KNOWN: "images of one patient, lesion or published group, as the reader of the source knows them",
    IDENTICAL: "images of identical pixels, found in the pixels alone",
    SIMILAR: "images of near perceptual hashes, confirmed by structural similarity, found in the pixels alone",
    JOINED: "known and found ones joined: what protocol clean keeps on one side",
    ANY: "joined groups, and the augmented copies of every image",
}
"""Kind of group -> what is in one. Groups of a single image, or of a single row for copies and any, are none."""
COLUMNS = (
    *("protocol", "seed", "kind", "source"),
    "groups",  # of more than one image; kinds copies and any: of more than one row after augmentation
    "images",  # in these groups
    "two_classes",  # groups that hold benign and malignant images
    "straddling",  # groups with a row among the training and a row among the test rows; empty: no such split
    "leaked_rows",  # test rows that belong to a straddling group
    "test_rows",
)
"""Of the table ``straddling`` returns; ``source`` is ``all`` but for known groups."""


def straddling(catalog: pd.DataFrame, duplicates: pd.DataFrame, protocol: str, seed: int) -> pd.DataFrame:
    """Return, for each kind of group, how many there are and how many straddle the split of a protocol and seed.

    The split is that of Models 1 to 3: all modalities, augmented. A group straddles when a row of it is among the
    training rows and another among the test rows. Under ``clean`` none of any kind does, by construction.

    Args:
        catalog: of a prepared data set.
        duplicates: found in it, see ``fusion.prepared.Prepared``.
        protocol: ``paper`` or ``clean``.
        seed: draws the split.

    Returns:
        A row per kind, one per source for ``known``, columns ``COLUMNS``. Where the data set can't be split, the
        counts of the split are NaN.
    """
    copies = np.zeros(len(catalog), dtype=np.int64)
    everything = expand(catalog, np.arange(len(catalog)), augmented=True)
    np.add.at(copies, everything.image, 1)
    try:
        split = split_rows(catalog, protocol, seed)
    except UserError:  # every cell fails for it, and says why
        split = None
    label = catalog["label"].to_numpy()
    rows = []
    for kind, source, group in _groups(catalog, duplicates):
        size = np.bincount(group, weights=copies if kind in (COPIES, ANY) else None)
        chosen = size[group] > 1
        if source != "all":
            chosen &= (catalog["source"] == source).to_numpy()
        classes = [set(group[chosen & (label == value)]) for value in LABEL_NAMES]
        row = {"protocol": protocol, "seed": seed, "kind": kind, "source": source}
        row |= {"groups": len(set(group[chosen])), "images": int(chosen.sum())}
        row |= {"two_classes": len(set.intersection(*classes))}
        if split is not None:
            train, test = (part.image[chosen[part.image]] for part in (split.train, split.test))
            both = np.intersect1d(group[train], group[test])
            leaked = int(np.isin(group[test], both).sum())
            row |= {"straddling": len(both), "leaked_rows": leaked, "test_rows": len(split.test)}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _groups(catalog: pd.DataFrame, duplicates: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield each kind and source with the group, [N] int64, of every image."""
    yield COPIES, "all", np.arange(len(catalog))
    known = catalog["source_group"].factorize()[0]
    for source in sorted(catalog["source"].unique()):
        yield KNOWN, source, known
    row_of = pd.Series(np.arange(len(catalog)), index=catalog["image_id"])
    for kind in (IDENTICAL, SIMILAR):
        pairs = duplicates.loc[duplicates["kind"] == kind, ["first", "second"]]
        yield kind, "all", components(len(catalog), np.stack([row_of[pairs[end]] for end in pairs], axis=1))
    joined = catalog["group_id"].factorize()[0]
    yield JOINED, "all", joined
    yield ANY, "all", joined
