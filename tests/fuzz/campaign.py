"""Damaged inputs over all readers: ``python -m tests.fuzz.campaign --inputs 1000``; exit code 1 for a finding."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz.judge import Judge, Task, Verdict
from tests.fuzz.mutations import BINARY, TEXT
from tests.fuzz.nasties import NASTIES, NO_FILES
from tests.fuzz.readers import READERS, TEXTS

BAD = ("crash", "hang", "memory", "outside")
COLUMNS = ("Reader", "Inputs", "Refused", "Read, equal", "Read, other", "Silent", *map(str.capitalize, BAD), "MiB", "s")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One damaged file of a reader."""

    reader: str
    file: str
    """Of the reader's folder."""
    how: str
    content: bytes | None = None
    instead: str = ""
    damaged: bool = True
    """False for one made by hand, which may be whole."""


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def inputs_of(name: str, original: Path, count: int, seed: int) -> Iterator[Input]:
    """Yield ``count`` inputs of the reader ``name``, whose valid files lie in ``original``: the same for a seed."""
    draw = random.Random(f"{name} {seed}")
    files = sorted(file for file in original.glob(READERS[name].damaged) if file.is_file() and file.stat().st_size)
    for number in range(count):
        file = files[number % len(files)]
        before = content = file.read_bytes()
        while content == before:
            mutations = [
                draw.choice(TEXT if file.suffix in TEXTS else BINARY) for _ in range(draw.choice((1, 1, 1, 2, 3)))
            ]
            for mutation in mutations:
                content = mutation(content, draw) if content else content
        how = "+".join(mutation.__name__ for mutation in mutations)
        yield Input(reader=name, file=str(file.relative_to(original)), how=how, content=content)


def by_hand(name: str, original: Path) -> Iterator[Input]:
    """Yield the inputs made by hand for a reader, and what is no file in the place of its first one."""
    files = sorted(str(file.relative_to(original)) for file in original.glob(READERS[name].damaged) if file.is_file())
    for what, content in NASTIES.get(name, {}).items():
        named = [file for file in files if file.endswith(what.partition(": ")[0])]
        yield Input(reader=name, file=(named or files)[0], how=what, content=content(), damaged=False)
    for instead in NO_FILES:
        yield Input(reader=name, file=files[0], how=instead, instead=instead)


def examine(name: str, count: int, seed: int, folder: Path, judge: Judge) -> tuple[list[str], list[str]]:
    """Return the row of the table of one reader, and a line for each finding."""
    start, original = time.monotonic(), folder / "original"
    original.mkdir(parents=True)
    judge.make(name, original)
    inputs = [*inputs_of(name, original, count, seed), *by_hand(name, original)]
    made = partial(Task, reader=name, original=original, place=folder / "copy")
    valid = {file: judge.verdict(made(file=file)) for file in dict.fromkeys(one.file for one in inputs)}
    faults = [
        f"{name}: the valid {file}: {one.outcome}: {one.found}" for file, one in valid.items() if one.outcome != "read"
    ]
    verdicts = [judge.verdict(made(file=one.file, content=one.content, instead=one.instead)) for one in inputs]
    outcomes = [_judged(one, verdict, valid[one.file]) for one, verdict in zip(inputs, verdicts, strict=True)]
    for number, (one, outcome, verdict) in enumerate(zip(inputs, outcomes, verdicts, strict=True)):
        if outcome in (*BAD, "silent"):
            faults.append(f"{name} {number}: {one.how} of {one.file}: {outcome}: {verdict.found}")
            kept = folder.parent / "findings" / f"{name}-{number}-{Path(one.file).name}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(one.content or b"")
    counts = [outcomes.count(outcome) for outcome in ("refused", "equal", "other", "silent", *BAD)]
    peak = max((verdict.peak for verdict in verdicts), default=0) / 2**20
    return [name, *map(str, [len(inputs), *counts]), f"{peak:.0f}", f"{time.monotonic() - start:.0f}"], faults


def _judged(one: Input, verdict: Verdict, valid: Verdict) -> str:
    if verdict.outcome != "read":
        return verdict.outcome
    if verdict.found == valid.found:
        return "equal"
    return "silent" if READERS[one.reader].checked and one.damaged else "other"


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="over all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=READERS, nargs="*", default=list(READERS))
    parser.add_argument("--keep", type=Path, help="folder that keeps the inputs of findings")
    given = parser.parse_args()
    say(f"| {' | '.join(COLUMNS)} |\n| :--- |{' ---: |' * (len(COLUMNS) - 1)}")
    faults: list[str] = []
    totals = [0] * (len(COLUMNS) - 3)
    with tempfile.TemporaryDirectory() as folder, Judge() as judge:
        for place, name in enumerate(given.only):
            count = given.inputs // len(given.only) + (place < given.inputs % len(given.only))
            row, found = examine(name, count, given.seed, Path(folder) / f"{place:02}", judge)
            faults += found
            sys.stderr.writelines(f"{line}\n" for line in found)
            totals = [total + int(one) for total, one in zip(totals, row[1:-2], strict=True)]
            say(f"| {' | '.join(row)} |")
        say(f"| {' | '.join(['all', *map(str, totals), '', ''])} |")
        findings = Path(folder) / "findings"
        if given.keep and findings.is_dir():
            shutil.copytree(findings, given.keep, dirs_exist_ok=True)
    say(f"\n{len(faults)} findings")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
