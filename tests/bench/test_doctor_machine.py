"""What the machine has to spare, as ``doctor`` judges it: cores, memory, weights, disk."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from doctor_faults import TIMM_NAMES, Judge
from safetensors.numpy import save_file
from torch import nn

import bench.doctor_probes
from bench.doctor import SPACE_GIB
from bench.doctor_probes import PROBES
from bench.matrix import load_matrix
from fusion.cores import cpu_count
from fusion.models import MODELS, build_model


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/box/inner", {"box/cpu.max": "150000 100000", "box/inner/cpu.max": "max 100000"}),
        ("3:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_quota_below_the_cores_is_a_fault(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(bench.doctor_probes, "CGROUPS", tmp_path)
    monkeypatch.setattr(bench.doctor_probes, "OWN_CGROUPS", tmp_path / "own")
    facts = PROBES["cores"]()
    found = judge("cores", facts | {"cores": [3, 4, 5]})
    assert (found.status, found.found.split(":")[0]) == ("fault", "3 cores, but a quota (cgroup) of the time of 1.5")
    assert "taskset --cpu-list 3 " in found.remedy
    assert judge("cores", facts | {"cores": [3]}).status == "ok"


def test_the_probe_of_the_cores_tells_those_of_this_process() -> None:
    assert len(PROBES["cores"]()["cores"]) == cpu_count()


def test_fewer_threads_by_wish_are_told_and_no_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = judge("cores", {"cores": [0, 1], "quota": None})
    assert found.status == "ok"
    assert "OMP_NUM_THREADS=1" in found.found


def test_little_memory_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    monkeypatch.setattr(bench.doctor_probes, "CGROUPS", tmp_path)
    monkeypatch.setattr(bench.doctor_probes, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 2**30))
    found = judge("memory", PROBES["memory"]())
    assert (found.status, found.found.split(";")[0]) == ("fault", "2.0 GiB free")


def test_little_shared_memory_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench.doctor_probes, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))  # Docker's default
    found = judge("shared memory", PROBES["shared memory"]())
    assert (found.status, found.found.split(";")[0]) == ("fault", f"0.1 GiB free in {tmp_path}")
    assert "--shm-size" in found.remedy


def test_a_system_without_shared_memory_has_none(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench.doctor_probes, "SHARED_MEMORY", tmp_path / "none")
    assert judge("shared memory", PROBES["shared memory"]()).status == "absent"


def test_a_folder_of_weights_is_looked_into(judge: Judge, tmp_path: Path) -> None:
    for name in TIMM_NAMES:
        save_file({"one": torch.ones(1000).numpy()}, tmp_path / f"{name}.safetensors")
    folder = str(tmp_path)
    assert judge("weights", PROBES["weights"](folder), weights=folder).status == "ok"

    cut = tmp_path / f"{TIMM_NAMES[1]}.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    damaged = judge("weights", PROBES["weights"](folder), weights=folder)
    assert (damaged.status, damaged.found) == ("fault", f"not safetensors, or cut short: {cut}")

    cut.unlink()
    missing = judge("weights", PROBES["weights"](folder), weights=folder)
    assert (missing.status, missing.found) == ("fault", f"not in the folder {folder}: {TIMM_NAMES[1]}")


def test_random_weights_need_no_files(judge: Judge) -> None:
    assert judge("weights", weights="random").status == "ok"


def test_the_space_said_to_be_needed_is_what_the_paper_s_matrix_writes() -> None:
    with torch.device("meta"):
        gib = {name: state_bytes(build_model(name, "random", 300)) / 2**30 for name in MODELS}
    matrix = load_matrix("paper")
    cells = matrix.select([])
    own = sum(gib[str(cell.network)] for cell in cells if cell.recipe)
    frozen = sum(gib[name] for name in {cell.network for cell in cells if cell.network and not cell.recipe})
    exported = (1 + 1 / 2 + 1 / 4) * sum(gib.values())  # one cell of each network: fp32, fp16, int8
    written = len(matrix.protocols) * len(matrix.seeds) * (own + frozen + 0.4) + exported
    assert written + 0.5 < SPACE_GIB < written + 2


def state_bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def test_a_full_disk_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**30))
    found = judge("disk", PROBES["disk"](str(tmp_path / "not" / "yet")))
    assert (found.status, found.found) == ("fault", f"3.0 GiB free in {tmp_path}; 'run paper' writes {SPACE_GIB}")
    assert not (tmp_path / "not").exists()


def test_a_folder_that_cannot_be_written_is_a_fault(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = judge("disk", out=tmp_path / "file" / "results")
    assert (found.status, found.found) == ("fault", f"can't write to {tmp_path}/file: Not a directory")
    assert "--out" in found.remedy
