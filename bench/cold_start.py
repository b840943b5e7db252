"""Cold start and memory of an engine, each in a fresh process: in one that has worked before they mean nothing.

The process is forked from a server that has imported the libraries, so neither time nor memory counts these. A process
that crashes, hangs or is killed for its memory ends as a reason, and so no engine is opened here that did not survive
it there.
"""

import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from signal import Signals

import psutil
import torch

from bench.engine_rows import Found
from bench.environment import set_numerics
from bench.export import load_classifier
from bench.sessions import ENGINES, NotHereError, RefusedError, open_session, require_machine
from fusion.cores import cpu_count
from fusion.errors import UserError

LIMIT_S = 1800.0
"""A compiled network on a slow CPU takes minutes for each batch size."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A finished cell and one of its exported files."""

    run: Path
    cell: Path
    """The cell's folder."""
    image_size: int
    file: Path | None


def measure_cold_start(engine: str, precision: str, target: Target, batch: int) -> list[Found]:
    """Return the seconds from opening to the first answer to one image, and the most memory it took with a large batch.

    Args:
        engine: a key of ``ENGINES``.
        precision: one of the engine's.
        target: what to open.
        batch: images of the large batch.

    Raises:
        RefusedError: the engine can't be opened, or its process crashed or hung.
        NotHereError: the machine does not have what it needs.
        UserError: a file of the run is damaged.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.cold_start"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, engine, precision, target, batch), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(LIMIT_S):
            raise RefusedError(f"no answer within {LIMIT_S:g} s")
        told = here.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        raise RefusedError(f"its process was ended by {Signals(-code).name if code < 0 else f'exit {code}'}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(told, Exception):
        raise told
    cold_start_s, memory_mib = told
    return [
        Found(metric="cold_start_s", value=cold_start_s, n=1),
        Found(metric="peak_memory_mib", value=memory_mib, n=1),
    ]


def _work(pipe: Connection, engine: str, precision: str, target: Target, batch: int) -> None:
    try:
        pipe.send(_open_and_run(engine, precision, target, batch))
    except (UserError, RefusedError, NotHereError) as error:
        pipe.send(type(error)(str(error)))
    except (MemoryError, torch.OutOfMemoryError):
        pipe.send(RefusedError("out of memory"))
    except Exception as error:
        pipe.send(RefusedError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def _open_and_run(engine: str, precision: str, target: Target, batch: int) -> tuple[float, float]:
    require_machine(engine)
    torch.set_num_threads(cpu_count())
    set_numerics(torch.device(ENGINES[engine].device))
    device = torch.device(ENGINES[engine].device)
    images_u8 = torch.zeros(batch, 1, target.image_size, target.image_size, dtype=torch.uint8, device=device)
    gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info()[0] if gpu else 0
    resident = psutil.Process().memory_info().rss
    started = time.perf_counter()
    session = open_session(
        engine,
        precision,
        image_size=target.image_size,
        file=target.file,
        load=partial(load_classifier, target.run, target.cell, target.image_size),
    )
    session.bind(images_u8[:1])()
    if gpu:
        torch.cuda.synchronize()
    cold_start_s = time.perf_counter() - started
    session.bind(images_u8)()
    if gpu:
        torch.cuda.synchronize()
        return cold_start_s, (free - torch.cuda.mem_get_info()[0]) / 2**20
    return cold_start_s, (_peak_bytes() - resident) / 2**20


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
