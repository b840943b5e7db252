"""What the readers share: a user's folders and tables, checked while they are read."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fusion.errors import UserError
from fusion.files import regular
from fusion.images import IMAGE_SUFFIXES

MAX_TABLE_BYTES = 64 * 2**20
PHANTOM_MARK = "phantom.json"


def check_folder(root: Path, source: str) -> None:
    """Check that ``root`` is a folder that can be read.

    Raises:
        UserError: it is missing, no folder, or may not be listed.
    """
    if not os.path.exists(root):  # unlike Path.exists also false for a name that is too long
        raise UserError(f"{source}: no such folder: {root}")
    if not root.is_dir():
        raise UserError(f"{source}: {root} is a file; expected the data set's folder")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"{source}: permission denied: {root}")


def is_phantom(root: Path) -> bool:
    """Tell whether ``root``, or a folder up to two above it, bears the mark of ``fusebench phantom``."""
    resolved = root.resolve()
    return any((folder / PHANTOM_MARK).is_file() for folder in (resolved, *resolved.parents[:2]))


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts ``a10`` after ``a9``."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", text))], text


def list_files(folder: Path) -> tuple[list[Path], int]:
    """Return the image files below ``folder`` in natural order, and how many files have no image suffix.

    Hidden files and folders are ignored, and links to folders are not followed.

    Raises:
        UserError: a folder cannot be listed, or a file name is not valid Unicode.
    """
    images: list[Path] = []
    others = 0

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot list {error.filename}: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            check_name(parent, name)
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.append(Path(parent, name))
            else:
                others += 1
    return sorted(images, key=lambda path: natural_key(path.relative_to(folder).as_posix())), others


def check_name(parent: str | Path, name: str) -> None:
    """Check that a file name can be written to a table.

    Raises:
        UserError: it is not valid Unicode or holds control characters.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):  # Cs stands for bytes outside UTF-8
        raise UserError(f"{str(parent)!a}: the file name {name!a} is not printable Unicode; rename the file")


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a comma-separated file as (line number, cells by column name), cells stripped of blanks.

    UTF-8 with or without byte order mark; blank lines are ignored, columns beyond ``needed`` are kept.

    Raises:
        UserError: too large, not UTF-8, empty, a needed column is missing, a column is named twice, or a row has
            more or fewer cells than the header.
    """
    try:
        content = regular(path, MAX_TABLE_BYTES).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as UTF-8 csv") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                _check_columns(path, columns, needed)
                continue
            if len(cells) != len(columns):
                counts = f"{len(cells)} cells, the header {len(columns)}"
                raise UserError(f"{path}: line {reader.line_num} has {counts}")
            rows.append((reader.line_num, dict(zip(columns, (cell.strip() for cell in cells), strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not valid csv: {error}") from None
    if not rows:
        raise UserError(f"{path}: holds no rows; expected a header with {', '.join(needed)} and one row per image")
    return rows


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    present = ", ".join(columns)
    for name in needed:
        if name not in columns:
            raise UserError(f"{path}: no column {name!r}; the columns are {present}")
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!r} occurs twice; the columns are {present}")
