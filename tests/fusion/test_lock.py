"""One writer of a folder at a time; who is refused is told who holds it."""

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fusion.checksums import LOCK
from fusion.errors import UserError
from fusion.lock import require_no_writer, sole_writer

HOST = socket.gethostname()
HOLD = """
import sys, time
from pathlib import Path
from fusion.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of ``tmp_path``."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def enter(folder: Path) -> None:
    with sole_writer(folder):
        assert (folder / LOCK).exists()


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path, held: subprocess.Popen[str]) -> None:
    try:
        for refused in (enter, require_no_writer):
            with pytest.raises(UserError) as caught:
                refused(tmp_path)
            assert re.fullmatch(
                rf"another process is writing to {tmp_path}: process {held.pid} on {re.escape(HOST)} since "
                rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S+ \(-c {tmp_path}\); wait for it, or choose another folder",
                str(caught.value),
            )
    finally:
        end(held)


def test_the_note_of_a_killed_writer_misleads_nobody(tmp_path: Path, held: subprocess.Popen[str]) -> None:
    end(held)
    assert json.loads((tmp_path / LOCK).read_text())["process"] == held.pid
    require_no_writer(tmp_path)
    enter(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00" * 9, '{"process": "\\u001b[31m", "host": "a\\nb"}', "[" * 9999])
def test_a_strange_note_is_harmless(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    descriptor = os.open(tmp_path / LOCK, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is writing to") as caught:
        enter(tmp_path)
    assert str(caught.value).isprintable()
    os.close(descriptor)
    enter(tmp_path)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="can't write to the folder"):
        enter(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"


# -- a file system without locks -------------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_it_goes_on_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    enter(tmp_path)
    assert f"note: the file system of {tmp_path} has no locks (No locks available)" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    ("note", "refused"),
    [
        (lambda: {"process": os.getppid(), "host": HOST}, True),
        (lambda: {"process": 1, "host": "another-machine"}, True),
        (lambda: {"process": ended_process(), "host": HOST}, False),
        (lambda: {"process": -1, "host": "another-machine"}, False),
    ],
    ids=["alive", "elsewhere", "ended", "no process"],
)
def test_without_locks_the_note_decides(tmp_path: Path, note: Callable[[], object], refused: bool) -> None:
    (tmp_path / LOCK).write_text(json.dumps(note()))
    if refused:
        with pytest.raises(UserError, match="another process is writing to"):
            enter(tmp_path)
    else:
        enter(tmp_path)


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid
