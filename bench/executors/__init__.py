"""Where the cells of a run are computed: in this process, in several, or on the nodes of a Ray cluster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.executors.interface import Call, Executor, Report, Result, Tell
from fusion.errors import UserError

if TYPE_CHECKING:
    from bench.worker import WorkerPlan
    from fusion.prepared import Prepared

__all__ = ["MOST_THREADS", "Call", "Executor", "Report", "Result", "Tell", "Where", "open_executor"]

ENGINES = ("local", "ray")
MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where the cells of a run are computed.

    Raises:
        UserError: a value is unknown, out of range, or belongs to another engine.
    """

    engine: str = "local"
    """One of ``ENGINES``."""
    jobs: int = 1
    """Cells at once on this machine: 1 computes them in this process, more in as many others."""
    threads: int | None = None
    """CPU threads of a cell; None divides those that torch takes by the jobs, and is 1 on a cluster."""
    address: str = ""
    """Of the Ray cluster, ``auto`` for the one this machine belongs to; empty starts one here."""
    gpus_per_cell: float | None = None
    """Share of a GPU that a cell takes on a cluster; None takes a whole one where there is any."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UserError(f"--engine {self.engine!r} is unknown; choose from {', '.join(ENGINES)}")
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and not 1 <= value <= MOST_THREADS:
                raise UserError(f"--{name} {value} is not a whole number from 1 to {MOST_THREADS}")
        if self.engine == "ray" and self.jobs != 1:
            raise UserError("--jobs is for one machine; on a cluster --threads and --gpus-per-cell say how many fit")
        if self.engine != "ray" and (self.address or self.gpus_per_cell is not None):
            raise UserError("--address and --gpus-per-cell are for a cluster; add --engine ray")
        if self.gpus_per_cell is not None:
            share = self.gpus_per_cell
            if not (0 <= share <= 1 or (share.is_integer() and 1 < share <= 64)):
                raise UserError(f"--gpus-per-cell {share:g} is neither a share from 0 to 1 nor a whole number")

    def torch_threads(self) -> int:
        """Return the CPU threads of a cell that are meant."""
        if self.threads is not None:
            return self.threads
        if self.engine == "ray":
            return 1
        import torch

        return max(1, torch.get_num_threads() // self.jobs)


def open_executor(where: Where, prepared: "Prepared", plan: "WorkerPlan", report: Report, tell: Tell) -> Executor:
    """Return the executor that is meant.

    Args:
        where: the cells are computed.
        prepared: the data set, opened.
        plan: what a worker needs.
        report: told how far calls are.
        tell: told what the user should know.

    Raises:
        UserError: there is no such device or cluster.
    """
    if where.engine == "ray":
        from bench.executors.ray_cluster import RayCluster

        return RayCluster(plan, where.address, where.gpus_per_cell, report, tell)
    if where.jobs > 1:
        from bench.executors.process_pool import ProcessPool

        return ProcessPool(plan, where.jobs, report, tell)
    from bench.executors.in_process import InProcess
    from bench.worker import Worker

    return InProcess(Worker(prepared, plan.out, plan.settings, plan.threads), report)
