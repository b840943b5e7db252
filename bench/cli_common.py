"""What the commands share: how their options are told, progress, and how an interruption ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.progress import ProgressBars, say

Data = Annotated[Path, typer.Option(help="Folder written by 'fusebench prepare'.", show_default=False)]
Results = Annotated[Path, typer.Argument(help="Folder written by 'fusebench run'.", show_default=False)]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU where there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto: mixed on a GPU, fp32 on the CPU.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever clears up after Ctrl-C does so after it, too."""


def print_next(text: str) -> None:
    """Say which call or file comes next."""
    say(f"next: {text}")


def progress_bars() -> ProgressBars:
    """Return progress bars on stderr."""
    return ProgressBars(Console(stderr=True))


def resumable() -> AbstractContextManager[None]:
    """Tell who interrupts the block that the same command goes on."""
    return interrupted("the same command goes on from here")


@contextmanager
def interrupted(what_now: str) -> Iterator[None]:
    """Tell who interrupts the block what is now, and end with exit code 130, or 143 where the system ended it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        ended = isinstance(interrupt, Terminated)
        Console(stderr=True).print(f"{'terminated' if ended else 'interrupted'}; {what_now}", highlight=False)
        raise typer.Exit(128 + (signal.SIGTERM if ended else signal.SIGINT)) from None


def stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with a line for who interrupts it where it has none of its own."""

    @wraps(command)
    def call(*arguments: Any, **options: Any) -> None:
        with interrupted("call the same command again"):
            command(*arguments, **options)

    return call


@contextmanager
def one_interruption() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, and let what is under way be cleared: a second one waits for that.

    A third one ends the process at once; what it leaves is cleared by the next call.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if count == 2:
            os.write(2, b"\nclearing up what is half done; once more ends at once\n")
            return
        os._exit(128 + number)

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
