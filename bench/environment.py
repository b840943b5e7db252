"""What a number was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.engine_rows import machine_name as machine_name  # lives where no torch is needed
from fusion.cores import cpu_count

PACKAGES = (
    *("fusebench", "torch", "torchvision", "timm", "triton", "nvidia-dali-cuda130", "scikit-learn", "numpy", "scipy"),
    *("pandas", "pillow", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"),
)


def set_numerics(device: torch.device) -> None:
    """Set what torch leaves to defaults: no TF32 where fp32 is said, and measured convolution algorithms on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = device.type == "cuda"


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return machine, software and numeric settings as plain data; nothing in it changes from one call to the next."""
    gpu: dict[str, Any] | None = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = {
            "name": properties.name,
            "memory_mib": properties.total_memory // 2**20,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {
        "device": device.type,
        "gpu": gpu,
        "cpu": _cpu_name(),
        "cpu_cores": cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
