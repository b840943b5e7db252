"""RSNA screening mammography (Carr et al., RSNA Breast Cancer Detection, Kaggle 2022) and its smaller conversions."""

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from fusion.catalog import ImageRecord
from fusion.errors import UserError
from fusion.sources.inputs import check_folder, is_phantom, list_files, read_table

FULL_IMAGES, FULL_POSITIVES = 54_706, 1_158
CLASS_FOLDERS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}

_NUMBER = re.compile(r"[0-9]{1,18}")
_PAIR = re.compile(r"([0-9]{1,18})_([0-9]{1,18})")

Key = tuple[int, int]


@dataclass(frozen=True)
class _Found:
    path: Path
    stem: str
    key: Key | None
    """(patient id, image id), where the names tell."""
    folder_label: int | None


def read_rsna(
    root: Path, *, negatives: int = 1200, seed: int = 0, allow_ungrouped: bool = False
) -> tuple[list[ImageRecord], list[str]]:
    """Return all positive images and a seeded draw of ``negatives`` negative ones, and remarks for the user.

    Read are ``train.csv`` with ``train/{0,1}/<patient>_<image>.png``, with flat ``<patient>_<image>.png`` or with
    ``<patient>/<image>.png`` or ``.dcm`` at any depth, and, without ``train.csv``, class folders ``{0,1}`` or
    ``{benign,malignant}`` of ``<patient>_<image>.png``. Folders named ``test`` or ``test_*`` are ignored, as the test
    set has no labels. The draw takes the negatives whose names have the smallest SHA-256 together with ``seed``, so it
    depends on nothing else. ``cancer = 0`` means no cancer in that breast, mostly normal screens.

    Raises:
        UserError: no such folder, no images, no positives, an image without label or (unless ``allow_ungrouped``)
            without patient id, labels that contradict each other, an image found twice, or a faulty ``train.csv``.
    """
    check_folder(root, "rsna")
    if negatives < 0:
        raise UserError(f"rsna: {negatives} negatives; expected 0 or more")
    found = _find(root)
    if not found:
        raise UserError(f"rsna: no images in {root}; expected e.g. train/1/<patient_id>_<image_id>.png")
    ungrouped = [image for image in found if image.key is None]
    if ungrouped and not allow_ungrouped:
        raise UserError(
            f"rsna: {ungrouped[0].path} has no patient id; expected <patient_id>_<image_id>.png or "
            "<patient_id>/<image_id>.png (--allow-ungrouped reads it, but then results may leak)"
        )
    table_path = root / "train.csv"
    table = _read_labels(table_path) if table_path.is_file() else {}
    labels = [_label(image, table, table_path) for image in found]
    positive = [image for image, label in zip(found, labels, strict=True) if label == 1]
    negative = [image for image, label in zip(found, labels, strict=True) if label == 0]
    if not positive:
        raise UserError(f"rsna: none of the {len(found)} images in {root} has cancer = 1")
    notes = _notes(found, labels, negatives)
    if table:
        notes += _table_notes(found, table, table_path)
    drawn = sorted(negative, key=lambda image: _rank(image, seed))[:negatives]
    synthetic = is_phantom(root)
    records = [
        ImageRecord(
            image_id=f"rsna/{_name(image)}",
            source="rsna",
            modality="mammography",
            label=label,
            group_id=f"rsna:{image.key[0]}" if image.key else f"rsna:image-{image.stem}",
            path=image.path,
            synthetic=synthetic,
        )
        for label, images in ((0, drawn), (1, positive))
        for image in sorted(images, key=_order)
    ]
    return records, notes


def _find(root: Path) -> list[_Found]:
    """Return every training image below ``root``.

    Raises:
        UserError: two files are the same image.
    """
    images: dict[str, _Found] = {}
    for path in list_files(root)[0]:
        folders = path.relative_to(root).parts[:-1]
        if any(folder == "test" or folder.startswith("test_") for folder in folders):
            continue
        named = [CLASS_FOLDERS[folder] for folder in folders if folder in CLASS_FOLDERS]
        image = _Found(path, path.stem, _key(path.stem, folders), named[-1] if named else None)
        known = images.setdefault(_name(image), image)
        if known is not image:
            raise UserError(f"rsna: {known.path} and {path} are the same image; give a folder that holds only one set")
    return list(images.values())


def _key(stem: str, folders: tuple[str, ...]) -> Key | None:
    if pair := _PAIR.fullmatch(stem):
        return int(pair[1]), int(pair[2])
    parent = folders[-1] if folders else ""
    if parent not in CLASS_FOLDERS and _NUMBER.fullmatch(parent) and _NUMBER.fullmatch(stem):
        return int(parent), int(stem)
    return None


def _name(image: _Found) -> str:
    return f"{image.key[0]}_{image.key[1]}" if image.key else image.stem


def _order(image: _Found) -> tuple[bool, Key, str]:
    return image.key is None, image.key or (0, 0), image.stem


def _rank(image: _Found, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{_name(image)}".encode()).hexdigest()


def _read_labels(path: Path) -> dict[Key, int | None]:
    """Return ``cancer`` by (patient id, image id); None everywhere when the table has no such column."""
    labels: dict[Key, int | None] = {}
    for line, row in read_table(path, ("patient_id", "image_id")):
        for column in ("patient_id", "image_id"):
            if not _NUMBER.fullmatch(row[column]):
                raise UserError(f"{path}: line {line}: {column} {row[column][:40]!r} is not an integer")
        if row.get("cancer", "0") not in ("0", "1"):
            raise UserError(f"{path}: line {line}: cancer {row['cancer'][:40]!r} is not 0 or 1")
        key = int(row["patient_id"]), int(row["image_id"])
        if key in labels:
            raise UserError(f"{path}: line {line}: patient {key[0]}, image {key[1]} was listed before")
        labels[key] = int(row["cancer"]) if "cancer" in row else None
    return labels


def _label(image: _Found, table: dict[Key, int | None], path: Path) -> int:
    listed = table.get(image.key) if image.key else None
    if listed is not None and image.folder_label is not None and listed != image.folder_label:
        raise UserError(f"rsna: {image.path} lies in folder {image.folder_label}, but {path.name} says cancer {listed}")
    label = image.folder_label if listed is None else listed
    if label is not None:
        return label
    if not table:
        raise UserError(f"rsna: {image.path} has no label; expected {path} or class folders 0 and 1")
    if image.key in table:
        raise UserError(f"rsna: {path} has no column 'cancer' and {image.path} lies in no class folder")
    raise UserError(f"rsna: {image.path} has no label: no row in {path.name} and no class folder")


def _notes(found: list[_Found], labels: list[int], negatives: int) -> list[str]:
    positives = sum(labels)
    available = len(labels) - positives
    notes = [f"rsna: {positives} positive images, {min(negatives, available)} drawn of {available} negative ones"]
    if available < negatives:
        notes.append(f"rsna: {negatives} negative images were asked for; all {available} are taken")
    if len(found) == FULL_IMAGES:
        agrees = "as expected" if positives == FULL_POSITIVES else f"but {FULL_POSITIVES} were expected"
        notes.append(f"rsna: full set: {FULL_IMAGES} images, {positives} positive, {agrees}")
    classes: dict[int, set[int]] = defaultdict(set)
    images: Counter[int] = Counter()
    for image, label in zip(found, labels, strict=True):
        if image.key:
            classes[image.key[0]].add(label)
            images[image.key[0]] += 1
    if images:
        mean, both = images.total() / len(images), sum(len(seen) == 2 for seen in classes.values())
        notes.append(f"rsna: {len(images)} patients, {mean:.1f} images each, {both} with images of both classes")
    if len(found) > images.total():
        notes.append(f"rsna: {len(found) - images.total()} images without patient id, each its own group: may leak")
    return notes


def _table_notes(found: list[_Found], table: dict[Key, int | None], path: Path) -> list[str]:
    keys = {image.key for image in found}
    absent = sum(key not in keys for key in table)
    if absent == len(table):
        raise UserError(f"rsna: no row of {path} names an image of this folder; it belongs to another set")
    unlisted = sum(image.key not in table for image in found)
    notes = [f"rsna: {absent} rows of {path.name} have no image file"] if absent else []
    return notes + ([f"rsna: {unlisted} images have no row in {path.name}"] if unlisted else [])
