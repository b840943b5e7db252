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
    begins_with: Sequence[str] = ()
    """The phases whose result is already there; the first of those that have been done undisturbed."""
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
        begins_with=("run",),
        without=MADE_BY_REPORT,
    ),
    "report": Phase(
        command=("report", "run"), made="run", share=0.28, begins_with=("measure", "run"), without=MADE_BY_REPORT
    ),
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
        succeeded(call(PHANTOM, folder), PHANTOM)

    @staticmethod
    def needed(phases: Collection[str]) -> list[str]:
        """Return the phases that have to be done undisturbed so that those of ``phases`` can be disturbed."""
        return [name for name in PHASES if name in ("prepare", "run", *phases)]

    def make_whole(self, name: str, *, fresh: bool) -> None:
        """Do a phase undisturbed: in a really fresh process, if wanted, and forked, to time it and to count."""
        phase = PHASES[name]
        kept, first = self.folder / f"whole-{name}", None
        if fresh:
            place = self.begin(name, "whole")
            first = succeeded(call_fresh(phase.command, place), phase.command)
            (place / phase.made).rename(kept)
        place = self.begin(name, "counted")
        logs = [self.folder / f"counted-{what}.txt" for what in ("changes", "reads")]
        made = place / phase.made
        reads = AtFileOperation(folder=made, number=0, action=print, log=logs[1], reading=True)
        changes = AtFileOperation(folder=made, number=0, action=print, log=logs[0], then=reads)
        ended = succeeded(call(phase.command, place, changes), phase.command)
        if not first:
            made.rename(kept)
        if name == "prepare":
            shutil.copytree(kept, self.folder / "data")
        counts = [len(log.read_text(encoding="utf-8").splitlines()) for log in logs]
        self.whole[name] = Whole(
            folder=kept,
            seconds=ended.seconds,
            fresh_seconds=(first or ended).seconds,
            operations=counts[0],
            reads=counts[1],
        )

    def begin(self, name: str, slot: str) -> Path:
        """Return a folder in which a phase can be called; what was there before is gone."""
        phase, place = PHASES[name], self.folder / f"slot-{slot}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if phase.begins_with:
            there = next(self.whole[one] for one in phase.begins_with if one in self.whole)
            shutil.copytree(there.folder, place / phase.made, ignore=shutil.ignore_patterns(*phase.without))
        return place


def succeeded(ended: Ended, command: Sequence[str]) -> Ended:
    """Return how an undisturbed command ended: well."""
    assert ended.code == 0, f"undisturbed, {' '.join(command)} ended with {ended.code}:\n{ended.output[-2000:]}"
    return ended
