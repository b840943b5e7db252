"""Writing files so that nothing finished is lost and nothing half-written is taken for finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion.atomic import file_hash, make_folder, refuse_disk, regular, replacing, share, sync
from fusion.checksums import LEFTOVER, recording, write_checksums
from fusion.errors import UserError
from fusion.lock import sole_writer

__all__ = [
    "MOST_JSON_BYTES",
    "clear_leftovers",
    "content_hash",
    "file_hash",
    "make_folder",
    "read_json",
    "recording",
    "regular",
    "replacing",
    "replacing_folder",
    "sole_writer",
    "sync",
    "write_json",
    "write_text",
]
MOST_JSON_BYTES = 64 * 2**20


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; when the block ends well, sync it to disk and put it in place as a whole.

    What is in it is recorded in its ``SHA256SUMS``.

    Raises:
        DiskError: it can't be written.
    """
    partial, replaced = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "replaced"))
    try:
        for stale in (partial, replaced):
            shutil.rmtree(stale, ignore_errors=True)
        make_folder(partial)
        yield partial
        write_checksums(partial)
        for place in sorted(partial.rglob("*"), reverse=True):  # what a folder holds before the folder
            if place.is_file():
                share(place)
            sync(place)
        sync(partial)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(partial, folder)
        sync(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception as error:
        refuse_disk(error, folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def clear_leftovers(folder: Path, *, but: Collection[str] = ()) -> None:
    """Remove below ``folder`` what killed calls left under temporary names, and bring back what they had set aside.

    Only who holds the folder's lock may do so: it can't tell what is left from what is being written.

    Args:
        folder: locked by the caller.
        but: names in it that belong to another writer, who holds another lock.
    """
    for path in [path for path in folder.rglob(".*") if LEFTOVER.fullmatch(path.name)]:
        top = path.relative_to(folder).parts[0]
        if any(top == name or top.startswith(f".{name}.") for name in but):
            continue
        whole = path.with_name(path.name[1:].removesuffix(".replaced"))
        if path.name.endswith(".replaced") and not whole.exists():
            os.rename(path, whole)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, recorded: bool = False) -> None:
    """Write ``text`` as UTF-8 through a temporary name; ``recorded`` keeps its checksum in its folder.

    Raises:
        UserError: the file can't be written.
    """
    with (recording if recorded else replacing)(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, *, recorded: bool = False) -> None:
    """Write ``content`` as indented JSON through a temporary name; ``recorded`` keeps its checksum in its folder.

    Raises:
        UserError: the file can't be written.
    """
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", recorded=recorded)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; ``what`` names it in errors.

    Raises:
        UserError: the file is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(regular(path, MOST_JSON_BYTES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not {what}") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, an endless number
        raise UserError(f"{path} can't be read as JSON ({error}): {path.parent} is not {what}, or is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: {path.parent} is not {what}, or is damaged")
    return content


def content_hash(content: Any) -> str:
    """Return the SHA-256, in hex, of ``content`` as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
