"""The kinds of faults: a row each."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .kills import jump, kill_a_fresh_process, kill_at_a_time, kill_before_a_change, send
from .mishaps import (
    can_mount,
    change_a_file,
    fill_the_disk,
    kill_under,
    lose_the_loss,
    run_out_of_memory,
)
from .scene import PHASES, Scene
from .trial import Trial


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A row of ``KINDS``."""

    make: Callable[[Scene, str, str, Random], Trial | None]
    """From the scene, the phase, the slot to work in and what draws; None where the fault came too late."""
    phases: Sequence[str] = tuple(PHASES)
    short: str = ""
    """The phase of the one that is made in the short form; empty for none."""
    times: int = 3
    """In the full form, for each phase; kills have their own number."""
    needs: Callable[[], str] = str
    """Returns why it can't be made here; empty where it can."""


JOBS = ("--jobs", "2", "--threads", "1")
KINDS = {
    "kill -9 at a random time": Kind(make=kill_at_a_time, short="prepare"),
    "kill -9 before a random change of a file": Kind(make=kill_before_a_change, short="run"),
    "kill -9 of a process not forked": Kind(make=kill_a_fresh_process, times=1),
    "SIGINT": Kind(make=send(signal.SIGINT), short="prepare"),
    "SIGTERM": Kind(make=send(signal.SIGTERM), short="prepare"),
    "disk full": Kind(make=fill_the_disk, short="run", needs=can_mount),
    "clock jumps a year, and kill -9": Kind(make=jump, short="report", times=2),
    "out of memory in a cell": Kind(make=run_out_of_memory, short="run", phases=("run", "measure")),
    "NaN loss in a cell": Kind(make=lose_the_loss, phases=("run",)),
    "a file changes while it is read": Kind(make=change_a_file, short="report", phases=("run", "report"), times=8),
    "kill -9 of the head of --jobs 2": Kind(make=kill_under(JOBS, ""), phases=("run",), times=2),
    "kill -9 of a worker of --jobs 2": Kind(make=kill_under(JOBS, "spawn_main"), phases=("run",), times=2),
}
KILLS = tuple(KINDS)[:2]
"""Those that share the number of kills."""
