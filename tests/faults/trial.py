"""One trial: a command was disturbed, the same command is called again, and what came of it is judged."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusion.checksums import problems

from .compare import differences, finished_cells, finished_files, lost
from .processes import Ended, call
from .scene import PHASES, Scene


@dataclass(kw_only=True)
class Trial:
    """What came of one fault."""

    saw: str
    """What the user saw last."""
    lost: int = 0
    """Finished cells."""
    problems: list[str] = field(default_factory=list)
    """What is not as it must be."""
    equal: bool = True
    """Whether everything made is that of the undisturbed run."""


def continued(
    scene: Scene,
    name: str,
    place: Path,
    ended: Ended,
    *,
    codes: Sequence[int],
    says: str = "",
    command: Sequence[str] = (),
    fault: Callable[[], None] | None = None,
) -> Trial:
    """Call the command of a phase again, and compare what came of it with the undisturbed phase.

    Args:
        scene: with the undisturbed phases.
        name: of the phase.
        place: where it was disturbed.
        ended: how it ended.
        codes: exit codes it may have had.
        says: a text the user must have seen where it ended otherwise than well.
        command: instead of that of the phase.
        fault: goes on in the second call.
    """
    made = place / PHASES[name].made
    trial = Trial(saw=f"{_way(ended.code)}: {ended.last_line}" if ended.code > 0 else _way(ended.code))
    if ended.code not in codes:
        trial.problems.append(f"ended with {_way(ended.code)}, not {' or '.join(map(_way, codes))}: {ended.last_line}")
    if says and ended.code > 0 and says not in ended.output:
        trial.problems.append(f"{says!r} is not in what the user saw: {ended.last_line}")
    before = finished_files(made)
    again = call(command or PHASES[name].command, place, fault)
    trial.problems += [f"a traceback: {one.last_line}" for one in (ended, again) if "Traceback" in one.output]
    if again.code != 0:
        trial.problems.append(f"the same command then ended with {_way(again.code)}: {again.last_line}")
    trial.lost, lines = lost(before, finished_files(made))
    trial.problems += lines
    unequal = differences(scene.whole[name].folder, made, measured=name == "measure")
    trial.equal = not unequal
    trial.problems += unequal
    trial.problems += [f"{one.path.relative_to(made)} is {one.kind} by its checksum" for one in problems(made)]
    if (cells := len(finished_cells(before))) and name == "run":
        trial.saw += f" ({cells} cells were finished)" if ended.code < 0 else ""
    return trial


def _way(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
