"""The same matrix in one process, in two, and on two nodes of Ray: same folder, wall time, memory, overhead of a cell.

    python -m tests.benchmarks.executors quick --data data/quick [--out FILE]

Every engine computes with one thread a cell. Memory is the sum of the proportional set sizes of all processes of the
run, Ray's own among them, sampled every two seconds. Nothing else may run on the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

CELLS = 60
"""Baseline cells, which compute next to nothing, for the overhead."""
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20}


class Memory:
    """The most memory of the processes that this one has started."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "Memory":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.ended.wait(2.0):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_full_info().pss
                except psutil.Error:  # it has ended
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start a Ray cluster of two nodes, each with a raylet of its own."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    cluster.add_node(**NODE)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def run(matrix: str, data: Path, out: Path, options: list[str], kill: Any = None) -> tuple[float, float, str]:
    """Run a matrix; return wall time in seconds, peak memory in MiB, and what was told.

    Args:
        matrix: as ``fusebench run`` takes it.
        data: prepared.
        out: folder to write.
        options: where the cells are computed.
        kill: called once a third of the cells is done.
    """
    command = [sys.executable, "-m", "bench", "run", matrix, "--data", str(data), "--out", str(out), *options]
    started, lines = time.perf_counter(), []
    with (
        Memory() as memory,
        subprocess.Popen(
            [*command, "--no-measure", "--no-explain"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stderr is not None
        for line in child.stderr:
            lines.append(line)
            if kill and sum(" done in " in one for one in lines) == 12:
                kill()
                kill = None
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}: {''.join(lines[-5:])}")
    return time.perf_counter() - started, memory.peak_mib, "".join(lines)


def differences(run_dir: Path, reference: Path) -> list[str]:
    """Return the files of two runs that differ in more than times and the names of machines."""
    names = {path.relative_to(root) for root in (run_dir, reference) for path in root.rglob("*") if path.is_file()}
    return [str(name) for name in sorted(names) if _content(run_dir / name) != _content(reference / name)]


def _content(path: Path) -> Any:
    if not path.exists():
        return None
    if path.name == "rows.csv":
        rows = pd.read_csv(path, keep_default_na=False)
        return rows[~rows["metric"].isin(["wall_s"])].drop(columns="environment_hash").to_csv()
    if path.name in ("SHA256SUMS", "run.json", "index.html"):  # sums of files, machines, times of training
        return ""
    return path.read_bytes()


def seconds_of(data: Path, out: Path) -> dict[str, tuple[float, float, float]]:
    """Return what engines with one worker take for cells that compute next to nothing.

    Returns:
        Engine -> seconds until the first worker is ready; seconds per cell where more wait; and where none waits, so
        that nothing is fetched while the next one computes.
    """
    from bench.cell import Job, Settings
    from bench.executors import Call, Where, open_executor
    from bench.executors.process_pool import ProcessPool
    from bench.matrix import load_matrix
    from bench.worker import WorkerPlan
    from fusion.prepared import load_prepared

    prepared = load_prepared(data)
    (cell,) = (cell for cell in load_matrix("quick").cells if cell.name == "baseline/modality")
    jobs = [Job(cell=cell, protocol="clean", seed=seed) for seed in range(CELLS)]

    def plan(name: str) -> WorkerPlan:
        return WorkerPlan(
            data=data.resolve(),
            data_hash=prepared.data_hash,
            out=out / name,
            settings=Settings(weights="random", device="cpu"),
            threads=1,
        )

    def nothing(*_: Any) -> None:
        return None

    found = {}
    for name in ("in this process", "process pool", "Ray"):
        started = time.perf_counter()
        if name == "process pool":
            executor: Any = ProcessPool(plan(name), 1, nothing, nothing)
        else:
            where = Where(engine="ray" if name == "Ray" else "local", threads=1)
            executor = open_executor(where, prepared, plan(name), nothing, nothing)
        executor.submit([Call(method="describe", arguments=(jobs,))])
        described = executor.next_result().value
        calls = [
            Call(method="run", arguments=(job, defined), name=job.name)
            for job, defined in zip(jobs, described.definitions, strict=True)
        ]
        start_s = time.perf_counter() - started
        waiting, alone = calls[1 : CELLS // 2], calls[CELLS // 2 :]
        executor.submit(calls[:1])
        executor.next_result()  # what is imported at the first is not the engine's
        started = time.perf_counter()
        executor.submit(waiting)
        for _ in waiting:
            executor.next_result()
        waiting_s = (time.perf_counter() - started) / len(waiting)
        started = time.perf_counter()
        for call in alone:
            executor.submit([call])
            executor.next_result()
        found[name] = (start_s, waiting_s, (time.perf_counter() - started) / len(alone))
        executor.close()
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="file for the table, too")
    arguments = parser.parse_args()
    lines = ["| engine | wall, s | peak memory, MiB | files that differ |", "| :--- | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        reference = root / "alone"

        def row(engine: str, folder: Path, options: list[str], kill: Any = None) -> None:
            wall_s, peak_mib, told = run(arguments.matrix, arguments.data, folder, [*options, "--threads", "1"], kill)
            differ = differences(folder, reference)
            lines.append(f"| {engine} | {wall_s:.0f} | {peak_mib:.0f} | {len(differ)} |")
            print(
                lines[-1],
                *differ[:5],
                *(line for line in told.splitlines() if line.startswith("note")),
                sep="\n",
                flush=True,
            )

        row("one process", reference, [])
        row("--jobs 2", root / "jobs", ["--jobs", "2"])
        with two_nodes() as cluster:
            row("Ray, two nodes", root / "ray", ["--engine", "ray", "--address", cluster.address])
        with two_nodes() as cluster:
            node = next(iter(cluster.worker_nodes))
            kill = lambda: cluster.remove_node(node, allow_graceful=False)  # noqa: E731
            row("Ray, one node killed", root / "killed", ["--engine", "ray", "--address", cluster.address], kill)
        # in a process of its own: this one has imported Ray, and can no longer start a cluster with a token
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            seconds = pool.submit(seconds_of, arguments.data, root / "overhead").result()
    lines += [
        "",
        "| engine, one worker | start, s | s per cell, more waiting | s per cell, none waiting |",
        "| :--- | ---: | ---: | ---: |",
        *(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" for name, values in seconds.items()),
    ]
    print("", *lines, sep="\n")
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
