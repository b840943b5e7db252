"""From a catalog of files to a prepared data set: every image decoded and resized once, into one memory map."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fusion.catalog import ImageRecord, to_frame
from fusion.checksums import SUMS, read_checksums, write_checksums
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
    replacing,
    sole_writer,
    sync,
    write_json,
)
from fusion.groups import join_groups
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8
from fusion.masks import MASKS, NONE, fill_masks, masks_hash
from fusion.prepared import (
    CATALOG,
    CONVERTED,
    DUPLICATE_COLUMNS,
    DUPLICATES,
    FORMAT,
    IDENTITY,
    IMAGES,
    MADE,
    MANIFEST,
    PARTIAL,
    QUARANTINE,
    Prepared,
    hash_of_data,
    load_prepared,
    table1_counts,
)
from fusion.text import no_formula

SOFTWARE = ("fusebench", "torch", "torchvision", "nvidia-dali-cuda130", "pillow", "numpy", "scikit-image")

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how much is done and how much there is."""


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
            "data_hash": hash_of_data(catalog, images_hash),
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


def software_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the pixels; "absent" where one is not installed."""
    versions = {}
    for package in SOFTWARE:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions


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
