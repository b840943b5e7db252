"""Writing files so that nothing finished is lost and nothing half-written is taken for finished."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fusion.errors import UserError

MOST_JSON_BYTES = 64 * 2**20

UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(UMASK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; when the block ends well, sync it to disk and rename it to ``path``.

    Raises:
        UserError: the file can't be written (permission, read-only file system, no space left).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        share(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"can't write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``; when the block ends well, sync it to disk and put it in place as a whole.

    Raises:
        UserError: it can't be written.
    """
    partial, replaced = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "replaced"))
    try:
        for stale in (partial, replaced):
            shutil.rmtree(stale, ignore_errors=True)
        make_folder(partial)
        yield partial
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
    except OSError as error:
        raise UserError(f"can't write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def share(path: Path) -> None:
    """Give a file the permissions an ordinary new file has; safetensors writes for its owner alone."""
    path.chmod(0o666 & ~UMASK)


def sync(path: Path) -> None:
    """Force a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 through a temporary name.

    Raises:
        UserError: the file can't be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON through a temporary name.

    Raises:
        UserError: the file can't be written.
    """
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


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


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, made if missing, so that two calls never write into it at once.

    Raises:
        UserError: another process holds it, or the folder can't be written to.
    """
    lock = os.open(make_folder(folder), os.O_RDONLY)  # the folder itself is locked, so that no file is left
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another process is writing to {folder}; wait for it, or choose another folder"
                raise UserError(message) from None
        yield
    finally:
        os.close(lock)


def make_folder(path: Path) -> Path:
    """Create ``path`` with its parents and return it.

    Raises:
        UserError: it can't be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't create the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"can't write to the folder {path}: permission denied")
    return path


def content_hash(content: Any) -> str:
    """Return the SHA-256, in hex, of ``content`` as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def regular(path: Path, most_bytes: int | None = None) -> Path:
    """Return ``path``, a regular file: to open a pipe would wait for ever, and a device has no end.

    Raises:
        OSError: it is missing, no regular file, or larger than ``most_bytes``; ``strerror`` says which.
    """
    facts = path.stat()
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if most_bytes is not None and facts.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"{facts.st_size} bytes; the limit is {most_bytes}", str(path))
    return path


def file_hash(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's bytes.

    Raises:
        OSError: it can't be read, or is no regular file.
    """
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
