"""Where cells are computed: the choices, and the same folder wherever."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from run_folders import CELLS, PROTOCOLS

from bench.executors import Where
from bench.runner import Summary
from fusion.errors import UserError

DONE = Summary(done=2 * len(CELLS), found=0, failed=())
RunTiny = Callable[..., Summary]


@pytest.fixture(scope="module")
def alone(run_tiny: RunTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every cell in this process, with one thread."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert run_tiny(out, protocols=PROTOCOLS, where=Where(threads=1)) == DONE
    return out


def content(run: Path) -> dict[str, Any]:
    """Return what every file of a run holds, but the times and the machine."""
    files: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if path.name == "rows.csv":
            rows = pd.read_csv(path, keep_default_na=False)
            files[name] = rows[rows["metric"] != "wall_s"].drop(columns="environment_hash").to_csv()
        elif path.name not in ("SHA256SUMS", "run.json"):  # of the files; names the machines
            files[name] = path.read_bytes()
    return files


# -- the choices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "slurm"}, "--engine 'slurm' is unknown; choose from local, ray"),
        ({"jobs": 0}, "--jobs 0 is not a whole number from 1 to 1024"),
        ({"threads": 4096}, "--threads 4096 is not a whole number from 1 to 1024"),
        ({"engine": "ray", "jobs": 2}, "--jobs is for one machine"),
        ({"address": "auto"}, "--address and --gpus-per-cell are for a cluster; add --engine ray"),
        ({"gpus_per_cell": 0.5}, "--address and --gpus-per-cell are for a cluster; add --engine ray"),
        ({"engine": "ray", "gpus_per_cell": 1.5}, "--gpus-per-cell 1.5 is neither a share from 0 to 1 nor a whole"),
        ({"engine": "ray", "gpus_per_cell": -1.0}, "--gpus-per-cell -1 is neither"),
        ({"engine": "ray", "gpus_per_cell": float("nan")}, "--gpus-per-cell nan is neither"),
    ],
)
def test_a_choice_that_can_not_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Where(**wrong)
    assert said in str(caught.value)


def test_threads_are_divided_between_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    threads = [Where(jobs=jobs).torch_threads() for jobs in (1, 2, 3, 16)]
    assert threads == [8, 4, 2, 1]
    assert Where(jobs=2, threads=5).torch_threads() == 5
    assert Where(engine="ray").torch_threads() == 1


def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path: Path, run_tiny: RunTiny) -> None:
    cells = ["model3/cnn17+e1+b8", "model3/cnn17+e2+b8"]
    run_tiny(tmp_path, cells[:1], where=Where(threads=1))
    with pytest.raises(UserError, match=r"other threads \(1, now 2\); choose another --out, or --threads 1"):
        run_tiny(tmp_path, cells, where=Where(threads=2))
    assert run_tiny(tmp_path, cells) == Summary(done=1, found=1, failed=())
    assert '"threads": 1' in (tmp_path / "run.json").read_text(encoding="utf-8")


# -- the process pool ------------------------------------------------------------------------------------------------


def test_two_processes_leave_the_same_folder_though_one_is_killed(
    tmp_path: Path, run_tiny: RunTiny, alone: Path
) -> None:
    told: list[str] = []
    killed: list[int] = []

    def kill_a_worker(name: str, _: float, __: float) -> None:
        if not killed and "model2" in name:
            workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            killed.append(workers[0].pid)
            workers[0].kill()

    out = tmp_path / "run"
    ended = run_tiny(
        out, protocols=PROTOCOLS, where=Where(jobs=2, threads=1), progress=kill_a_worker, finished=told.append
    )
    assert ended == DONE
    assert content(out) == content(alone)
    (lost,) = (line for line in told if line.startswith("note: "))
    assert f"worker process {killed[0]} died (SIGKILL" in lost
    assert len(told) == 2 * len(CELLS) + 1


# -- Ray -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A Ray cluster on this machine: a head that computes nothing, and two nodes, each with a raylet and a CPU."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **store)
    yield cluster
    cluster.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own: files and sockets it leaves to the garbage collector
def test_two_nodes_leave_the_same_folder_though_one_is_killed(
    tmp_path: Path, run_tiny: RunTiny, alone: Path, nodes: Any
) -> None:
    told: list[str] = []
    killed: list[str] = []

    def kill_a_node(name: str, done: float, _: float) -> None:
        for node in [] if killed or not done else nodes.worker_nodes:
            (raylet,) = node.all_processes["raylet"]
            titles = {one.cmdline()[0] for one in psutil.Process(raylet.process.pid).children() if one.cmdline()}
            # Ray names the process after the method it is in: not one that still starts, whose start Ray would repeat
            if titles & {"ray::RayNode", "ray::RayNode.call", "ray::RayNode.part"}:
                killed.append(name)
                nodes.remove_node(node, allow_graceful=False)
                return

    out = tmp_path / "run"
    ended = run_tiny(
        out,
        protocols=PROTOCOLS,
        where=Where(engine="ray", address=nodes.address),
        progress=kill_a_node,
        finished=told.append,
    )
    assert ended == DONE
    assert killed
    assert content(out) == content(alone)
    assert told[0] == "note: the cluster has room for 2 cells at once (nodes: 2)"
    assert any("a worker was lost" in line for line in told)


STRANGER = """
import os, sys
os.environ["RAY_NUM_REDIS_GET_RETRIES"] = "1"  # of 20, a second each
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in")
"""


def test_a_cluster_of_this_machine_alone_lets_no_stranger_in(tmp_path: Path, tiny_toml: Path, tiny_data: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    command = [sys.executable, "-m", "bench", "run", str(tiny_toml), "--data", str(tiny_data), "--engine", "ray"]
    command += ["--out", str(tmp_path / "run"), "--only", "model3/*", "--device", "cpu", "--no-measure", "--no-explain"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        room = run.stderr.readline()
        assert room.startswith("note: the cluster has room for "), room + run.stderr.read()
        options = [option for child in psutil.Process(run.pid).children(recursive=True) for option in child.cmdline()]
        (address,) = {option.partition("=")[2] for option in options if option.startswith("--gcs-address=")}
        asked = [sys.executable, "-c", STRANGER, address]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        _, err = run.communicate(timeout=300)
    assert (run.returncode, answer.returncode, answer.stdout) == (0, 1, ""), err
    assert "Failed to connect to Ray cluster" in answer.stderr


@pytest.mark.filterwarnings("ignore")
def test_without_a_cluster_there_is_one_line(tmp_path: Path, run_tiny: RunTiny) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UserError, match=r"^no Ray cluster answers at 127\.0\.0\.1:1 .*with 'ray start --head'"):
        run_tiny(tmp_path / "run", where=Where(engine="ray", address="127.0.0.1:1"))


def test_a_cluster_without_its_token_is_not_started(
    tmp_path: Path, run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))  # it has read its settings
    with pytest.raises(UserError, match=r"^this process has imported Ray already, .*name its --address$"):
        run_tiny(tmp_path / "run", where=Where(engine="ray"))
