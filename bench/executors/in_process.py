"""Cells one after the other in this process: the default."""

from collections import deque
from collections.abc import Sequence

from bench.executors.interface import Call, Report, Result
from bench.worker import Worker


class InProcess:
    """Makes every call when its result is asked for."""

    def __init__(self, worker: Worker, report: Report) -> None:
        self.worker, self.report = worker, report
        self.waiting: deque[Call] = deque()

    def submit(self, calls: Sequence[Call]) -> None:
        """Hand over calls."""
        self.waiting.extend(calls)

    def next_result(self) -> Result:
        """Make the next call and return its result."""
        call = self.waiting.popleft()
        return Result(call=call, value=call.made_by(self.worker, lambda part: self.report(call, part)))

    def close(self) -> None:
        """Nothing is left to end."""
        self.waiting.clear()
