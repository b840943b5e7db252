"""A worker of arithmetic, for the tests of executors: its module is imported by processes that are started anew."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.errors import UserError

Report = Callable[[float], None]


class Arithmetic:
    """Adds, or does not come to it."""

    def add(self, a: int, b: int, report: Report) -> tuple[int, int]:
        report(0.5)
        return a + b, os.getpid()

    def die(self, tries: Path, times: int, report: Report) -> int:
        """Die at the first ``times`` tries."""
        report(0.0)
        with tries.open("a") as file:
            file.write(".")
        if (count := len(tries.read_text())) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def fail(self, error: Exception, report: Report) -> None:
        report(0.0)
        raise error

    def linger(self, marker: Path, report: Report) -> None:
        """Never end, and leave a file when ended cleanly."""
        try:
            report(0.25)
            time.sleep(600)
        finally:
            marker.write_text(str(os.getpid()))

    def card(self, _: Report) -> Any:
        return os.environ.get("CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """In the place of ``bench.worker.WorkerPlan``."""

    refusal: str = ""

    def worker(self) -> Arithmetic:
        if self.refusal:
            raise UserError(self.refusal)
        return Arithmetic()
