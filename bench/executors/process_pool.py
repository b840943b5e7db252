"""Several cells at once on one machine: processes that stay warm, the GPUs and the cores divided between them."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, NoReturn

from bench.executors.interface import Call, Report, Result, Tell, Work
from fusion.errors import UserError

if TYPE_CHECKING:
    from bench.worker import WorkerPlan

END_S = 20
"""How long workers may take to leave their cells cleanly, all together."""


class ProcessPool:
    """At most ``count`` processes, started as there is work for them.

    One that dies (a segmentation fault, the kernel's out-of-memory killer) is replaced, and its calls are made again.
    """

    def __init__(self, plan: "WorkerPlan", count: int, report: Report, tell: Tell) -> None:
        self.plan, self.count, self.report = plan, count, report
        self.work = Work(tell)
        self.workers: list[_Process] = []

    def submit(self, calls: Sequence[Call]) -> None:
        """Hand over calls that one process makes, one after the other."""
        self.work.submit(calls)

    def next_result(self) -> Result:
        """Wait until a call has ended, and return how."""
        while True:
            self._hand_out()
            if self.work.given_up:
                return self.work.given_up.popleft()
            for connection in wait([worker.connection for worker in self.workers]):
                worker = next(one for one in self.workers if one.connection is connection)
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, OSError):  # what a dying process leaves of a message can't be read either
                    self._lose(worker)
                    break
                if kind == "part":
                    self.report(worker.calls[0], value)
                elif kind == "error":
                    raise value
                else:
                    call = worker.calls.popleft()
                    self._hand_out()  # it computes on while the result is looked at
                    return Result(call=call, value=value)

    def close(self) -> None:
        """End the processes; each leaves its cell as an interruption would."""
        for worker in self.workers:
            if worker.calls:
                worker.process.terminate()
            else:
                worker.process.kill()
        deadline = time.monotonic() + END_S
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self.workers.clear()
        self.work.waiting.clear()

    def _hand_out(self) -> None:
        """Give every process a call that has none; start processes while there is work for them."""
        for worker in self.workers:
            if not worker.calls and self.work.waiting:
                worker.calls = self.work.waiting.popleft()
            worker.ask()
        while self.work.waiting and len(self.workers) < self.count:
            places = {worker.place for worker in self.workers}
            place = next(place for place in range(self.count) if place not in places)
            worker = _Process.started(self.plan, place)
            worker.calls = self.work.waiting.popleft()
            worker.ask()
            self.workers.append(worker)

    def _lose(self, worker: "_Process") -> None:
        """Take the calls of a process that died back."""
        self.workers.remove(worker)
        worker.process.join(END_S)
        worker.process.kill()
        worker.connection.close()
        how = f"worker process {worker.process.pid} died ({_cause(worker.process.exitcode)})"
        self.work.take_back(worker.calls, how)


@dataclass(kw_only=True, eq=False)
class _Process:
    """A worker process, and what it has to do."""

    place: int
    process: SpawnProcess
    connection: Connection
    calls: deque[Call]
    """The first is under way, once it is asked."""
    asked: Call | None = None

    @classmethod
    def started(cls, plan: "WorkerPlan", place: int) -> "_Process":
        context = multiprocessing.get_context("spawn")  # a forked process can't use the GPU
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, plan, _gpu(place)), daemon=True, name=f"worker {place}")
        process.start()
        there.close()
        return cls(place=place, process=process, connection=here, calls=deque())

    def ask(self) -> None:
        """Ask for the first call, unless it is under way."""
        if self.calls and self.asked is not self.calls[0]:
            self.asked = self.calls[0]
            with suppress(OSError):  # it has died: its end of the connection says so
                self.connection.send(self.asked)


def _serve(connection: Connection, plan: "WorkerPlan", gpu: str | None) -> None:
    """Be a worker process: make one call after the other until told to end, or until the run itself is gone."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the run ends its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def answer(kind: str, value: Any) -> None:
        connection.send((kind, value))

    try:
        worker = plan.worker()
        while True:
            call: Call = connection.recv()
            answer("value", call.made_by(worker, lambda part: answer("part", part)))
    except EOFError:
        return
    except UserError as error:
        answer("error", error)
    except Exception as error:
        answer("error", RuntimeError(f"{error}\n{traceback.format_exc()}"))


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nothing that is written now would be held by the lock of the run's folder


def _gpu(place: int) -> str | None:
    """Return the GPU of a worker as ``CUDA_VISIBLE_DEVICES`` names it, cards in turn; None where there is none."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[place % count] if named else str(place % count)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"{signal.Signals(-code).name}{', perhaps for want of memory' if code == -signal.SIGKILL else ''}"
    return f"exit code {code}"
