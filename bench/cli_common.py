"""What the commands share: how their options are told, progress, and how an interruption ends."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.progress import ProgressBars, say

Data = Annotated[Path, typer.Option(help="Folder written by 'fusebench prepare'.", show_default=False)]
Results = Annotated[Path, typer.Argument(help="Folder written by 'fusebench run'.", show_default=False)]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU where there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto: mixed on a GPU, fp32 on the CPU.")]


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
    """Tell who interrupts the block what is now, and end with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print(f"interrupted; {what_now}", highlight=False)
        raise typer.Exit(130) from None
