"""``SHA256SUMS``: what the files of a folder held when they were put in place, as coreutils' ``sha256sum -c`` reads it.

A folder that is put in place as a whole has one for all that is below it; where files are written one by one, each
folder has its own. A file belongs to the nearest ``SHA256SUMS`` above it. Before a file is replaced, its new checksum
is announced in a comment line, so that whenever the writer is killed the file in place is a known one.
"""

import fcntl
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fusion.atomic import file_hash, replacing
from fusion.errors import UserError

SUMS, LOCK = "SHA256SUMS", ".lock"
BACKSLASH = "\\"
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
LINE = re.compile(r"(# next )?(\\?)([0-9a-f]{64}) [ *]([^\x00\n\r]+)")
LONGEST = 64 * 2**20
"""Bytes of a ``SHA256SUMS``; more is none of ours and would only fill the memory."""
LEFTOVER = re.compile(r"\.[^.].*\.(partial|replaced)")
"""Names under which files and folders are written, and folders set aside while they are replaced."""


@dataclass(frozen=True)
class Checksums:
    """What one ``SHA256SUMS`` says: name below its folder -> SHA-256 in hex."""

    now: dict[str, str] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)
    """Of files that were about to be written."""

    def accept(self, name: str, digest: str) -> bool:
        """Return whether the file ``name`` may have this checksum."""
        return digest in (self.now.get(name), self.announced.get(name))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one file of a folder."""

    path: Path
    kind: str
    """``missing``, ``damaged``, ``foreign`` (not recorded), ``unfinished`` (left by a killed call) or ``not a file``
    (a link, a pipe, a device: never opened)."""
    why: str = ""


def write_checksums(folder: Path) -> None:
    """Write the ``SHA256SUMS`` of all files below ``folder``, but those whose names begin with a dot.

    Raises:
        UserError: a file can't be read, or it can't be written.
    """
    places = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    places = [path for path in places if not path.name.startswith(".")]
    with replacing(folder / SUMS) as temporary:
        known = Checksums(now={path.relative_to(folder).as_posix(): file_hash(path) for path in places})
        temporary.write_text(_told(known), encoding="utf-8", errors="surrogateescape", newline="")


def record(*paths: Path) -> None:
    """Add or renew the lines of files in the ``SHA256SUMS`` of their own folders, once for each folder.

    Raises:
        UserError: a file can't be read, or a ``SHA256SUMS`` is damaged or can't be written.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            digests = {path.name: file_hash(path) for path in paths if path.parent == folder}
        except OSError as error:
            raise UserError(f"can't read {error.filename}: {error.strerror}") from error
        with _updated(folder) as known:
            known.now.update(digests)
            for name in digests:
                known.announced.pop(name, None)


def forget(*paths: Path) -> None:
    """Take the lines of files that were removed out of the ``SHA256SUMS`` of their own folders.

    Raises:
        UserError: a ``SHA256SUMS`` is damaged or can't be written.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        with _updated(folder) as known:
            for path in (path for path in paths if path.parent == folder):
                known.now.pop(path.name, None)
                known.announced.pop(path.name, None)


@contextmanager
def recording(path: Path) -> Iterator[Path]:
    """Do as ``replacing`` does, and keep the file's checksum in its folder's ``SHA256SUMS``.

    Raises:
        UserError: the file can't be written, or the ``SHA256SUMS`` is damaged.
    """
    with replacing(path) as temporary:
        yield temporary
        digest = file_hash(temporary)
        with _updated(path.parent) as known:
            known.announced[path.name] = digest
    with _updated(path.parent) as known:
        known.now[path.name] = digest
        known.announced.pop(path.name, None)


def read_checksums(folder: Path) -> Checksums | None:
    """Return what the ``SHA256SUMS`` of ``folder`` says; None where there is none.

    Raises:
        UserError: it is damaged or can't be read.
    """
    path, known = folder / SUMS, Checksums()
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        if status.st_size > LONGEST:
            raise ValueError(f"it is larger than {LONGEST // 2**20} MiB")
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error})") from None
    if lines.pop():
        raise UserError(f"{path} is damaged: its last line is cut off")
    for number, line in enumerate(lines, start=1):
        found = LINE.fullmatch(line)
        name = "" if not found else _name(found[4]) if found[2] else found[4]
        if not found or {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"{path} is damaged: line {number} is no checksum of a file below {folder}")
        side = known.announced if found[1] else known.now
        if name in side:
            raise UserError(f"{path} is damaged: line {number} names {name!r} once more")
        side[name] = found[3]
    return known


def require_intact(*paths: Path, way_out: str) -> None:
    """Refuse files that are not what was written.

    Args:
        paths: files; each belongs to the nearest ``SHA256SUMS`` above it.
        way_out: what the user can do, for the message.

    Raises:
        UserError: one is missing, changed, not recorded, or there is no ``SHA256SUMS``, as of an earlier version.
    """
    read: dict[Path, Checksums | None] = {}
    for path in paths:
        folder = next((parent for parent in path.parents if (parent / SUMS).exists()), None)
        if folder is None:
            raise UserError(f"{path} has no checksum: there is no {SUMS}, as of an earlier version; {way_out}")
        if folder not in read:
            try:
                read[folder] = read_checksums(folder)
            except UserError as error:
                raise UserError(f"{error}; {way_out}") from None
        if why := _fault(path, path.relative_to(folder).as_posix(), read[folder] or Checksums()):
            raise UserError(f"{path} {why}; {way_out}")


def problems(folder: Path, progress: Callable[[int], None] = lambda _: None) -> list[Problem]:
    """Compare all files below ``folder`` with the ``SHA256SUMS`` they belong to, in the order of their names.

    Links are not followed and pipes not opened: they are problems.

    Args:
        folder: e.g. the folder of a run.
        progress: called with the bytes of each file that was read.

    Raises:
        UserError: a folder can't be read.
    """
    found: list[Problem] = []
    sums: dict[Path, Checksums | None] = {}  # None where it can't be read: nothing is known of the files
    seen: dict[Path, set[str]] = defaultdict(set)
    for path, kind in _walk(folder):
        if kind == "folder":
            if path != folder and not os.path.lexists(path / SUMS):
                continue  # what it holds belongs to a folder above it
            try:
                sums[path] = read_checksums(path) or Checksums()
            except UserError as error:
                sums[path] = None
                found.append(Problem(path=path / SUMS, kind="damaged", why=str(error)))
        elif kind == "partial":
            found.append(Problem(path=path, kind="unfinished"))
        elif path.name not in (SUMS, LOCK):
            home = next(parent for parent in path.parents if parent in sums)
            name = path.relative_to(home).as_posix()
            known = sums[home]
            seen[home].add(name)
            if kind == "odd":
                found.append(Problem(path=path, kind="not a file"))
            elif known is None:
                pass
            elif name not in known.now and name not in known.announced:
                found.append(Problem(path=path, kind="foreign"))
            elif why := _fault(path, name, known):
                found.append(Problem(path=path, kind="damaged", why=why))
            progress(path.lstat().st_size)
    for home, known in sums.items():
        found += [Problem(path=home / name, kind="missing") for name in set(known.now if known else ()) - seen[home]]
    return sorted(found, key=lambda problem: problem.path)


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what is below ``folder``, itself first: a folder before what it holds."""
    yield folder, "folder"
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"can't read the folder {folder}: {error.strerror or error}") from None
    for entry in listed:
        path = Path(entry.path)
        if LEFTOVER.fullmatch(entry.name):
            yield path, "partial"
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
        else:
            yield path, "file" if entry.is_file(follow_symlinks=False) else "odd"


def _fault(path: Path, name: str, known: Checksums) -> str:
    """Return what is wrong with a file, or nothing."""
    if name not in known.now and name not in known.announced:
        return f"is not recorded in {SUMS}"
    if not path.is_file():  # opening a pipe would wait for ever
        return "is missing"
    try:
        digest = file_hash(path)
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    return "" if known.accept(name, digest) else f"is damaged: it was changed after it was written (see {SUMS})"


@contextmanager
def _updated(folder: Path) -> Iterator[Checksums]:
    """Give what the ``SHA256SUMS`` of ``folder`` says, to be changed, and write it back, one process at a time."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"can't read the folder {folder}: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system without locks; the folder's writer holds another lock, see fusion.lock
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in folder.glob(f".{SUMS}.*.partial"):  # of a killed call
                stale.unlink(missing_ok=True)
        try:
            known = read_checksums(folder) or Checksums()
        except UserError as error:
            raise UserError(f"{error}; 'fusebench verify' says what to do about it") from None
        yield known
        text = _told(known)
        with replacing(folder / SUMS) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    finally:
        os.close(lock)


def _told(known: Checksums) -> str:
    lines = [_line("", known.now[name], name) for name in sorted(known.now)]
    return "".join(lines + [_line("# next ", known.announced[name], name) for name in sorted(known.announced)])


def _line(mark: str, digest: str, name: str) -> str:
    """Return one line; as coreutils has it, a backslash before it says that its name is escaped."""
    escaped = re.sub(r"[\\\n\r]", lambda found: ESCAPES[found[0]], name)
    return f"{mark}{BACKSLASH if escaped != name else ''}{digest}  {escaped}\n"


def _name(escaped: str) -> str:
    return re.sub(r"\\([\\nr])", lambda found: {value[1]: key for key, value in ESCAPES.items()}[found[1]], escaped)
