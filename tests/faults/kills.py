"""Faults that end a process: kill -9, signals, and a kill while the clock jumps."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .processes import AtFileOperation, Fault, call, call_fresh, kill_this_process
from .scene import PHASES, Scene
from .trial import Trial, continued

YEAR_S = 365 * 24 * 3600


def kill_at_a_time(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    place = scene.begin(name, slot)
    ended = call(PHASES[name].command, place, after_s=draw.uniform(0, scene.whole[name].seconds))
    return None if ended.code == 0 else continued(scene, name, place, ended, codes=(-signal.SIGKILL,))


def kill_a_fresh_process(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    place = scene.begin(name, slot)
    ended = call_fresh(PHASES[name].command, place, after_s=draw.uniform(0.3, 1) * scene.whole[name].fresh_seconds)
    return None if ended.code == 0 else continued(scene, name, place, ended, codes=(-signal.SIGKILL,))


def kill_before_a_change(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    place = scene.begin(name, slot)
    number = draw.randint(1, scene.whole[name].operations)
    ended = call(PHASES[name].command, place, _before(scene, name, place, slot, number))
    return None if ended.code == 0 else continued(scene, name, place, ended, codes=(-signal.SIGKILL,))


def send(which: signal.Signals) -> Callable[[Scene, str, str, Random], Trial | None]:
    """Return the fault of a signal that a command should answer with a line and an exit code of 128 + its number."""

    def make(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
        place = scene.begin(name, slot)
        after_s = draw.uniform(0.1, 0.9) * scene.whole[name].seconds
        ended = call(PHASES[name].command, place, after_s=after_s, by=which)
        if ended.code == 0:
            return None
        return continued(scene, name, place, ended, codes=(128 + which,), says="the same command")

    return make


def jump(scene: Scene, name: str, slot: str, draw: Random) -> Trial | None:
    """Let the clock jump in the command, kill it, and let it and the files' times jump once more before it goes on."""
    place = scene.begin(name, slot)
    kill = _before(scene, name, place, slot, draw.randint(1, scene.whole[name].operations))
    ended = call(PHASES[name].command, place, ClockJumps(then=kill))
    if ended.code == 0:
        return None
    _shift_times(place / PHASES[name].made, draw)
    return continued(scene, name, place, ended, codes=(-signal.SIGKILL,), fault=ClockJumps())


def _before(scene: Scene, name: str, place: Path, slot: str, number: int) -> AtFileOperation:
    log = scene.folder / f"operations-{slot}.txt"
    return AtFileOperation(folder=place / PHASES[name].made, number=number, action=kill_this_process, log=log)


@dataclass(frozen=True, kw_only=True)
class ClockJumps:
    """Lets the clock of a process jump a year back and forth from one look at it to the next."""

    then: Fault | None = None
    """Another fault."""

    def __call__(self) -> None:
        """Install it in the process at hand."""
        now, now_ns, looks = time.time, time.time_ns, 0

        def ahead_s() -> int:
            nonlocal looks
            looks += 1
            return YEAR_S if looks % 2 else -YEAR_S

        time.time = lambda: now() + ahead_s()
        time.time_ns = lambda: now_ns() + ahead_s() * 10**9
        if self.then:
            self.then()


def _shift_times(folder: Path, draw: Random) -> None:
    """Let each file seem to be a year older, or a year younger."""
    for path in folder.rglob("*"):
        shift_ns = draw.choice((-YEAR_S, YEAR_S)) * 10**9
        facts = path.stat()
        os.utime(path, ns=(facts.st_atime_ns + shift_ns, facts.st_mtime_ns + shift_ns))
