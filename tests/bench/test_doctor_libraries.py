"""Each silent fault of a library or of the GPU is put in place and is to be found under its name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from doctor_faults import Judge, needs_gpu_packages, write_metadata, write_module

import bench.doctor
import bench.environment
import bench.machine_state
from bench.doctor import GPU_PLATFORM, Finding
from bench.doctor_probes import CPU, CUDA, PROBES, TENSORRT, facts_of

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
