"""Progress with remaining time, on a terminal as bars, elsewhere as lines."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fusion.text import one_line


def say(text: str, *, stderr: bool = False) -> None:
    """Print ``text`` on one line, as it is but without what a terminal would obey."""
    _say(Console(stderr=stderr), text)


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


class ProgressBars:
    """A bar for each stage of the work; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=600,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.started: dict[str, float] = {}

    def __enter__(self) -> "ProgressBars":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def stage(self, name: str, done: float, total: float) -> None:
        """Show that ``done`` of ``total`` of the stage ``name`` is done."""
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total)
            self.started[name] = time.monotonic()
        self.bars.update(self.tasks[name], completed=done, total=total)
        if done >= total and not self.console.is_terminal and name in self.started:
            self.line(f"{name}: {total:g} in {time.monotonic() - self.started.pop(name):.1f} s")

    def run(self, name: str, done: float, total: float) -> None:
        """Show one bar over a whole run, named by what is under way."""
        task = self.tasks.get("run")
        if task is None:
            task = self.tasks["run"] = self.bars.add_task(one_line(name), total=total)
        self.bars.update(task, description=one_line(name), completed=done, total=total)

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        _say(self.console, text)
