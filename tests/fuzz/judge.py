"""What a reader made of an input, found out in a process of its own, whose death is a finding and not an accident.

The process reads one input after the other. Before each it sets two alarms, of time on the processor and of time on
the wall, whose default action ends it; its address space is bounded; and an audit hook watches what is opened to be
written, what is started and what is unpickled. When it dies, the input it had begun is the one that killed it.
"""

import dataclasses
import hashlib
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fusion.errors import UserError
from fusion.images import UnreadableImageError

CPU_S, WALL_S = 5.0, 60.0
MEMORY = 3 * 2**30
"""Bytes a reader may take; its address space ends a GiB later."""
LONGEST_MESSAGE = 2000
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen")
WRITES = {"os.mkdir": 2, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 9}
"""Event -> which of its arguments says in what folder the path is meant."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one input."""

    outcome: str
    """refused, read (then ``found`` says what), crash, hang, memory or outside."""
    found: str = ""
    """The hash of what was read, or the message."""
    peak: int = 0
    """Bytes of memory taken on the way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One input: a copy of the files of a reader, one of which has other bytes."""

    reader: str
    """A key of ``READERS``."""
    original: Path
    """The folder of its valid files."""
    place: Path
    """The copy, and the only folder that may be written to."""
    file: str
    content: bytes | None = None
    """None leaves the file as it is."""
    instead: str = ""
    """A key of ``NO_FILES``: what lies there in its place."""


class Judge:
    """The process, started anew when an input has ended it; use it as a context manager."""

    def __enter__(self) -> "Judge":
        # Not forked: libraries that are imported here have threads, and their locks would never be free again.
        self.pipe, theirs = get_context("spawn").Pipe()
        self.process = get_context("spawn").Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def make(self, reader: str, folder: Path) -> None:
        """Let the reader's valid files be written into ``folder``."""
        self.pipe.send((reader, folder))
        assert self.pipe.recv() == folder

    def verdict(self, task: Task) -> Verdict:
        """Return what comes of an input."""
        self.pipe.send(task)
        try:
            if self.pipe.poll(3 * WALL_S):
                return self.pipe.recv()  # type: ignore[no-any-return]
            self.process.kill()
        except (EOFError, ConnectionError):
            pass
        self.process.join()
        number = -(self.process.exitcode or 0)
        died = signal.Signals(number).name if number > 0 else f"exit code {-number}"
        outcome = "hang" if number in (signal.SIGALRM, signal.SIGPROF, signal.SIGKILL) else "crash"
        self.__exit__()
        self.__enter__()
        return Verdict(outcome=outcome, found=died)


def fingerprint(value: object) -> str:
    """Return the hash of all that a value holds; of a path its name alone."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()[:16]


def _parts(value: object) -> Iterator[bytes]:
    yield type(value).__name__.encode()
    if isinstance(value, pd.DataFrame):
        yield value.to_csv().encode("utf-8", "surrogatepass")
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Path):
        yield value.name.encode("utf-8", "surrogateescape")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _parts(key)
            yield from _parts(one)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for one in value:
            yield from _parts(one)
    else:
        yield repr(value).encode("utf-8", "surrogatepass")


def _work(pipe: Connection) -> None:
    """Answer what comes through the pipe until it is closed."""
    from fusion.checksums import SUMS, write_checksums
    from tests.fuzz.nasties import NO_FILES
    from tests.fuzz.readers import READERS

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C complain there
    allowed: list[Path] = []  # while an input is read, its folder
    seen: list[str] = []
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, allowed, seen) if allowed else None)
    bound = _memory("VmSize") + MEMORY + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        task = pipe.recv()
        if not isinstance(task, Task):
            READERS[task[0]].make(task[1])
            pipe.send(task[1])
            continue
        shutil.rmtree(task.place, ignore_errors=True)
        shutil.copytree(task.original, task.place, symlinks=True)
        if task.content is not None:
            (task.place / task.file).write_bytes(task.content)
            if READERS[task.reader].renewed:
                home = next(parent for parent in (task.place / task.file).parents if (parent / SUMS).exists())
                write_checksums(home)
        if task.instead:
            (task.place / task.file).unlink()
            NO_FILES[task.instead](task.place / task.file)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        before = _memory("VmRSS")
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        signal.setitimer(signal.ITIMER_REAL, WALL_S)
        allowed.append(task.place.resolve())
        outcome, found = _outcome(partial(READERS[task.reader].read, task.place, task.place / task.file))
        allowed.clear()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = max(_memory("VmHWM") - before, 0)
        if peak > MEMORY:
            outcome, found = "memory", f"{peak / 2**20:.0f} MiB; {found}"
        if seen:
            outcome, found = "outside", "; ".join(seen[:3])
            seen.clear()
        pipe.send(Verdict(outcome=outcome, found=found[:4000], peak=peak))


def _outcome(read: Callable[[], Any]) -> tuple[str, str]:
    try:
        return "read", fingerprint(read())
    except (UserError, UnreadableImageError) as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST_MESSAGE:
            return "crash", f"a message of {len(message)} letters or of several lines: {message[:200]!r}"
        return "refused", message
    except BaseException as error:  # that of a panic in Rust is no Exception
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "/fusion/" in frame.filename or "/bench/" in frame.filename] or where[-1:]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return "crash", f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:300]}"


def _watch(event: str, arguments: tuple[Any, ...], allowed: list[Path], seen: list[str]) -> None:
    if event in STARTS:
        seen.append(f"{event} {arguments[:1]}")
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else "r" not in (mode or "r")
        if writes and isinstance(path, str | bytes | os.PathLike):
            _inside(event, path, allowed, seen)
    elif event in WRITES and not isinstance(arguments[0], int):  # a number is of a file whose opening was seen
        folder = next(iter(arguments[WRITES[event] :]), -1)
        folder = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
        _inside(event, os.path.join(folder, os.fsdecode(arguments[0])), allowed, seen)


def _inside(event: str, path: Any, allowed: list[Path], seen: list[str]) -> None:
    place = os.path.realpath(os.fsdecode(path))
    if place != os.devnull and not Path(place).is_relative_to(allowed[0]):
        seen.append(f"{event} {place}")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
