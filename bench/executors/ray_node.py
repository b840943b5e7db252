"""What runs on a node of a Ray cluster: a worker that has, or is given, the data set, and whose files can be read."""

import os
import platform
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from bench.executors.interface import Call
from bench.worker import Worker, WorkerPlan
from fusion.errors import DiskError, UserError
from fusion.files import make_folder
from fusion.prepared import load_prepared

CHUNK = 16 * 2**20
"""Bytes of a file that travel at once."""


class RayNode:
    """A worker on a node. It writes into a folder of its own, so the node needs no file system in common with the run.

    Args:
        plan: of the run; ``data`` and ``out`` are paths where the run was started, and may mean nothing here.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan, self.part_done = plan, 0.0
        self.cache = Path(os.environ.get("FUSEBENCH_CACHE") or Path.home() / ".cache" / "fusebench")
        self.scratch = _scratch(make_folder(self.cache / "scratch"))
        self.incoming = self.scratch / "data"
        self.worker: Worker | None = None

    def open(self) -> bool:
        """Return whether the node has the data set; the worker is then ready."""
        for folder in (self.plan.data, self.cache / "data" / self.plan.data_hash):
            try:
                has = load_prepared(folder).data_hash == self.plan.data_hash
            except UserError:  # not there, another one, or damaged: the run sends its own
                continue
            if has:
                self.worker = replace(self.plan, data=folder, out=make_folder(self.scratch / "run")).worker()
                return True
        return False

    def receive(self, name: str, content: bytes) -> None:
        """Add to a file of the data set."""
        with (make_folder(self.incoming) / name).open("ab") as file:
            file.write(content)

    def keep(self) -> None:
        """Put the data set that was received into the node's cache, checked by its hash.

        Raises:
            UserError: it is not what was meant.
        """
        received = load_prepared(self.incoming)
        if received.data_hash != self.plan.data_hash:
            raise UserError(f"{self.plan.data} was changed while the run began; call the same command again")
        kept = make_folder(self.cache / "data") / self.plan.data_hash
        shutil.rmtree(kept, ignore_errors=True)  # damaged, or ``open`` had found it
        self.incoming.rename(kept)

    def call(self, call: Call) -> tuple[Any, dict[str, dict[str, int]]]:
        """Make a call of the worker; return what it returned, and the files, with sizes, of each folder it wrote.

        Raises:
            DiskError: a folder can't be written; the message names this machine, and the folder as the run does.
        """
        assert self.worker is not None
        self.part_done = 0.0
        try:
            value = call.made_by(self.worker, self._report)
        except DiskError as error:
            raise DiskError(f"{platform.node()}: {str(error).replace(f'{self.scratch}/run/', '')}") from None
        written = {
            folder: {path.name: path.stat().st_size for path in sorted((self.scratch / "run" / folder).iterdir())}
            for folder in getattr(value, "folders", ())
        }
        return value, written

    def _report(self, part: float) -> None:
        self.part_done = part

    def part(self) -> float:
        """Return the share of the call under way that is done."""
        return self.part_done

    def read(self, folder: str, name: str, offset: int) -> bytes:
        """Return a chunk of a file that was written."""
        with (self.scratch / "run" / folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)

    def forget(self, folder: str) -> None:
        """Remove a folder that was fetched; features stay for the cells to come."""
        if not folder.startswith("features/"):
            shutil.rmtree(self.scratch / "run" / folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all that was written but the cache."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def _scratch(folder: Path) -> Path:
    """Return a folder of this process; those of processes that were killed are removed."""
    for stale in folder.iterdir():
        pid = stale.name.partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder))
