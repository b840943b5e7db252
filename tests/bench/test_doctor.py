"""Each silent fault is put in place, in a child's import path where that can be, and is to be found under its name."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import bench.doctor
import bench.doctor_probes
import bench.environment
import bench.machine_state
from bench.doctor import CHECKS, GPU_PLATFORM, SPACE_GIB, Answer, Finding, Machine, examine
from bench.doctor_probes import CPU, CUDA, PROBES, TENSORRT, facts_of, run_child
from bench.matrix import load_matrix
from fusion.cores import cpu_count
from fusion.models import MODELS, build_model
from fusion.models.backbones import BACKBONES

ON_THE_MACHINE = {"cores", "memory", "shared memory", "disk"}
"""Checks of what the machine has to spare; a small one that runs the tests may well lack some."""
LINE = re.compile(r"(ok|FAULT|absent) +([\w ]+?)  +(\S.*)")
TIMM_NAMES = [row.timm_name for row in BACKBONES.values()]

needs_gpu_packages = pytest.mark.skipif(not GPU_PLATFORM, reason="onnxruntime-gpu and DALI are for Linux on x86-64")

Judge = Callable[..., Finding]
Called = tuple[int, list[dict[str, str]], str]
"""Exit code, the findings of --json, stdout."""


def findings_of(out: str) -> list[dict[str, str]]:
    """Return what ``doctor`` has printed as it writes it to --json."""
    *lines, _summary = out.splitlines()
    found: list[dict[str, str]] = []
    for line in lines:
        if line.startswith("        -> "):
            found[-1]["remedy"] = line.removeprefix("        -> ")
        else:
            match = LINE.fullmatch(line)
            assert match, line
            status, check, text = match.groups()
            found.append({"check": check, "status": status.lower(), "found": text, "remedy": ""})
    return found


@pytest.fixture(scope="module")
def call_really(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Called]:
    """Run ``python -m bench doctor`` without weights in the hub's cache; return exit code, findings and stdout."""

    def start(*arguments: str, **variables: str) -> Called:
        folder = tmp_path_factory.mktemp("doctor")
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "doctor", "--json", str(folder / "found.json"), *arguments],
            env={**os.environ, "HF_HOME": str(folder), "HF_HUB_CACHE": str(folder), "COLUMNS": "80", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr == ""
        return ended.returncode, json.loads((folder / "found.json").read_text())["findings"], ended.stdout

    return start


@pytest.fixture(scope="module")
def healthy(call_really: Callable[..., Called]) -> Called:
    return call_really()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """Make one check, with the facts its probe tells, or else with the probe's own."""

    def start(name: str, facts: dict[str, Any] | None = None, *, out: Path = tmp_path, weights: str = "x") -> Finding:
        monkeypatch.setattr(bench.doctor, "CHECKS", {name: CHECKS[name]})
        if facts is not None:
            monkeypatch.setattr(Machine, "ask", lambda *_: facts)
        (found,) = examine(out, weights)
        assert bool(found.remedy) == (found.status == "fault")
        return found

    return start


def write_module(root: Path, name: str, code: str) -> Path:
    """Write a package that stands before the real one in a child whose PYTHONPATH is ``root``."""
    folder = root
    for part in name.split("."):
        folder /= part
        folder.mkdir()
        (folder / "__init__.py").touch()  # or the real package of that name would win
    (folder / "__init__.py").write_text(code)
    return root


def write_metadata(root: Path, name: str, version: str, *lines: str, module: str = "") -> Path:
    """Write what pip leaves behind of an installed package."""
    folder = root / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines)
    (folder / "METADATA").write_text("\n".join(lines))
    (folder / "top_level.txt").write_text(module or name)
    return root


# -- the whole call --------------------------------------------------------------------------------------------------


def test_a_healthy_machine_lacks_nothing_but_the_weights(healthy: Called) -> None:
    code, findings, _ = healthy
    assert [one["check"] for one in findings] == list(CHECKS)
    assert {one["check"] for one in findings if one["status"] == "fault"} - ON_THE_MACHINE == {"weights"}
    assert code == 1


def test_the_missing_weights_are_named_with_where_they_come_from(healthy: Called) -> None:
    (weights,) = [one for one in healthy[1] if one["check"] == "weights"]
    assert all(name in weights["found"] for name in TIMM_NAMES)
    assert all(part in weights["remedy"] for part in ("model.safetensors", "timm/NAME", "--weights FOLDER", "random"))


def test_json_holds_what_is_printed(healthy: Called) -> None:
    _, findings, out = healthy
    assert findings_of(out) == findings
    faults = sum(one["status"] == "fault" for one in findings)
    assert out.splitlines()[-1] == f"{len(findings)} checks, {faults} at fault"


def test_broken_libraries_are_named_and_all_else_is_still_examined(
    call_really: Callable[..., Called], tmp_path: Path
) -> None:
    write_module(tmp_path, "torch", "raise ImportError('libcudart.so.99: cannot open shared object file')")
    write_module(tmp_path, "nvidia.dali", "import os, sys\nsys.stderr.write('no [bold]luck\\n')\nos.abort()")
    write_module(tmp_path, "onnxruntime", "raise ImportError('libonnx.so: cannot open shared object file')")
    code, findings, out = call_really("--weights", "random", PYTHONPATH=str(tmp_path))
    found = {one["check"]: one for one in findings}
    assert code == 1
    assert findings_of(out) == findings
    for name in ("torch", "torchvision", "GPU", "TF32"):
        assert found[name]["status"] == "fault"
        assert "libcudart.so.99" in found[name]["found"]
    assert "pip install" in found["torch"]["remedy"]
    if GPU_PLATFORM:
        assert found["DALI"]["status"] == "fault"
        assert found["DALI"]["found"] == "crashed with SIGABRT: no [bold]luck"
    assert "libonnx.so" in found["onnxruntime CPU"]["found"]
    assert {found[name]["status"] for name in ("packages", "weights", "onnxruntime packages")} == {"ok"}


def test_no_fault_is_exit_code_0(call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.doctor, "CHECKS", {"this": (lambda _: Answer("ok", "[red]well"), "")})
    assert call("doctor") == (0, "ok      this  [red]well\n1 checks, 0 at fault\n", "")


def test_a_json_file_that_cannot_be_written_is_said(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench.doctor, "CHECKS", {})
    line = refusal("doctor", "--json", tmp_path / "nowhere" / "found.json")
    assert f"can't write {tmp_path}/nowhere/found.json" in line


# -- checks and probes that fail themselves --------------------------------------------------------------------------


def test_a_check_that_raises_is_a_fault_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = {"bad": (lambda _: 1 // 0, "mend it"), "good": (lambda _: Answer("ok", "well"), "")}
    monkeypatch.setattr(bench.doctor, "CHECKS", checks)
    bad, good = examine(tmp_path, "random")
    assert (bad.check, bad.status, bad.remedy) == ("bad", "fault", "mend it")
    assert bad.found == "the check itself failed: ZeroDivisionError: integer division or modulo by zero"
    assert good.status == "ok"


def test_a_probe_that_hangs_is_cut_off_with_what_it_has_started(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_another = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    write_module(tmp_path, "triton", f"import subprocess, time\n{start_another}\ntime.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bench.doctor_probes, "LIMIT_S", 1.5)
    start = time.monotonic()
    found = judge("Triton")
    assert time.monotonic() - start < 10
    assert (found.status, found.found) == ("fault", "hung: no answer within 1.5 s")
    grandchild = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_what_a_child_told_before_it_crashed_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, "triton", "import os\nos._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, ended = run_child({"disk": [str(tmp_path)], "triton": []})
    assert set(told) == {"disk"}
    assert ended == "ended with exit code 7"


def test_what_libraries_print_is_kept_from_the_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, "triton", "import os\nprint('noise')\nos.system('echo noise')\n__version__ = '1'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, _ = run_child({"triton": []})
    assert set(told) == {"triton"}


# -- packages --------------------------------------------------------------------------------------------------------


def test_a_package_that_is_too_old_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "timm", "0.4.12")))
    found = judge("packages")
    assert (found.status, found.found) == ("fault", "timm 0.4.12")
    assert found.remedy == "pip install --upgrade 'timm>=1.0.20'"


@needs_gpu_packages
def test_a_missing_package_of_an_extra_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extra = ["Provides-Extra: cuda", 'Requires-Dist: nvidia-nowhere~=10.0; extra == "cuda"']
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "onnxruntime-gpu", "1.99", *extra, module="onnxruntime")))
    found = judge("packages")
    assert (found.status, found.found) == ("fault", "nvidia-nowhere missing")


# -- torch, torchvision, the GPU, TF32 -------------------------------------------------------------------------------


def test_a_torchvision_whose_operators_do_not_load_is_a_fault(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_module(tmp_path, "torch", "")
    write_module(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bench.doctor, "CHILDREN", (("torchvision",),))
    found = judge("torchvision")
    assert (found.status, found.found) == ("fault", "RuntimeError: operator torchvision::nms does not exist")
    assert "both from the same index" in found.remedy


def test_torchvision_for_another_cuda_is_a_fault(judge: Judge) -> None:
    facts = {"version": "0.29+cpu", "cuda": None, "torch_cuda": "13.2", "right": True}
    found = judge("torchvision", facts)
    assert (found.status, found.found) == ("fault", "0.29+cpu is built for the CPU only, torch is built for CUDA 13.2")


def test_torchvision_for_another_torch_is_a_fault(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "torchvision", "0.99", "Requires-Dist: torch==2.9.1")))
    found = judge("torchvision", {"version": "0.99", "cuda": None, "torch_cuda": None, "right": True})
    assert found.status == "fault"
    assert found.found.startswith("0.99 needs torch ==2.9.1, and torch is ")


def test_the_probe_of_torchvision_reads_the_cuda_of_both() -> None:
    facts = PROBES["torchvision"]()
    assert facts["cuda"] == facts["torch_cuda"] == torch.version.cuda
    assert facts["right"] is True


NO_GPU = {"signs": [], "cuda": "13.2", "gpus": [], "wrong": [], "error": "Found no NVIDIA driver on your system."}
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12020)."


def test_no_driver_is_absent(judge: Judge) -> None:
    assert judge("GPU", NO_GPU).status == "absent"


@pytest.mark.parametrize(
    ("facts", "words", "remedy"),
    [
        ({"signs": ["libcuda.so.1"], "error": OLD_DRIVER}, OLD_DRIVER, "NVIDIA driver for CUDA 13.2"),
        ({"signs": ["/usr/bin/nvidia-smi"], "cuda": None}, "/usr/bin/nvidia-smi found", "a torch built for CUDA"),
        ({"gpus": ["H100"], "wrong": ["H100"]}, "H100 computes a wrong result", "pytorch.org"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_fault(judge: Judge, facts: dict[str, Any], words: str, remedy: str) -> None:
    found = judge("GPU", NO_GPU | facts)
    assert found.status == "fault"
    assert words in found.found
    assert remedy in found.remedy


def test_a_hidden_gpu_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = judge("GPU", NO_GPU | {"signs": ["/dev/nvidia0"]})
    assert found.status == "fault"
    assert found.remedy == "CUDA_VISIBLE_DEVICES='' hides GPUs: unset it"


def test_a_gpu_without_kernels_for_it_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = "AcceleratorError: CUDA error: no kernel image is available for execution on the device"
    monkeypatch.setattr(bench.doctor, "run_child", lambda _: ({"gpu": {"failed": failed}}, ""))
    found = judge("GPU")
    assert (found.status, found.found) == ("fault", failed)
    assert "for this GPU" in found.remedy


def test_tf32_forced_from_outside_is_a_fault(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    found = judge("TF32", {"used": [], "measured": True})
    assert found.status == "fault"
    assert "NVIDIA_TF32_OVERRIDE=1" in found.found
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert judge("TF32", {"used": [], "measured": True}).status == "ok"


@pytest.fixture
def numerics() -> Iterator[None]:
    """Put back what torch is told about numerics; monkeypatch can't, as these are no ordinary attributes."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.mark.usefixtures("numerics")
def test_the_defaults_of_tf32_would_be_caught(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    assert PROBES["tf32"]()["used"] == []
    torch.backends.cudnn.allow_tf32 = True
    monkeypatch.setattr(bench.environment, "set_numerics", lambda _: None)
    found = judge("TF32", PROBES["tf32"]())
    assert found.status == "fault"
    assert found.found.startswith("used where fp32 is said: convolution")


# -- NVML ------------------------------------------------------------------------------------------------------------


class NotSupportedError(Exception):
    pass


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def judge_nvml(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Finding]]:
    """Make the check on a machine that has a GPU, with functions of NVML replaced."""

    def start(**changed: Callable[..., Any]) -> Finding:
        names = ("NVML_CLOCK_SM", "nvmlClocksEventReasonGpuIdle", "nvmlClocksEventReasonApplicationsClocksSetting")
        library = SimpleNamespace(
            **dict.fromkeys(names, 0),
            NVMLError_NotSupported=NotSupportedError,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID={"GPU-1234": "handle"}.__getitem__,
            nvmlDeviceGetClockInfo=lambda *_: 1980,
            nvmlDeviceGetCurrentClocksEventReasons=lambda _: 0,
            nvmlDeviceGetTotalEnergyConsumption=lambda _: 1,
        )
        vars(library).update(changed)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234"))
        monkeypatch.setattr(bench.doctor, "CHILDREN", (("nvml",),))
        monkeypatch.setattr(bench.doctor, "run_child", lambda _: ({"nvml": facts_of("nvml", [])}, ""))
        bench.machine_state.gpu_handle.cache_clear()
        return judge("NVML")

    yield start
    bench.machine_state.gpu_handle.cache_clear()


def test_nvml_that_answers_is_ok(judge_nvml: Callable[..., Finding]) -> None:
    found = judge_nvml()
    assert (found.status, found.found) == ("ok", "tells the GPU's clock (1980 MHz), and that it counts its energy")


def test_a_gpu_that_does_not_count_its_energy_is_told_and_no_fault(judge_nvml: Callable[..., Finding]) -> None:
    found = judge_nvml(nvmlDeviceGetTotalEnergyConsumption=lambda _: fail(NotSupportedError()))
    assert found.status == "ok"
    assert "does not count its energy" in found.found


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetClockInfo"])
def test_a_gpu_whose_nvml_does_not_answer_is_a_fault(judge_nvml: Callable[..., Finding], function: str) -> None:
    found = judge_nvml(**{function: lambda *_: fail(RuntimeError("NVML Shared Library Not Found"))})
    assert (found.status, found.found) == ("fault", "RuntimeError: NVML Shared Library Not Found")
    assert "pip install nvidia-ml-py" in found.remedy


def test_without_a_gpu_nvml_is_absent(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.machine_state, "gpu_handle", lambda: None)
    assert judge("NVML", PROBES["nvml"]()).status == "absent"


# -- Triton, DALI, ONNX Runtime --------------------------------------------------------------------------------------


@needs_gpu_packages
@pytest.mark.parametrize(("check", "module"), [("Triton", "triton"), ("DALI", "nvidia.dali")])
def test_a_library_that_does_not_import_is_a_fault(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: str, module: str
) -> None:
    write_module(tmp_path, module, "raise ImportError('libnvjpeg.so.99: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = judge(check)
    assert found.status == "fault"
    assert found.found == "ImportError: libnvjpeg.so.99: cannot open shared object file"
    assert "pip install" in found.remedy


@needs_gpu_packages
def test_dali_that_decodes_wrongly_is_a_fault(judge: Judge) -> None:
    found = judge("DALI", {"version": "2.4", "devices": ["CPU", "GPU"], "wrong": ["GPU"]})
    assert (found.status, found.found) == ("fault", "2.4 decodes a PNG wrongly on the GPU")


@needs_gpu_packages
def test_both_packages_of_onnxruntime_are_a_fault(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "onnxruntime", "1.20.0")))
    found = judge("onnxruntime packages")
    assert found.status == "fault"
    assert found.found.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert found.remedy == (
        "pip uninstall --yes onnxruntime onnxruntime-gpu; pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


OPENED = {"version": "1.31", "offered": True, "opened": CUDA, "right": True, "missing": ""}


@needs_gpu_packages
@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({}, "ok", "a session opened with it"),
        ({"opened": CPU, "missing": "the library libcuda.so.1 is missing"}, "absent", "no NVIDIA driver"),
        ({"opened": CPU, "missing": "the library libcurand.so.10 is missing"}, "fault", "libcurand.so.10 is missing: "),
        ({"opened": CPU}, "fault", f"asked for {CUDA}, a session opened {CPU}"),
        ({"offered": False}, "fault", "the package without CUDA"),
        ({"right": False}, "fault", "wrong convolution"),
    ],
)
def test_the_cuda_provider_is_proven_by_a_session(judge: Judge, facts: dict[str, Any], status: str, words: str) -> None:
    found = judge("onnxruntime CUDA", OPENED | facts)
    assert found.status == status
    assert words in found.found


def test_tensorrt_is_never_a_fault(judge: Judge) -> None:
    missing = {"opened": CPU, "missing": "the library libnvinfer.so.10 is missing"}
    assert judge("onnxruntime TensorRT", OPENED | missing).status == "absent"
    if GPU_PLATFORM:
        assert judge("onnxruntime TensorRT", OPENED | {"opened": TENSORRT}).status == "ok"


# -- cores, memory, weights, disk ------------------------------------------------------------------------------------


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
    own = sum(gib[cell.network] for cell in cells if cell.recipe)
    frozen = sum(gib[name] for name in {cell.network for cell in cells if not cell.recipe})
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
