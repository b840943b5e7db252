import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from bench.cli import main
from fusion.checksums import problems

CELLS = 15
LIMIT_S = 300
"""Only to end a test whose child hangs."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_toml: Path, tiny_data: Path) -> Iterator[Start]:
    """Start a run as a process of its own, with one thread; it is ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def run(out: Path, *options: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments(tiny_toml, tiny_data, out), *options],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def arguments(matrix: Path, data: Path, out: Path) -> list[str]:
    return ["run", str(matrix), "--data", str(data), "--out", str(out), "--device", "cpu", "--no-measure"]


def run_here(command: list[str]) -> None:
    """Call the command line in this process with one thread, like the child's, as sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), pytest.raises(SystemExit) as ended:
            main(command)
    finally:
        torch.set_num_threads(threads)
    assert ended.value.code in (None, 0)


def finished_cells(out: Path) -> list[Path]:
    found = (path.parent for path in out.glob("cells/*/*/*/*/rows.csv"))
    return [folder for folder in found if not folder.name.startswith(".")]


def wait_for_cells(child: subprocess.Popen[str], out: Path, count: int) -> None:
    """Return as soon as ``count`` cells are finished and the run is still at work."""
    deadline = time.monotonic() + LIMIT_S
    while len(finished_cells(out)) < count:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_run_killed_in_the_middle_ends_with_the_same_tables(
    tmp_path: Path, tiny_toml: Path, tiny_data: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    child = start(killed)
    wait_for_cells(child, killed, 2)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for folder in finished_cells(killed) for file in folder.iterdir()}
    found = len(finished_cells(killed))
    assert 2 <= found < CELLS
    assert not (killed / "tables").exists()

    for out in (killed, whole):
        run_here(arguments(tiny_toml, tiny_data, out))
    assert f"{CELLS - found} cells done, {found} found finished, 0 failed" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in before} == before
    tables = [{path.name: path.read_bytes() for path in (root / "tables").iterdir()} for root in (whole, killed)]
    assert len(tables[0]) == 46  # with SHA256SUMS
    assert tables[0] == tables[1]
    assert list(killed.rglob(".*")) == []


@pytest.mark.parametrize(
    ("number", "code", "word", "options"),
    [
        (signal.SIGINT, 130, "interrupted", ()),
        (signal.SIGTERM, 143, "terminated", ()),
        (signal.SIGTERM, 143, "terminated", ("--jobs", "2")),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, start: Start, number: int, code: int, word: str, options: tuple[str, ...]
) -> None:
    child = start(tmp_path / "run", *options)
    wait_for_cells(child, tmp_path / "run", 1)
    child.send_signal(number)
    child.send_signal(number)  # who is impatient leaves no half cell either
    out, err = child.communicate(timeout=LIMIT_S)
    assert child.returncode == code, err
    assert err.splitlines()[-1] == f"{word}; the same command goes on from here"
    assert "Traceback" not in out + err
    assert 1 <= len(finished_cells(tmp_path / "run")) < CELLS
    assert list((tmp_path / "run").rglob(".*")) == []
    assert problems(tmp_path / "run") == []
