"""One writer of a folder at a time, and who it is.

The lock is an advisory one on the file ``.lock`` (``flock``, which NFS passes on to its server); the system lets it go
when its holder ends, however it ends. What stands in the file only tells who that is, so a killed holder's note
misleads nobody. A file system without locks (Lustre mounted without ``flock``) leaves the note to decide.
"""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from fusion.atomic import make_folder
from fusion.checksums import LOCK
from fusion.errors import DiskError, UserError

SHOWN = 200
"""Characters of a command that are kept."""
BUSY = (errno.EAGAIN, errno.EACCES)  # NFS says either
log = logging.getLogger(__name__)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, made if missing, so that two calls never write into it at once.

    Raises:
        UserError: another process holds it (said is which, since when and what it does), or the folder can't be
            written to.
    """
    path = make_folder(folder) / LOCK
    lock = _hold(path)
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(_note()).encode(), 0)
    except OSError as error:  # a full disk: the lock is held, only nobody can be told by whom
        log.warning("note: can't write into %s (%s)", path, error.strerror)
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)  # before it is let go: who waits for this file looks whether it is still there
        finally:
            os.close(lock)


def require_no_writer(folder: Path) -> None:
    """Refuse a folder that is being written; nothing is written into it, so it may be read-only.

    Raises:
        UserError: another process holds its lock.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # there is none
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        note = _read(lock)
        if error.errno in BUSY or _lives(note):
            raise UserError(_held(folder, note)) from None
    finally:
        os.close(lock)


def _hold(path: Path) -> int:
    """Return the descriptor of the locked file ``path``."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise DiskError(f"can't write to the folder {path.parent}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                note = _read(lock)
                if error.errno in BUSY or _lives(note):
                    raise UserError(_held(path.parent, note)) from None
                log.warning(
                    "note: the file system of %s has no locks (%s): a second call at the same moment goes unnoticed",
                    path.parent,
                    error.strerror,
                )
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # its holder has just removed it: what is locked is no longer the file others will find


def _note() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:SHOWN],
    }


def _read(lock: int) -> dict[str, Any]:
    """Return what the holder has noted; nothing where it can't be read, as from a holder that has just begun."""
    try:
        note = json.loads(os.pread(lock, 4096, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _lives(note: dict[str, Any]) -> bool:
    """Return whether who wrote the note may still be there; of another machine that can't be known."""
    process = note.get("process")
    if not isinstance(process, int) or not 0 < process < 2**31:
        return False
    if note.get("host") != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def _held(folder: Path, note: dict[str, Any]) -> str:
    told = {name: "".join(c if c.isprintable() else "?" for c in str(note[name])[:SHOWN]) for name in note}
    who = (
        f": process {told.get('process', '?')} on {told.get('host', '?')} since {told.get('since', '?')} "
        f"({told.get('command', '?')})"
        if told
        else ""
    )
    return f"another process is writing to {folder}{who}; wait for it, or choose another folder"
