"""``python -m tests.faults.campaign``: all faults, and ``docs/faults.md`` with what came of them."""

import argparse
import ctypes
import json
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

from fusion.files import write_text

from .compare import MASKS_WHERE_MEASURED
from .kinds import KILLS, KINDS
from .processes import ROOT, start_server
from .scene import PHASES, Scene
from .trial import Trial

SLOTS = 2
"""Trials at the same time; each command has one thread."""
TRIES = 20
NEW_MOUNTS = 0x20000
"""CLONE_NEWNS of sched.h."""


@dataclass(kw_only=True)
class Line:
    """What came of the faults of one kind in one phase."""

    kind: str
    phase: str
    trials: list[Trial] = field(default_factory=list)
    skipped: str = ""
    """Why there are none."""

    @property
    def problems(self) -> list[str]:
        """All that was not as it must be."""
        return [problem for trial in self.trials for problem in trial.problems]


def main() -> None:
    """Make the faults that are asked for, and end with exit code 1 where something was lost or is not equal."""
    options = _options()
    # Small disks are mounted for this process and its children alone.
    if os.geteuid() == 0 and ctypes.CDLL(None).unshare(NEW_MOUNTS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True)
    started = time.monotonic()
    start_server()
    with tempfile.TemporaryDirectory(prefix="faults-", dir=options.folder) as folder:
        scene = Scene(Path(folder).resolve())
        planned = _planned(options)
        for name in scene.needed({phase for _, phase, _ in planned}):
            scene.make_whole(name, fresh=not options.short)
            whole = scene.whole[name]
            _say(f"{name}: {whole.seconds:.1f} s, {whole.operations} changes of files, {whole.reads} files read")
        lines = {(kind, phase): Line(kind=kind, phase=phase) for kind, phase, _ in planned}
        slots: SimpleQueue[str] = SimpleQueue()
        for number in range(SLOTS):
            slots.put(str(number))
        with ThreadPoolExecutor(SLOTS) as pool:
            futures = [(one, pool.submit(_make, scene, *one, slots)) for one in planned]
            for number, ((kind, phase, _), future) in enumerate(futures, start=1):
                line, found = lines[kind, phase], future.result()
                if isinstance(found, str):
                    line.skipped = found
                    told = f"not made: {found}"
                else:
                    line.trials.append(found)
                    told = "; ".join(found.problems[:4]) or "well"
                _say(f"{number}/{len(planned)} {kind}, {phase}: {told}")
    seconds = time.monotonic() - started
    if options.json:
        content = [asdict(line) | {"problems": line.problems} for line in lines.values()]
        options.json.write_text(json.dumps(content), encoding="utf-8")
    else:
        write_text(ROOT / "docs" / "faults.md", _page(list(lines.values()), seconds))
    problems = [problem for line in lines.values() for problem in line.problems]
    _say(f"{len(planned)} faults in {seconds:.0f} s, {len(problems)} problems")
    sys.exit(1 if problems else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kill -9 at random points, over all phases")
    parser.add_argument("--seed", type=int, default=0, help="draws moments, files and cells")
    parser.add_argument("--only", choices=list(KINDS), action="append", help="kinds of faults; may be repeated")
    parser.add_argument("--phase", choices=list(PHASES), action="append", help="phases; may be repeated")
    parser.add_argument("--short", action="store_true", help="one fault of most kinds, in one phase each")
    parser.add_argument("--json", type=Path, help="file for what came of it, instead of docs/faults.md")
    parser.add_argument("--folder", type=Path, help="folder to work in; by default that for temporary files")
    return parser.parse_args()


def _planned(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return kind, phase and seed of every fault."""
    planned: list[tuple[str, str, int]] = []
    draw = random.Random(options.seed)
    for kind, row in KINDS.items():
        phases = [phase for phase in row.phases if phase in (options.phase or PHASES)]
        if not phases or (options.only and kind not in options.only):
            continue
        if options.short:
            turns = [row.short] if row.short else []
        elif kind in KILLS:
            half = options.kills // 2 + (options.kills % 2) * (kind == KILLS[0])
            shares = [PHASES[phase].share for phase in phases]
            ends = [round(half * sum(shares[: place + 1]) / sum(shares)) for place in range(len(shares))]
            turns = [
                phase for phase, end, start in zip(phases, ends, [0, *ends], strict=False) for _ in range(start, end)
            ]
        else:
            turns = [phase for phase in phases for _ in range(row.times)]
        planned += [(kind, phase, draw.randrange(2**32)) for phase in turns]
    return planned


def _make(scene: Scene, kind: str, phase: str, seed: int, slots: "SimpleQueue[str]") -> Trial | str:
    """Make one fault, drawn anew until it is one; return why it can't be made where it can't."""
    if reason := KINDS[kind].needs():
        return reason
    slot, draw = slots.get(), random.Random(seed)
    try:
        for _ in range(TRIES):
            if trial := KINDS[kind].make(scene, phase, slot, draw):
                return trial
    finally:
        slots.put(slot)
    raise RuntimeError(f"{kind}, {phase}: the command had always ended before")


def _page(lines: list[Line], seconds: float) -> str:
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    kills = [trial for line in lines if line.kind in KILLS for trial in line.trials]
    trials = [trial for line in lines for trial in line.trials]
    rows = [
        "| fault | phase | times | finished cells lost | equal afterwards | what the user saw |",
        "|---|---|---:|---:|---:|---|",
    ]
    for line in lines:
        count = len(line.trials)
        facts = [
            f"{sum(trial.lost for trial in line.trials)}",
            f"{sum(trial.equal for trial in line.trials)} of {count}",
        ]
        saw = line.skipped or "<br>".join(sorted({_cell(trial.saw) for trial in line.trials})[:4])
        rows.append(f"| {line.kind} | {line.phase} | {count} | {' | '.join(facts if count else ['', ''])} | {saw} |")
    problems = [f"- {line.kind}, {line.phase}: {_cell(one)}" for line in lines for one in line.problems]
    masks = [f"| `{pattern}` | {why} |" for pattern, (_, why) in MASKS_WHERE_MEASURED.items()]
    return PAGE.format(
        command=shlex.join(["python", "-m", "tests.faults.campaign", *sys.argv[1:]]),
        machine=f"{os.cpu_count()} cores of {cpu.strip()}, Python {platform.python_version()}",
        minutes=f"{seconds / 60:.0f}",
        kills=len(kills),
        lost=sum(trial.lost for trial in kills),
        equal=sum(trial.equal for trial in kills),
        trials=len(trials),
        all_equal=sum(trial.equal for trial in trials),
        rows="\n".join(rows),
        masks="\n".join(masks),
        problems="\n".join(["## Problems", "", *problems, ""]) if problems else "",
    )


def _cell(text: str) -> str:
    text = re.sub(r"\S*/slot-\w+/", "", text)
    return text.replace("|", "\\|").replace("<", "&lt;")[:160]


def _say(text: str) -> None:
    print(text, flush=True)


PAGE = """\
# The fault campaign

Written by `{command}` in {minutes} minutes on
{machine}; `make faults` does it again.

Each fault disturbs a real command on the smallest data and matrix that have every part. Then the same command is called
again, and everything it made is compared with what an undisturbed run made, in a process of its own: every file byte
for byte, no file missing, none left over. Finished cells must be there with the same bytes and the same time of writing
as before.

kill -9 at random points: {kills} times, finished cells lost {lost}, equal afterwards {equal} of {kills}. All faults:
{trials}, equal afterwards {all_equal} of {trials}.

{rows}

Half of the kills come at a time drawn from the whole length of the phase, half just before one of the changes of files
that it makes (a file opened to be written, a rename, a removal, a new folder), each as likely as any other: this hits
the moments between two renames, which a random time rarely does. Commands are forked from a process that has imported
the libraries, as the import takes longer than most of them; a few are started as a user would.

What holds a time is not compared:

| file | left out |
|---|---|
{masks}

{problems}"""

if __name__ == "__main__":
    main()
