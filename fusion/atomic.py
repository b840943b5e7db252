"""One file put in place as a whole: written under another name, synced to disk, then renamed."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fusion.errors import DiskError, UserError, disk_fault

UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(UMASK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; when the block ends well, sync it to disk and rename it to ``path``.

    Raises:
        DiskError: the file can't be written (permission, read-only file system, no space left).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        share(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, Exception):
            refuse_disk(error, path)
        raise


def refuse_disk(error: Exception, path: Path) -> None:
    """Say in one line that ``path`` can't be written, where that is what ``error`` means.

    An error that names another file, e.g. one that is read meanwhile, means something else.

    Raises:
        DiskError: it can't.
    """
    named = getattr(error, "filename", None)
    if named is not None and path.parent not in (elsewhere := Path(os.fsdecode(named)), *elsewhere.parents):
        return
    if not isinstance(error, UserError) and (why := disk_fault(error)):
        raise DiskError(f"can't write {path}: {why}") from error


def make_folder(path: Path) -> Path:
    """Create ``path`` with its parents and return it.

    Raises:
        DiskError: it can't be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"can't create the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK):
        why = os.strerror(errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES)
        raise DiskError(f"can't write to the folder {path}: {why}")
    return path


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
