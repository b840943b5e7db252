"""Faults that leave the process alive, or take only a part of it: the disk, the memory, the loss, files, a worker."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psutil

from .processes import AtFileOperation, call, call_fresh, kill
from .scene import PHASES, Scene
from .trial import Trial, continued

DISTURBED = (0, 1, 2)
"""Exit codes where a fault may come too early or too late to be noticed: what counts is what comes of it."""
WAYS = ("cut in half", "emptied", "overwritten", "removed", "replaced")


def fill_the_disk(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    """Let a phase write into a file system with a part of the space it needs, then give it more."""
    place, made = scene.begin(name, slot), PHASES[name].made
    there, needed = (_kib(folder) for folder in (place / made, scene.whole[name].folder))
    size_kib = there + int(draw.uniform(0.02, 0.9) * (needed - there)) + 8
    with _small_disk(place / made, size_kib) as grow:
        ended = call(PHASES[name].command, place)
        if ended.code == 0:
            return None
        grow()
        return continued(scene, name, place, ended, codes=(2,), says="No space left on device")


def can_mount() -> str:
    """Return why no file system can be mounted here; empty where one can."""
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    return tried.stderr.strip()


def run_out_of_memory(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    """Let one cell run out of memory: the others go on, and the next call does that one."""
    place = scene.begin(name, slot)
    where = "bench.cell.train" if name == "run" else "bench.measure.measure_cell"
    ended = call(_unexplained(name), place, _Patch(where=where, number=draw.randint(1, 2), instead=_no_memory))
    wanted = "out of memory" if name == "run" else "MemoryError"
    return continued(scene, name, place, ended, codes=(1,), says=wanted)


def lose_the_loss(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    """Let the weights of one cell begin as NaN, so that its loss is: the others go on, and the next call does it."""
    place = scene.begin(name, slot)
    ended = call(_unexplained(name), place, _Patch(where="bench.cell.train", number=draw.randint(1, 2), instead=_nan))
    return continued(scene, name, place, ended, codes=(1,), says="loss")


def change_a_file(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    """Change one of the files a phase reads, just before it opens another, and bring it back when it has ended."""
    place, command = scene.begin(name, slot), PHASES[name].command
    read = place / PHASES[name].made
    if name == "run":  # what it reads is the data set
        read = place / "data"
        shutil.copytree(scene.folder / "data", read)
        command = ["data" if part == "../data" else part for part in command]
    kept = place / "kept"
    shutil.copytree(read, kept)
    file = draw.choice(sorted(path for path in kept.rglob("*") if path.is_file() and path.parent.name != "converted"))
    changed, way = read / file.relative_to(kept), draw.choice(WAYS)
    number = draw.randint(1, 8 if name == "run" else scene.whole[name].reads)
    at = AtFileOperation(
        folder=read, number=number, action=partial(_change, changed, way), log=place / "reads.txt", reading=True
    )
    ended = call(command, place, at)
    shutil.copy2(file, changed)
    trial = continued(scene, name, place, ended, codes=DISTURBED, command=command)
    trial.problems = [f"{changed.relative_to(place)} was {way} before read {number}: {one}" for one in trial.problems]
    return trial


def kill_under(options: Sequence[str], part: str) -> Callable[[Scene, str, str, Random], Trial | None]:
    """Return the fault of a run with another executor, one of whose processes is killed.

    Args:
        options: of the command line, that choose the executor.
        part: found in the command line of each of the run's processes that may be the one; empty for the head itself,
            whose run does not go on by itself.
    """

    def make(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
        place, killed = scene.begin(name, slot), []

        def strike(head: int) -> None:
            children = psutil.Process(head).children(recursive=True)
            fitting = [one.pid for one in children if part in " ".join(one.cmdline())] if part else [head]
            killed.extend(draw.sample(fitting, min(1, len(fitting))))
            for pid in killed:
                kill(pid)

        after_s = draw.uniform(0.8, 2) * scene.whole[name].fresh_seconds
        ended = call_fresh([*PHASES[name].command, *options], place, after_s=after_s, strike=strike)
        return continued(scene, name, place, ended, codes=(0,) if part else (-signal.SIGKILL,)) if killed else None

    return make


@dataclass(frozen=True, kw_only=True)
class _Patch:
    """Makes one call of a function another one."""

    where: str
    """Module and name."""
    number: int
    """Which call, from 1."""
    instead: Callable[..., Any]
    """Called with the function, then its arguments."""

    def __call__(self) -> None:
        """Install it in the process at hand."""
        module_name, _, name = self.where.rpartition(".")
        module = __import__(module_name, fromlist=[name])
        function, calls = getattr(module, name), 0

        def patched(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.number:
                return self.instead(function, *arguments, **named)
            return function(*arguments, **named)

        setattr(module, name, patched)


def _unexplained(name: str) -> Sequence[str]:
    """Return the command of a phase; where the cell to be explained fails, ``run`` would explain another instead."""
    return [*PHASES[name].command, *(["--no-explain"] if name == "run" else [])]


def _no_memory(*_: Any, **__: Any) -> None:
    raise MemoryError("Unable to allocate 512. GiB")


def _nan(function: Callable[..., Any], model: Any, *arguments: Any, **named: Any) -> Any:
    next(model.parameters()).data.fill_(float("nan"))
    return function(model, *arguments, **named)


def _change(path: Path, way: str) -> None:
    if way == "cut in half":
        os.truncate(path, path.stat().st_size // 2)
    elif way == "emptied":
        os.truncate(path, 0)
    elif way == "overwritten":
        with path.open("r+b") as file:
            file.write(b"\xff,\n" * 20)
    elif way == "removed":
        path.unlink(missing_ok=True)
    else:
        other = path.with_name("other")
        other.write_bytes(path.read_bytes()[::-1])
        other.replace(path)


def _kib(folder: Path) -> int:
    """Return the space that a folder takes, in whole pages."""
    if not folder.exists():
        return 0
    return sum(4 + -(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*"))


@contextmanager
def _small_disk(folder: Path, size_kib: int) -> Iterator[Callable[[], None]]:
    """Put a file system of ``size_kib`` under a folder, with what the folder holds; gives what makes it large."""
    aside = folder.with_name("aside")
    if folder.exists():
        folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)], check=True)
    try:
        if aside.exists():
            shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
