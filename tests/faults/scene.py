"""The smallest work that has every part: phantoms of all three data sets, a matrix of a few cells, four phases."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import AtFileOperation, Ended, call, call_fresh

MATRIX = """
name = "tiny"
weights = "random"
protocols = ["paper"]
seeds = [0]

[model1]
backbones = ["mobilenet_v2"]
classifiers = ["lr", "nb"]

[model3]
optimizer = "sgdm"
learning_rate = 0.001
epochs = [1, 2]
batch_sizes = [8]
patience = 5
"""
PHANTOM = ("phantom", "raw", "--scale", "0.01")
SOURCES = ("--busi", "../raw/busi", "--oasbud", "../raw/oasbud/OASBUD.mat", "--rsna", "../raw/rsna")
MADE_BY_REPORT = ("tables", "figures", "index.html")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A command, and what it begins with."""

    command: Sequence[str]
    """Called in a folder beside ``raw``, ``data`` and ``tiny.toml``."""
    made: str
    """The folder it makes there."""
    share: float
    """Of the kills."""
    begins_with: str = ""
    """The phase whose result is already there."""
    without: Sequence[str] = ()
    """Of that, what is not."""


PHASES = {
    "prepare": Phase(command=("prepare", "data", *SOURCES, "--image-size", "32"), made="data", share=0.3),
    "run": Phase(
        command=("run", "../tiny.toml", "--data", "../data", "--out", "run", "--device", "cpu", "--no-measure"),
        made="run",
        share=0.3,
    ),
    "measure": Phase(
        command=("measure", "run", "--only", "model3/*", "--rounds", "2", "--batch", "1"),
        made="run",
        share=0.12,  # it takes as long as the others together
        begins_with="run",
        without=MADE_BY_REPORT,
    ),
    "report": Phase(command=("report", "run"), made="run", share=0.28, begins_with="measure", without=MADE_BY_REPORT),
}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An undisturbed phase."""

    folder: Path
    """What it made."""
    seconds: float
    """Of a forked process."""
    fresh_seconds: float
    """Of one that imports everything first."""
    operations: int
    """Changes of files it makes."""
    reads: int
    """Files it opens to read."""


class Scene:
    """The working folder of a campaign."""

    def __init__(self, folder: Path) -> None:
        """Write the raw data and the matrix."""
        self.folder = folder
        self.whole: dict[str, Whole] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.toml").write_text(MATRIX, encoding="utf-8")
        _succeed(call(PHANTOM, folder), PHANTOM)

    @staticmethod
    def needed(phases: Collection[str]) -> list[str]:
        """Return the phases that have to be done undisturbed so that those of ``phases`` can be disturbed."""
        last = max(list(PHASES).index(name) for name in phases)
        return list(PHASES)[: last + 1]

    def make_whole(self, name: str, *, fresh: bool = True) -> None:
        """Do a phase undisturbed, in a really fresh process if wanted, and twice more forked, to count and time it."""
        phase, place = PHASES[name], self.begin(name, "whole")
        first = (call_fresh if fresh else call)(phase.command, place)
        _succeed(first, phase.command)
        kept = self.folder / f"whole-{name}"
        (place / phase.made).rename(kept)
        if name == "prepare":
            shutil.copytree(kept, self.folder / "data")
        counts = []
        for reading in (False, True):
            place, log = self.begin(name, "counted"), self.folder / "operations.txt"
            count = AtFileOperation(folder=place / phase.made, number=0, action=print, log=log, reading=reading)
            ended = call(phase.command, place, count)
            _succeed(ended, phase.command)
            counts.append(len(log.read_text(encoding="utf-8").splitlines()))
        self.whole[name] = Whole(
            folder=kept,
            seconds=ended.seconds,
            fresh_seconds=first.seconds,
            operations=counts[0],
            reads=counts[1],
        )

    def begin(self, name: str, slot: str) -> Path:
        """Return a folder in which a phase can be called; what was there before is gone."""
        phase, place = PHASES[name], self.folder / f"slot-{slot}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if phase.begins_with:
            shutil.copytree(
                self.whole[phase.begins_with].folder, place / phase.made, ignore=shutil.ignore_patterns(*phase.without)
            )
        return place


def _succeed(ended: Ended, command: Sequence[str]) -> None:
    assert ended.code == 0, f"undisturbed, {' '.join(command)} ended with {ended.code}:\n{ended.output[-2000:]}"
