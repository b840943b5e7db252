"""Commands of ``fusebench`` as processes, ended or disturbed at a chosen moment.

Importing everything takes longer than most commands do. So a server, that of ``multiprocessing``, imports it once and
forks a child for each command, with one thread and before anything was computed. What a child writes is compared with
what a really fresh process has written: the undisturbed runs are fresh ones.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[2]
IMPORTED = (
    *("bench.cli", "bench.runner", "bench.measure", "bench.explain", "bench.cold_start", "bench.sources"),
    *("bench.report.figures", "bench.report.page", "fusion.prepare", "fusion.sources.phantom"),
    *("torch._dynamo", "torch.onnx._internal.exporter._core", "onnxscript.function_libs.torch_lib.ops"),
    *("networkx", "sympy.combinatorics", "pydantic", "pyarrow.dataset", "typer._adapters", "PIL.PpmImagePlugin"),
    "tests.faults.audited",
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENVIRONMENT = ONE_THREAD | {"COLUMNS": "200", "PYTHONHASHSEED": "0"}
LIMIT_S = 600
"""Only to end a campaign whose command hangs."""

Fault = Callable[[], None]
"""Called in the process of a command before it begins."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    output: str
    """What the user saw, stdout and stderr together."""
    seconds: float

    @property
    def last_line(self) -> str:
        """What the user saw last."""
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")


def start_server() -> None:
    """Import everything once; call it before the first command."""
    os.environ.update(ENVIRONMENT)
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(IMPORTED))


def call(
    arguments: Sequence[str],
    folder: Path,
    fault: Fault | None = None,
    *,
    after_s: float = LIMIT_S,
    by: int = signal.SIGKILL,
) -> Ended:
    """Run a command in ``folder``, forked from the server.

    Args:
        arguments: of the command line.
        folder: where it runs.
        fault: what disturbs it.
        after_s: seconds after which it is ended.
        by: the signal that ends it.
    """
    output = folder / "output.txt"
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(arguments, folder, output, fault))
    started = perf_counter()
    process.start()
    process.join(after_s)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, by)
        process.join(LIMIT_S)
    seconds = perf_counter() - started
    assert process.exitcode is not None, f"{arguments} did not end"
    return Ended(code=process.exitcode, output=output.read_text(encoding="utf-8", errors="replace"), seconds=seconds)


def call_fresh(
    arguments: Sequence[str], folder: Path, *, after_s: float = LIMIT_S, strike: Callable[[int], None] | None = None
) -> Ended:
    """Run a command in ``folder`` as a user would, in a process of its own.

    Args:
        arguments: of the command line.
        folder: where it runs.
        after_s: seconds after which it is struck.
        strike: what is done then, given its process id; None kills it.
    """
    command = [sys.executable, "-m", "bench", *arguments]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    output, started = folder / "output.txt", perf_counter()
    with output.open("w", encoding="utf-8") as told:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=told, stderr=told)
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            (strike or kill)(process.pid)
            process.wait(LIMIT_S)
    return Ended(code=process.returncode, output=output.read_text(encoding="utf-8"), seconds=perf_counter() - started)


def kill(pid: int) -> None:
    """End a process as ``kill -9`` does."""
    os.kill(pid, signal.SIGKILL)


def _work(arguments: Sequence[str], folder: Path, output: Path, fault: Fault | None) -> None:
    # A child knows its server's address; without this it would start one of its own for the cold starts of `measure`.
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a campaign in the background is deaf to it
    os.chdir(folder)
    with output.open("w", encoding="utf-8") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
    if fault:
        fault()
    from bench.cli import main

    main(list(arguments))


@dataclass(frozen=True, kw_only=True)
class AtFileOperation:
    """Do something just before one of the operations on files below a folder; Python's audit events tell of them.

    So a kill hits the moments between a write, its sync and its rename, which a random time rarely does.
    """

    folder: Path
    number: int
    """Which operation, from 1; 0 for none."""
    action: Callable[[], Any]
    log: Path
    """A line is added for each operation."""
    reading: bool = False
    """Count files opened to be read instead of changes."""
    then: Fault | None = None
    """Another fault."""

    def __call__(self) -> None:
        """Install it in the process at hand."""
        folder, count = str(self.folder), 0
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        busy = False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count, busy
            if busy or not (operation := _operation(event, arguments, folder, self.reading)):
                return
            busy = True  # what follows opens files, too
            count += 1
            os.write(log, f"{operation}\n".encode())
            if count == self.number:
                self.action()
            busy = False

        sys.addaudithook(hook)
        if self.then:
            self.then()


CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate")


def _operation(event: str, arguments: tuple[Any, ...], folder: str, reading: bool) -> str:
    """Return what an audit event does below ``folder``; empty where that is nothing to be counted."""
    if event == "open":
        counted = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) != reading
    else:
        counted = event in CHANGES and not reading
    if not counted or not isinstance(arguments[0], str | bytes | os.PathLike):  # it may be a descriptor
        return ""
    path = os.fsdecode(arguments[0])
    relative_to_a_folder = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # within shutil.rmtree
    whole = os.path.abspath(path)
    if not relative_to_a_folder and not whole.startswith(folder):
        return ""
    return f"{event} {path if relative_to_a_folder else os.path.relpath(whole, folder)}"


def kill_this_process() -> None:
    """End the process at hand as ``kill -9`` does."""
    kill(os.getpid())
