"""A prepared data set, opened: what its folder holds, and whether that is what was written.

``images_u8.npy`` ([N, 1, S, S] uint8), ``masks_u8.npy`` (see ``fusion.masks``), ``catalog.parquet`` (row i describes
image i), ``quarantine.csv`` (files that could not be read, with the reason), ``duplicates.csv`` (images that show the
same, found by their pixels: a line a pair, with its kind, hash distance and similarity), ``converted/`` and ``bmode/``
(8-bit grey PNGs of files DALI can't decode), and ``manifest.json``, written last: without it the folder is not
finished.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fusion.augment import COPIES
from fusion.checksums import SUMS, require_intact
from fusion.cores import cpu_count
from fusion.errors import UserError
from fusion.files import content_hash, file_hash, read_json, regular
from fusion.groups import IDENTICAL, SIMILAR
from fusion.masks import MASKS, NONE

FORMAT = 2
PREPARED_BEFORE = "has no checksums (an earlier version or a killed call): the same 'fusebench prepare' adds them"
MOST_CATALOG_BYTES = 2**30
log = logging.getLogger(__name__)
PARTIAL = "partial"
"""Folder of what is not finished."""
CONVERTED, BMODE = MADE = ("converted", "bmode")
"""Folders of images that are made from others: a file of the first, a folder of the second for each."""
IMAGES, CATALOG, MANIFEST = "images_u8.npy", "catalog.parquet", "manifest.json"
QUARANTINE, DUPLICATES = "quarantine.csv", "duplicates.csv"
FILES = (IMAGES, MASKS, CATALOG, QUARANTINE, DUPLICATES, MANIFEST)
"""What a prepared data set is."""
DUPLICATE_COLUMNS = ("first", "second", "kind", "hash_distance", "similarity")
"""Of ``duplicates.csv``: two image ids, and what ``fusion.duplicates.Duplicate`` says of them."""
IDENTITY = ("image_id", "source", "modality", "label", "group_id", "class_conflict", "synthetic")
"""Catalog columns that belong to the data set's hash; paths do not."""
MANIFEST_KEYS = {"plan_hash", "decoder", "decoded_by_pillow", "quarantined", "duplicate_pairs", "masks", "notes"}
"""What is read of a manifest beside the counts, which the catalog tells."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A prepared data set, opened."""

    root: Path
    catalog: pd.DataFrame
    """One row per image: the columns of ``ImageRecord`` without ``masks``; ``width``, ``height`` and ``sha256`` of the
    file; what to decode, ``file``; ``mask``, its place in ``masks_u8``, -1 for none; and ``source_group``: its group as
    its reader knew it, before duplicates joined groups."""
    images_u8: np.ndarray
    """[N, 1, S, S] uint8, a read-only memory map."""
    masks_u8: np.ndarray
    """[M, S, S] uint8, 1 inside a lesion, a read-only memory map; the catalog's ``mask`` says whose is which."""
    manifest: dict[str, Any]
    duplicates: pd.DataFrame
    """One row per pair of duplicates found by their pixels, columns ``DUPLICATE_COLUMNS``."""

    @property
    def image_size(self) -> int:
        """S, the side of the images in pixels."""
        return int(self.images_u8.shape[-1])

    @property
    def data_hash(self) -> str:
        """Hash of the pixels and of what the catalog says about them."""
        return str(self.manifest["data_hash"])

    def mask(self, image: int) -> np.ndarray | None:
        """Return the lesions of an image, [S, S] bool; None where no mask is known."""
        place = int(self.catalog["mask"].iloc[image])
        return None if place == NONE else self.masks_u8[place] != 0

    def files(self) -> list[Path]:
        """Return the file of each image, to be decoded.

        Raises:
            UserError: one is no longer there, or no longer what it was.
        """
        return _unchanged_files(self)

    @property
    def counts(self) -> list[dict[str, Any]]:
        """Images and rows of every source, modality and label: Table 1."""
        return table1_counts(self.catalog)

    @property
    def synthetic_sources(self) -> list[str]:
        """Names of the sources that are phantoms."""
        return sorted(self.catalog.loc[self.catalog["synthetic"], "source"].unique())


@lru_cache(maxsize=1)
def _unchanged_files(prepared: Prepared) -> list[Path]:
    files = [Path(file) for file in prepared.catalog["file"]]
    way_out = "bring it back, or choose the loader 'resident'"
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is gone, so it can't be streamed; {way_out}")
    # Converted files are named by the hash of what they were made of.
    originals = [Path(path) for path in prepared.catalog["path"]]
    kept = [
        (file, digest)
        for file, original, digest in zip(files, originals, prepared.catalog["sha256"], strict=True)
        if file == original.resolve()
    ]
    with ThreadPoolExecutor(cpu_count()) as pool:
        hashes = pool.map(file_hash, [file for file, _ in kept])
        for (file, digest), now in zip(kept, hashes, strict=True):
            if now != digest:
                raise UserError(f"{file} is not the file that was prepared; {way_out}")
    return files


def load_prepared(root: Path) -> Prepared:
    """Open a prepared data set.

    Raises:
        UserError: ``root`` is not one, is unfinished, or its files don't fit its manifest.
    """
    if (root / SUMS).exists():  # images and masks are compared with the manifest
        way_out = "delete the folder and prepare again"
        require_intact(*(root / name for name in (MANIFEST, CATALOG, DUPLICATES, QUARANTINE)), way_out=way_out)
    elif (root / MANIFEST).exists():
        log.warning("note: %s %s", root, PREPARED_BEFORE)
    manifest = read_json(root / MANIFEST, "a prepared data set (make one with 'fusebench prepare')")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{root} was prepared in format {manifest.get('format')!r}, this version reads {FORMAT}: "
            "delete it and prepare again"
        )
    try:
        # np.load would read archives and pickles too
        images_u8 = np.lib.format.open_memmap(regular(root / IMAGES), mode="r")
        masks_u8 = np.lib.format.open_memmap(regular(root / MASKS), mode="r")
        catalog = pd.read_parquet(regular(root / CATALOG, MOST_CATALOG_BYTES))
        expected = (manifest["images"], 1, manifest["image_size"], manifest["image_size"])
        lacking = {*IDENTITY, "source_group", "file", "width", "height", "sha256", "mask"} - set(catalog.columns)
        fits = images_u8.shape == expected and images_u8.dtype == np.uint8 and len(catalog) == expected[0]
        if lacking or not fits or hash_of_data(catalog, file_hash(root / IMAGES)) != manifest["data_hash"]:
            raise ValueError("its files do not fit its manifest")
        if not _masks_fit(catalog, masks_u8, expected[2:]) or file_hash(root / MASKS) != manifest["masks_hash"]:
            raise ValueError("its masks do not fit its manifest")
        if absent := MANIFEST_KEYS - manifest.keys():
            raise ValueError(f"its manifest lacks {min(absent)!r}")
        duplicates = _read_duplicates(root / DUPLICATES, catalog, manifest["duplicate_pairs"])
    except Exception as error:  # numpy, pandas and pyarrow raise nearly anything on damaged input
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{root} is damaged ({reason}): delete it and prepare again") from None
    return Prepared(
        root=root,
        catalog=catalog,
        images_u8=images_u8,
        masks_u8=masks_u8,
        manifest=manifest,
        duplicates=duplicates,
    )


def _read_duplicates(path: Path, catalog: pd.DataFrame, count: int) -> pd.DataFrame:
    duplicates = pd.read_csv(
        regular(path, MOST_CATALOG_BYTES), keep_default_na=False, dtype=dict.fromkeys(("first", "second", "kind"), str)
    )
    if tuple(duplicates.columns) != DUPLICATE_COLUMNS or len(duplicates) != count:
        raise ValueError(f"{path.name} does not hold the {count} pairs of the manifest")
    ends = duplicates[["first", "second"]]
    if not (ends.isin(set(catalog["image_id"])).all(axis=None) and duplicates["kind"].isin((IDENTICAL, SIMILAR)).all()):
        raise ValueError(f"{path.name} names an image or a kind that is not known")
    return duplicates.astype({"hash_distance": int, "similarity": float})


def table1_counts(catalog: pd.DataFrame) -> list[dict[str, Any]]:
    """Return, per source, modality and label, how many images there are and how many rows Table 1 makes of them."""
    sizes = catalog.groupby(["source", "modality", "label"]).size().reset_index(name="images")
    copies = [COPIES[key] for key in zip(sizes["modality"], sizes["label"], strict=True)]
    counts = sizes.assign(copies=sizes["images"] * copies).to_dict("records")
    return [{str(key): value for key, value in line.items()} for line in counts]


def hash_of_data(catalog: pd.DataFrame, images_hash: str) -> str:
    """Return the hash of the pixels and of what the catalog says about them; paths do not belong to it."""
    return content_hash({"images": images_hash, "catalog": catalog[list(IDENTITY)].to_dict("records")})


def _masks_fit(catalog: pd.DataFrame, masks_u8: np.ndarray, sides: tuple[int, int]) -> bool:
    in_range = catalog["mask"].dtype == np.int64 and catalog["mask"].between(NONE, len(masks_u8) - 1).all()
    return bool(in_range) and masks_u8.dtype == np.uint8 and masks_u8.shape[1:] == sides
