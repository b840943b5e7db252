"""BUSI: breast ultrasound images with masks (Al-Dhabyani et al., Data in Brief 28 (2020) 104863)."""

import csv
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

from fusion.catalog import LABEL_NAMES, ImageRecord
from fusion.errors import UserError
from fusion.files import read_json
from fusion.images import IMAGE_SUFFIXES
from fusion.sources.inputs import PHANTOM_MARK, check_folder, check_name, is_phantom, natural_key

FOLDER = "Dataset_BUSI_with_GT"
FULL_SET = {"benign": 437, "malignant": 210}


def read_busi(root: Path) -> tuple[list[ImageRecord], list[str]]:
    """Return the benign and malignant images of BUSI in natural order, with their masks, and remarks for the user.

    ``root`` is ``Dataset_BUSI_with_GT`` or the folder that holds it. ``normal/`` is no sample. An image has one mask
    file, or several when it shows several lesions: ``_mask.png``, ``_mask_1.png``, ... Images of
    one group in the published list of duplicates share a group (A. Pawlowska, P. Karwat, N. Zolek, Data in Brief 48
    (2023) 109247, data doi 10.17632/k8t3gnx9h6.1, CC BY 4.0), and the list says which groups show two classes; an
    image outside the list is its own group. Phantom images bear the same names but are other pictures: their groups
    come from ``phantom.json``, ``{"groups": {"benign (1)": "g1", ...}}``.

    Raises:
        UserError: no such folder, no class folders, no images, a file that is neither image nor mask by its name, or
            a faulty ``phantom.json``.
    """
    check_folder(root, "busi")
    folder = _class_parent(root)
    synthetic, mark = is_phantom(folder), folder / PHANTOM_MARK
    published = {} if synthetic else _published_groups()
    phantom_groups = _phantom_groups(mark) if mark.is_file() else {}
    records, strays = [], 0
    for label, name in LABEL_NAMES.items():
        images, masks = _images(folder / name, name)
        strays += len(masks.keys() - {path.stem for path in images})
        for path in images:
            group, conflict = published.get(f"{name}/{path.name}", (phantom_groups.get(path.stem, path.stem), False))
            records.append(
                ImageRecord(
                    image_id=f"busi/{path.stem}",
                    source="busi",
                    modality="ultrasound",
                    label=label,
                    group_id=f"busi:{group}",
                    path=path,
                    class_conflict=conflict,
                    synthetic=synthetic,
                    masks=tuple(masks.get(path.stem, ())),
                )
            )
    return records, _notes(records, strays)


def _class_parent(root: Path) -> Path:
    for folder in (root, root / FOLDER):
        if all((folder / name).is_dir() for name in LABEL_NAMES.values()):
            return folder
    raise UserError(f"busi: {root} has no subfolders benign and malignant; give the folder {FOLDER}")


def _images(folder: Path, name: str) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the image files of a class folder, and the masks by the name of their image, without ending.

    Nothing that looks like an image is passed over in silence.
    """
    check_folder(folder, "busi")
    image_name = re.compile(rf"{name} \([1-9][0-9]*\)\.png")
    mask_name = re.compile(rf"({name} \([1-9][0-9]*\))_mask(_[1-9][0-9]*)?\.png")
    images, strange = [], []
    masks: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(IMAGE_SUFFIXES):
            continue
        check_name(folder, path.name)
        if image_name.fullmatch(path.name):
            images.append(path)
        elif mask := mask_name.fullmatch(path.name):
            masks.setdefault(mask[1], []).append(path)
        else:
            strange.append(path)
    expected = f"expected names like '{name} (1).png' and '{name} (1)_mask.png'"
    if not images:
        raise UserError(f"busi: no images in {folder}; {expected}")
    if strange:
        raise UserError(f"busi: {min(strange)} is neither image nor mask by its name; {expected}")
    return sorted(images, key=lambda path: natural_key(path.name)), masks


def _published_groups() -> dict[str, tuple[str, bool]]:
    """Return group id and class conflict by file name, e.g. ``benign/benign (1).png``."""
    table = files("fusion.sources").joinpath("busi_groups.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(table.splitlines())
    return {row["filename"]: (row["group_id"], row["class_conflict"] == "1") for row in rows}


def _phantom_groups(path: Path) -> dict[str, str]:
    groups = read_json(path, "a phantom of BUSI").get("groups", {})
    if not isinstance(groups, dict) or not all(isinstance(group, str) and group for group in groups.values()):
        raise UserError(f'{path}: expected {{"groups": {{"benign (1)": "name", ...}}}}; write the phantom again')
    return groups


def _notes(records: list[ImageRecord], strays: int) -> list[str]:
    counts = Counter(LABEL_NAMES[record.label] for record in records)
    found = " and ".join(f"{counts[name]} {name}" for name in FULL_SET)
    groups = len({record.group_id for record in records})
    bare = sum(not record.masks for record in records)
    about_masks = [f"busi: {bare} images have no mask file"] if bare else []
    about_masks += [f"busi: {strays} masks belong to no image"] if strays else []
    if records[0].synthetic:
        return [f"busi: phantom, {found} images in {groups} groups", *about_masks]
    whole = "full set as expected" if counts == FULL_SET else "not the full set of 437 benign and 210 malignant"
    conflicts = sum(record.class_conflict for record in records)
    return [
        f"busi: {found} images, {whole}",
        f"busi: {groups} groups by the published list of duplicates; {conflicts} images in groups of two classes",
        *about_masks,
    ]
