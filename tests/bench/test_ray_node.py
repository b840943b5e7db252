"""A node of a cluster, without a cluster: the data set it is given, and what is fetched from it."""

import os
import shutil
from pathlib import Path

import pytest

from bench.cell import Job, Settings
from bench.executors.interface import Call
from bench.executors.ray_node import CHUNK, RayNode
from bench.matrix import Matrix
from bench.worker import Worker, WorkerPlan
from fusion.errors import UserError
from fusion.prepared import FILES, Prepared

NOBODY = 2**22 + 1
"""Above the largest process id of Linux."""


@pytest.fixture
def plan(tiny_prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerPlan:
    """Of a run whose data set and folder lie on another machine."""
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / "cache"))
    return WorkerPlan(
        data=tmp_path / "elsewhere",
        data_hash=tiny_prepared.data_hash,
        out=tmp_path / "run",
        settings=Settings(weights="random", device="cpu"),
        threads=1,
    )


def send(node: RayNode, data: Path) -> None:
    for name in FILES:
        node.receive(name, (data / name).read_bytes())


def test_a_node_is_given_the_data_set_once_and_its_cells_are_fetched(
    plan: WorkerPlan, tiny_data: Path, matrix: Matrix
) -> None:
    node = RayNode(plan)
    assert not node.open()
    send(node, tiny_data)
    node.keep()
    assert node.open()
    assert RayNode(plan).open()  # another worker of the same machine finds it in the cache
    (cell,) = (cell for cell in matrix.cells if cell.name == "model1/mobilenet_v2+nb")
    job = Job(cell=cell, protocol="paper", seed=0)
    described, _ = node.call(Call(method="describe", arguments=([job],)))
    ended, written = node.call(Call(method="run", arguments=(job, described.definitions[0])))
    assert (ended.reason, node.part()) == ("", 0.5)
    place, features = written
    assert place == "cells/paper/0/model1/mobilenet_v2+nb"
    assert features.startswith("features/mobilenet_v2-")
    for name, size in written[place].items():
        content = b"".join(node.read(place, name, start) for start in range(0, size, CHUNK))
        assert content == (node.scratch / "run" / place / name).read_bytes()
    assert {"rows.csv", "predictions.parquet", "model.safetensors", "cell.json", "history.csv"} <= set(written[place])
    node.forget(place)
    node.forget(features)
    assert not (node.scratch / "run" / place).exists()
    assert (node.scratch / "run" / features / "features.safetensors").exists()
    node.clear()
    assert not node.scratch.exists()
    assert not plan.out.exists()


def test_a_node_refuses_a_data_set_that_is_another(plan: WorkerPlan, other_prepared: Prepared) -> None:
    node = RayNode(plan)
    send(node, other_prepared.root)
    with pytest.raises(UserError, match="was changed while the run began"):
        node.keep()
    assert not node.open()


def test_a_node_refuses_a_data_set_that_was_damaged_on_its_way(plan: WorkerPlan, tiny_data: Path) -> None:
    node = RayNode(plan)
    send(node, tiny_data)
    with (node.incoming / "images_u8.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(UserError, match="its files do not fit its manifest"):
        node.keep()
    assert not node.open()


def test_a_damaged_cache_is_replaced(plan: WorkerPlan, tiny_data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "data" / plan.data_hash
    shutil.copytree(tiny_data, kept)
    (kept / "catalog.parquet").write_bytes(b"damage")
    node = RayNode(plan)
    assert not node.open()
    send(node, tiny_data)
    node.keep()
    assert node.open()


def test_what_killed_processes_left_is_removed(plan: WorkerPlan, tmp_path: Path) -> None:
    scratch = tmp_path / "cache" / "scratch"
    for name in (f"{NOBODY}-x", f"{os.getpid()}-y", "mine"):
        (scratch / name).mkdir(parents=True)
    node = RayNode(plan)
    assert {path.name for path in scratch.iterdir()} == {f"{os.getpid()}-y", "mine", node.scratch.name}


def test_a_machine_with_other_settings_fails_the_cell_by_name(
    plan: WorkerPlan, tiny_prepared: Prepared, matrix: Matrix, tmp_path: Path
) -> None:
    job = Job(cell=matrix.cells[-1], protocol="paper", seed=0)
    worker = Worker(tiny_prepared, tmp_path / "run", plan.settings, 1)
    planned = worker.describe([job], lambda _: None).definitions[0]
    ended = worker.run(job, {**planned, "precision": "bf16"}, lambda _: None)
    assert ended.reason == "this machine would run it with other settings (precision: 'bf16', now 'fp32')"
    assert ended.folders == [f"cells/{job.name}"]
