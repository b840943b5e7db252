"""From a catalog of files to a prepared data set: every image decoded and resized once, into one memory map.

A prepared folder holds ``images_u8.npy`` ([N, 1, S, S] uint8), ``masks_u8.npy`` (see ``fusion.masks``),
``catalog.parquet`` (row i describes image i), ``quarantine.csv`` (files that could not be read, with the reason),
``duplicates.csv`` (images that show the same, found by their pixels: a line a pair, with its kind, hash distance and
similarity), ``converted/`` and ``bmode/`` (8-bit grey PNGs of files DALI can't decode), and ``manifest.json``, written
last: without it the folder is not finished.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fusion.augment import COPIES
from fusion.catalog import ImageRecord, to_frame
from fusion.checksums import SUMS, read_checksums, require_intact, write_checksums
from fusion.cores import cpu_count
from fusion.decode import BATCH, Decoder, available_decoder, decode_and_resize, decode_torchvision
from fusion.duplicates import duplicate_pairs
from fusion.errors import UserError
from fusion.files import (
    clear_leftovers,
    content_hash,
    file_hash,
    make_folder,
    read_json,
    regular,
    replacing,
    sole_writer,
    sync,
    write_json,
)
from fusion.groups import IDENTICAL, SIMILAR, join_groups
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8
from fusion.masks import MASKS, NONE, fill_masks, masks_hash
from fusion.text import no_formula

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
SOFTWARE = ("fusebench", "torch", "torchvision", "nvidia-dali-cuda130", "pillow", "numpy", "scikit-image")

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how much is done and how much there is."""


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


def prepare(
    records: Sequence[ImageRecord],
    out: Path,
    *,
    image_size: int = 300,
    decoder: Decoder | None = None,
    strict: bool = False,
    notes: Sequence[str] = (),
    progress: Progress,
) -> Prepared:
    """Decode and resize every record's image once, and write the prepared data set to ``out``.

    Called again, an interrupted call goes on where it was, and a finished folder is opened as it is.

    Args:
        records: what the readers found.
        out: folder to write; made if missing.
        image_size: S, side of the prepared images in pixels; the paper uses 300.
        decoder: ``dali`` or ``torchvision``; None takes DALI where it is installed.
        strict: stop at the first unreadable file instead of putting it in quarantine.
        notes: remarks of the readers, kept in the manifest.
        progress: called as the work goes on.

    Raises:
        UserError: nothing readable, an unwritable folder, a folder that holds another data set, or, under ``strict``,
            an unreadable file.
    """
    if not 8 <= image_size <= 2048:
        raise UserError(f"image size {image_size} is outside 8..2048")
    decoder = decoder or available_decoder()
    frame = to_frame(records)
    with sole_writer(out):
        return _prepare(frame, out, image_size, decoder, strict, notes, progress)


def _prepare(
    frame: pd.DataFrame,
    out: Path,
    image_size: int,
    decoder: Decoder,
    strict: bool,
    notes: Sequence[str],
    progress: Progress,
) -> Prepared:
    frame, quarantined = _inspect(frame, out, strict, progress)
    plan = content_hash(
        {
            "format": FORMAT,
            "image_size": image_size,
            "decoder": decoder,
            "images": frame[[*IDENTITY, "sha256"]].to_dict("records"),
            "masks": masks_hash(frame["masks"].to_list()),
        }
    )
    if (out / MANIFEST).exists():
        finished = load_prepared(out)
        if finished.manifest["plan_hash"] == plan:
            shutil.rmtree(out / PARTIAL, ignore_errors=True)
            clear_leftovers(out)
            if not (out / SUMS).exists():
                write_checksums(out)
            return finished
        _remove_made(frame, out)
        raise UserError(
            f"{out} already holds another prepared data set ({len(finished.catalog)} images at "
            f"{finished.image_size} px); choose another folder, or delete it"
        )
    partial = out / PARTIAL
    fallbacks = _decode(frame, partial, image_size, decoder, plan, progress)
    images_u8 = np.load(partial / IMAGES, mmap_mode="r")
    pairs = duplicate_pairs(
        images_u8, frame["modality"].to_numpy(), progress=lambda done, total: progress("find duplicates", done, total)
    )
    _reserve(partial / MASKS, (int((frame["masks"].map(len) > 0).sum()), image_size, image_size))
    masks_u8 = np.load(partial / MASKS, mmap_mode="r+")
    places, faults, mask_notes = fill_masks(frame, masks_u8, strict=strict, progress=progress)
    masks_u8.flush()
    quarantined += faults
    frame = frame.drop(columns="masks").assign(mask=places, source_group=frame["group_id"])
    catalog = join_groups(frame, [(pair.first, pair.second) for pair in pairs])
    with replacing(out / CATALOG) as temporary:
        catalog.to_parquet(temporary, index=False)
    with replacing(out / QUARANTINE) as temporary:
        pd.DataFrame(quarantined, columns=["path", "reason"]).map(no_formula).to_csv(temporary, index=False)
    duplicates = pd.DataFrame(pairs, columns=list(DUPLICATE_COLUMNS))
    for column in ("first", "second"):
        duplicates[column] = catalog["image_id"].to_numpy()[duplicates[column].to_numpy(dtype=np.int64)]
    with replacing(out / DUPLICATES) as temporary:
        duplicates.to_csv(temporary, index=False)
    images_hash = file_hash(partial / IMAGES)
    del images_u8, masks_u8
    for name in (IMAGES, MASKS):
        sync(partial / name)
        (partial / name).replace(out / name)
    sync(out)
    write_json(
        out / MANIFEST,
        {
            "format": FORMAT,
            "plan_hash": plan,
            "data_hash": _data_hash(catalog, images_hash),
            "images": len(catalog),
            "image_size": image_size,
            "decoder": decoder,
            "decoded_by_pillow": fallbacks,
            "quarantined": len(quarantined),
            "duplicate_pairs": len(pairs),
            "groups": int(catalog["group_id"].nunique()),
            "class_conflicts": int(catalog["class_conflict"].sum()),
            "counts": table1_counts(catalog),
            "masks": int((catalog["mask"] != NONE).sum()),
            "masks_hash": file_hash(out / MASKS),
            "notes": [*notes, *mask_notes],
            "software": software_versions(),
        },
    )
    shutil.rmtree(partial)
    clear_leftovers(out)
    write_checksums(out)  # before it is opened: what is opened without them is said to be of an earlier version
    return load_prepared(out)


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
        if lacking or not fits or _data_hash(catalog, file_hash(root / IMAGES)) != manifest["data_hash"]:
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


def software_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the pixels; "absent" where one is not installed."""
    versions = {}
    for package in SOFTWARE:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions


def _data_hash(catalog: pd.DataFrame, images_hash: str) -> str:
    return content_hash({"images": images_hash, "catalog": catalog[list(IDENTITY)].to_dict("records")})


def _masks_fit(catalog: pd.DataFrame, masks_u8: np.ndarray, sides: tuple[int, int]) -> bool:
    in_range = catalog["mask"].dtype == np.int64 and catalog["mask"].between(NONE, len(masks_u8) - 1).all()
    return bool(in_range) and masks_u8.dtype == np.uint8 and masks_u8.shape[1:] == sides


def _inspect(
    frame: pd.DataFrame, out: Path, strict: bool, progress: Progress
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Check every file; return the readable ones, with size, hash and file to decode, and the others."""
    found: list[dict[str, Any]] = []
    quarantined: list[dict[str, str]] = []

    def check(path: Path) -> dict[str, Any]:
        facts = inspect_image(path)
        digest = file_hash(path)
        file = path if facts.plain else _convert(path, digest, make_folder(out / CONVERTED))
        return {"width": facts.width, "height": facts.height, "file": str(file.resolve()), "sha256": digest}

    with ThreadPoolExecutor(cpu_count()) as pool:
        paths = [Path(path) for path in frame["path"]]
        futures = [pool.submit(check, path) for path in paths]
        try:
            for done, (future, path) in enumerate(zip(futures, paths, strict=True), start=1):
                try:
                    found.append(future.result())
                except UnreadableImageError as error:
                    if strict:
                        raise UserError(f"{path}: {error} (--strict stops at the first unreadable file)") from None
                    quarantined.append({"path": str(path), "reason": str(error)})
                    found.append({"file": None})
                progress("check files", done, len(futures))
        finally:
            pool.shutdown(cancel_futures=True)
    checked = pd.concat([frame, pd.DataFrame(found)], axis=1)
    readable = checked[checked["file"].notna()].reset_index(drop=True)
    if readable.empty:
        raise UserError(
            f"none of the {len(frame)} files can be read; the first: {frame['path'][0]}: {quarantined[0]['reason']}"
        )
    return readable.astype({"width": "int64", "height": "int64"}), quarantined


def _remove_made(frame: pd.DataFrame, out: Path) -> None:
    """Remove the images that a refused call has made beside those of a finished data set, which are recorded."""
    root, known = out.resolve(), read_checksums(out)
    if known is None:  # nothing tells them from those of the data set
        return
    recorded = {Path(name).parts[:2] for name in known.now}
    files = {Path(file).resolve() for column in ("path", "file") for file in frame[column]}
    made = {file.relative_to(root).parts[:2] for file in files if file.is_relative_to(root)}
    for folder, name in (place for place in made - recorded if place[0] in MADE):
        path = root / folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with suppress(OSError):  # it holds others
            path.parent.rmdir()


def _convert(path: Path, digest: str, folder: Path) -> Path:
    """Write an image that DALI can't decode faithfully as an 8-bit grey PNG named by its content; return its path."""
    target = folder / f"{digest[:24]}.png"
    grey = read_grey_u8(path)
    with replacing(target) as temporary:
        Image.fromarray(grey).save(temporary, format="PNG")
    return target


def _decode(frame: pd.DataFrame, partial: Path, size: int, decoder: Decoder, plan: str, progress: Progress) -> int:
    """Fill ``partial/images_u8.npy`` from where an interrupted call stopped; return how many files Pillow decoded."""
    state: dict[str, Any] = {"plan_hash": plan, "done": 0, "fallbacks": 0}
    if (partial / "progress.json").exists():
        earlier = read_json(partial / "progress.json", "an interrupted preparation")
        if earlier.get("plan_hash") == plan and (partial / IMAGES).exists():
            state = earlier
    if state["done"] == 0:
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        _reserve(partial / IMAGES, (len(frame), 1, size, size))
    images_u8 = np.load(partial / IMAGES, mmap_mode="r+")
    paths = [Path(file) for file in frame["file"]]
    batches = decode_and_resize(paths[state["done"] :], size, decoder)
    progress("decode and resize", state["done"], len(paths))
    while state["done"] < len(paths):
        try:
            batch = next(batches)
        except UnreadableImageError as error:
            raise UserError(f"a file changed while it was read: {error}; run the same command again") from None
        except RuntimeError:
            # DALI gave up on a file that Pillow can read: Pillow decodes that batch, and the manifest counts it.
            start, end = state["done"], state["done"] + BATCH
            batch = np.stack([decode_torchvision(path, size) for path in paths[start:end]])
            state["fallbacks"] += len(batch)
            batches = decode_and_resize(paths[end:], size, decoder)
        _keep(images_u8, batch, state, partial)
        progress("decode and resize", state["done"], len(paths))
    return int(state["fallbacks"])


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Make an array file whose whole size is taken on disk: writing to a hole of a full disk would kill the process."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            size_mib = path.stat().st_size / 2**20
            raise UserError(f"can't reserve {size_mib:.0f} MiB in {path.parent}: {error.strerror}") from error


def _keep(images_u8: np.memmap, batch: np.ndarray, state: dict[str, Any], partial: Path) -> None:
    images_u8[state["done"] : state["done"] + len(batch)] = batch
    images_u8.flush()
    state["done"] += len(batch)
    write_json(partial / "progress.json", state)
