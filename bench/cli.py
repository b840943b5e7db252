"""The command line. Each command parses, builds and makes one call; heavy imports wait until a command needs them."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import typer

from bench.cli_audit import audit
from bench.cli_common import one_interruption, stoppable
from bench.cli_data import phantom, prepare
from bench.cli_machine import data_path, doctor, gpu_check
from bench.cli_results import explain, measure, predict, report, run, verify
from bench.progress import say
from fusion.errors import CODES, UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Benchmark CNNs for breast-cancer detection on mammography and ultrasound, from raw files to the tables of "
        "Wang et al., Tomography 2024.\n\n"
        "The order of work: **doctor** examines the machine, **prepare** the raw data once, **run** a matrix on it, "
        "**measure** more of its models, **explain** where they look, read the tables of **report**, **predict** with "
        "a model. **verify** finds files that were damaged since they were written. **audit** holds the paper's "
        "numbers against each other. Without data, **phantom** writes synthetic "
        "data in the same formats."
    ),
)
COMMANDS: dict[str, Callable[..., None]] = {
    "phantom": phantom,
    "prepare": prepare,
    "run": run,
    "measure": measure,
    "explain": explain,
    "report": report,
    "verify": verify,
    "predict": predict,
    "audit": audit,
    "doctor": doctor,
    "data-path": data_path,
    "gpu-check": gpu_check,
}
for name, command in COMMANDS.items():
    app.command(name)(stoppable(command))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a ``UserError`` becomes one line on stderr and exit code 2."""
    try:
        with one_interruption():
            try:
                return app(arguments)
            finally:
                sys.stdout.flush()  # here a full disk or a closed pipe can still be told
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in (*CODES, errno.EPIPE):
            raise
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else its rest is a second error at exit
        what = error.filename or "can't write the output"
        _refuse(f"{what}: {error.strerror}")


def _refuse(message: str) -> NoReturn:
    say(f"fusebench: {message}", stderr=True)
    sys.exit(2)
