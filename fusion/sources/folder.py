"""Any other data set: a folder with a csv file, or with one subfolder for each class."""

import re
from pathlib import Path

from fusion.catalog import BENIGN, LABEL_NAMES, MALIGNANT, MODALITIES, ImageRecord
from fusion.errors import UserError
from fusion.images import IMAGE_SUFFIXES
from fusion.sources.inputs import check_folder, check_name, is_phantom, list_files, read_table

RESERVED = ("busi", "oasbud", "rsna")
LABELS = {"benign": BENIGN, "0": BENIGN, "malignant": MALIGNANT, "1": MALIGNANT}
COLUMNS = ("path", "label", "group", "modality")

_LAYOUTS = "one csv file with columns path,label, or subfolders benign and malignant"


def read_folder(name: str, root: Path) -> tuple[list[ImageRecord], list[str]]:
    """Return the images of the data set ``name`` in ``root``, and remarks for the user.

    Either ``root`` holds one csv file with the columns ``path`` (relative to ``root``), ``label`` (benign, malignant,
    0 or 1) and, if wanted, ``group`` and ``modality``; or the images lie at any depth in ``benign`` and ``malignant``,
    or in ``ultrasound/benign`` and so on. The modality is ``other`` where it is not told. Without the column
    ``group`` every image is its own group, which leaks if a patient has several.

    Raises:
        UserError: a name that is reserved or not of a-z, 0-9, ``-`` and ``_``; no such folder; none or several of the
            layouts; no images; or a fault in the csv file, named with its line.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in RESERVED:
        rule = f"expected a-z, 0-9, '-' and '_', and not {', '.join(RESERVED)}"
        raise UserError(f"--folder: {name!r} cannot name a data set; {rule}")
    check_folder(root, name)
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    if len(tables) > 1:
        raise UserError(f"{name}: {root} holds {len(tables)} csv files ({_names(tables)}); expected one")
    records, notes = _from_table(name, root, tables[0]) if tables else _from_folders(name, root)
    counts = [sum(record.label == label for record in records) for label in LABEL_NAMES]
    return records, [f"{name}: {counts[BENIGN]} benign and {counts[MALIGNANT]} malignant images", *notes]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _from_table(name: str, root: Path, table: Path) -> tuple[list[ImageRecord], list[str]]:
    records: list[ImageRecord] = []
    first_line: dict[Path, int] = {}
    synthetic = is_phantom(root)
    rows = read_table(table, ("path", "label"))
    for line, row in rows:
        place = f"{table}: line {line}"
        path = _inside(root, row["path"], place)
        if path in first_line:
            raise UserError(f"{place}: {row['path']!r} was listed in line {first_line[path]} before")
        first_line[path] = line
        label = LABELS.get(row["label"].lower())
        if label is None:
            raise UserError(f"{place}: label {row['label'][:40]!r} is not benign, malignant, 0 or 1")
        if row.get("group") == "":
            raise UserError(f"{place}: the group is empty; name the patient or lesion, or leave the column out")
        modality = row.get("modality", "").lower() or "other"
        if modality not in MODALITIES:
            raise UserError(f"{place}: modality {modality[:40]!r} is not one of {', '.join(MODALITIES)}")
        relative = Path(row["path"]).as_posix()
        records.append(_record(name, root / relative, relative, label, modality, row.get("group", relative), synthetic))
    columns = rows[0][1]
    notes = []
    if "group" in columns:
        notes.append(f"{name}: {len({record.group_id for record in records})} groups by the column 'group'")
    else:
        notes.append(_leak_note(name, "the csv file has no column 'group'"))
    if unused := [column for column in columns if column not in COLUMNS]:
        notes.append(f"{name}: columns not used: {', '.join(unused)}")
    unlisted = sum(path.resolve() not in first_line for path in list_files(root)[0])
    if unlisted:
        notes.append(f"{name}: {unlisted} image files are not listed in {table.name}")
    return records, notes


def _inside(root: Path, value: str, place: str) -> Path:
    """Return the resolved path of the image that a table names, which must lie inside ``root``."""
    if not value:
        raise UserError(f"{place}: the path is empty")
    check_name(place, value)
    path = Path(value)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: path {value[:200]!r} must be relative to the folder, without '..'")
    if not value.lower().endswith(IMAGE_SUFFIXES):
        raise UserError(f"{place}: {value[:200]!r} is no image by its suffix; expected {' '.join(IMAGE_SUFFIXES)}")
    try:
        resolved = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise UserError(f"{place}: no such file: {value[:200]!r}") from None
    if not resolved.is_relative_to(root.resolve()):
        raise UserError(f"{place}: {value[:200]!r} is a link out of the folder {root}")
    if not resolved.is_file():
        raise UserError(f"{place}: {value[:200]!r} is no file")
    return resolved


def _from_folders(name: str, root: Path) -> tuple[list[ImageRecord], list[str]]:
    classes = tuple(LABEL_NAMES.values())
    by_modality = [modality for modality in MODALITIES if any((root / modality / part).is_dir() for part in classes)]
    by_class = [part for part in classes if (root / part).is_dir()]
    if bool(by_modality) == bool(by_class):
        both = "both class and modality folders" if by_class else "no images in a known layout"
        raise UserError(f"{name}: {root} holds {both}; expected {_LAYOUTS}, or these in mammography and ultrasound")
    parents = [(modality, root / modality) for modality in by_modality] or [("other", root)]
    records, others = [], 0
    synthetic = is_phantom(root)
    for modality, parent in parents:
        for label, part in LABEL_NAMES.items():
            if not (parent / part).is_dir():
                raise UserError(f"{name}: {parent} has no subfolder {part}; expected benign and malignant")
            images, rest = list_files(parent / part)
            others += rest
            for path in images:
                if re.search(r"_mask(_\d+)?$", path.stem):
                    raise UserError(
                        f"{name}: {path} looks like a mask, not a sample; take masks away (BUSI has --busi)"
                    )
                relative = path.relative_to(root).as_posix()
                records.append(_record(name, path, relative, label, modality, relative, synthetic))
    if not records:
        raise UserError(f"{name}: no images in {root}; expected files of {' '.join(IMAGE_SUFFIXES)}")
    notes = [_leak_note(name, "class folders tell no groups")]
    if others:
        notes.append(f"{name}: {others} files without an image suffix were left out")
    used = set(by_modality or by_class)
    unread = sorted(path for path in root.iterdir() if path.is_dir() and path.name not in used and path.name[0] != ".")
    if unread:
        notes.append(f"{name}: folders not read: {_names(unread)}")
    return records, notes


def _leak_note(name: str, why: str) -> str:
    return f"{name}: {why}, so each image is its own group: results leak if a patient has several images"


def _record(
    name: str, path: Path, relative: str, label: int, modality: str, group: str, synthetic: bool
) -> ImageRecord:
    return ImageRecord(
        image_id=f"{name}/{relative}",
        source=name,
        modality=modality,
        label=label,
        group_id=f"{name}:{group}",
        path=path,
        synthetic=synthetic,
    )
