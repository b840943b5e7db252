"""What an executor is: it has the calls of a worker made somewhere, and hands back what they return."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a worker process imports it, and with it torch, when it becomes one
    from bench.worker import Worker

MOST_LOSSES = 3
"""How often the worker that makes a call may be lost before the call is given up: it may be the call that ends it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """A call of a method of ``bench.worker.Worker``."""

    method: str
    arguments: tuple[Any, ...]
    name: str = ""
    """What is told of it: ``paper/0/model2/resnet50+sgdm``."""

    def made_by(self, worker: "Worker", report: Callable[[float], None]) -> Any:
        """Make the call in this process; ``report`` is told the share of the work done."""
        return getattr(worker, self.method)(*self.arguments, report)


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a call ended."""

    call: Call
    value: Any
    """What it returned; None where it was given up."""
    lost: str = ""
    """Why it was given up: its worker was lost ``MOST_LOSSES`` times."""


class Work:
    """The calls that wait for a worker, and what becomes of those whose worker was lost.

    Args:
        tell: told what happens to them.
    """

    def __init__(self, tell: "Tell") -> None:
        self.tell = tell
        self.waiting: deque[deque[Call]] = deque()
        """Each is for one worker."""
        self.given_up: deque[Result] = deque()
        self.losses: Counter[Call] = Counter()

    def submit(self, calls: Sequence[Call]) -> None:
        """Let calls wait that one worker makes, one after the other."""
        self.waiting.append(deque(calls))

    def take_back(self, calls: deque[Call], how: str) -> None:
        """Take the calls of a lost worker back, the first of which was under way: it is made again, or given up.

        Args:
            calls: of the worker, those it has not ended.
            how: the worker was lost.
        """
        if not calls:
            self.tell(f"note: {how}; it had nothing to do")
            return
        self.losses[calls[0]] += 1
        if self.losses[calls[0]] < MOST_LOSSES:
            self.tell(f"note: {how}; {calls[0].name} is run again")
        else:
            reason = f"{how}, for the {MOST_LOSSES}. time"
            self.given_up.append(Result(call=calls.popleft(), value=None, lost=reason))
        if calls:
            self.waiting.appendleft(calls)


class Executor(Protocol):
    """Has calls made by workers; nothing else knows where."""

    def submit(self, calls: Sequence[Call]) -> None:
        """Hand over calls that share what a worker keeps: one worker makes them, one after the other."""

    def next_result(self) -> Result:
        """Wait until one more call has ended, and return how. An error that it raised is raised here.

        Calls of a worker that was lost are made again by another.
        """

    def close(self) -> None:
        """End the workers; calls under way are abandoned. A second call does nothing."""


Report = Callable[[Call, float], None]
"""Called with a call under way and the share of its work done."""
Tell = Callable[[str], None]
"""Called with one line that the user should know."""
