"""What ``bench.doctor`` wants to know and what can break, crash or hang on the way, so that it runs in child processes.

A child makes the probes that share an import of many seconds, and tells the facts of each as a line of JSON. This
module itself imports nothing heavy, and works where torch does not.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from fusion.cores import cpu_count
from fusion.text import one_line

LIMIT_S = 120.0
"""Seconds a child may take; torch alone takes half a minute from a slow network disk."""
GIB = 2**30
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
CGROUPS, OWN_CGROUPS, SHARED_MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/dev/shm")

Facts = dict[str, Any]
"""What a probe found; or ``failed`` alone, with the reason."""


def run_child(probes: dict[str, list[str]]) -> tuple[dict[str, Facts], str]:
    """Run probes, each with its arguments, in a child; return what each has told, and how the child ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from bench.doctor_probes import child; child()", json.dumps(probes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        told, noise = process.communicate(timeout=LIMIT_S)
        code = process.returncode
        ended = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = noise.decode(errors="replace").strip().rpartition("\n")[2]
        ended += f": {one_line(last)}" if last else ""
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with what it has started; Ctrl-C does not reach its session
        with suppress(subprocess.TimeoutExpired):  # a driver that hangs can keep it from dying
            process.communicate(timeout=5)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        told, ended = error.stdout or b"", f"hung: no answer within {LIMIT_S:g} s"
    lines = [line for line in told.decode().splitlines(keepends=True) if line.endswith("\n")]
    return {name: facts for line in lines for name, facts in json.loads(line).items()}, ended


def child() -> None:
    """Tell what each probe finds on the first stdout; what libraries print there, from C too, goes to stderr."""
    with os.fdopen(os.dup(1), "w") as told:
        os.dup2(2, 1)
        for name, arguments in json.loads(sys.argv[1]).items():
            told.write(json.dumps({name: facts_of(name, arguments)}) + "\n")
            told.flush()


def facts_of(name: str, arguments: list[str]) -> Facts:
    """Return what a probe finds, or how it failed."""
    try:
        return PROBES[name](*arguments)
    except Exception as error:
        return {"failed": one_line(f"{type(error).__name__}: {error}")}


# -- the probes ------------------------------------------------------------------------------------------------------


def _torch() -> Facts:
    import torch

    return {"version": torch.__version__, "cuda": torch.version.cuda}


def _torchvision() -> Facts:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    # Where its own library can't be loaded, torchvision says nothing until an operator is called.
    kept = torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist()
    number = torch.ops.torchvision._cuda_version()  # 13020 for CUDA 13.2, -1 without CUDA
    cuda = None if number < 0 else f"{number // 1000}.{number % 1000 // 10}"
    return {"version": torchvision.__version__, "cuda": cuda, "torch_cuda": torch.version.cuda, "right": kept == [0]}


def _weights(weights: str) -> Facts:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from safetensors import SafetensorError, safe_open

    from fusion.models.backbones import BACKBONES

    missing, damaged = [], []
    for name in (row.timm_name for row in BACKBONES.values()):
        if weights == "imagenet":
            path = try_to_load_from_cache(f"timm/{name}", "model.safetensors")  # asks no network
        else:
            path = f"{weights}/{name}.safetensors"
        if not isinstance(path, str) or not Path(path).is_file():
            missing.append(name)
            continue
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            damaged.append(path)
    where = f"the hub cache {HF_HUB_CACHE}" if weights == "imagenet" else f"the folder {weights}"
    return {"where": where, "count": len(BACKBONES), "missing": missing, "damaged": damaged}


def _gpu() -> Facts:
    import torch

    signs = [path for path in (shutil.which("nvidia-smi"), "/dev/nvidia0") if path and Path(path).exists()]
    with suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        signs.append("libcuda.so.1")
    facts: Facts = {"signs": signs, "cuda": torch.version.cuda, "gpus": [], "wrong": [], "error": ""}
    try:
        torch.cuda.init()
    except Exception as error:  # AssertionError without CUDA, RuntimeError without a driver or with one too old
        return facts | {"error": str(error)}
    for index in range(torch.cuda.device_count()):
        name, (free, total) = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)
        facts["gpus"].append(f"{name} ({free / GIB:.0f} of {total / GIB:.0f} GiB free)")
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        if not bool((ones @ ones == 64).all()):
            facts["wrong"].append(name)
    return facts


def _tf32() -> Facts:
    import torch

    from bench.environment import set_numerics

    gpu = torch.cuda.is_available()
    set_numerics(torch.device("cuda" if gpu else "cpu"))
    told = {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32}
    used = [what for what, allowed in told.items() if allowed]
    if gpu:  # TF32 has 10 bits of fraction, so it makes 1 of this
        value = torch.full((256, 256), 1 + 2.0**-12, device="cuda")
        one = torch.eye(256, device="cuda")
        convolved = torch.nn.functional.conv2d(value.reshape(1, 256, 16, 16), one.reshape(256, 256, 1, 1))
        for what, result in (("matmul", value @ one), ("convolution", convolved.reshape(256, 256))):
            used += [] if torch.allclose(result, value, rtol=0, atol=2.0**-14) else [f"{what} measured on the GPU"]
    return {"used": used, "measured": gpu}


def _nvml() -> Facts:
    """Take a sample as ``fusebench measure`` does."""
    from bench.machine_state import gpu_clock, gpu_handle

    if (handle := gpu_handle()) is None:
        return {"mhz": None}
    import pynvml

    mhz, _ = gpu_clock(handle)
    energy = True
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError_NotSupported:
        energy = False
    return {"mhz": mhz, "energy": energy}


def _triton() -> Facts:
    import triton

    target = None
    if _driver_has_gpu():  # the first question to its driver compiles C against Python.h and libcuda
        target = str(triton.runtime.driver.active.get_current_target().arch)
    return {"version": triton.__version__, "target": target}


def _dali() -> Facts:
    import io

    import numpy as np
    from nvidia import dali
    from PIL import Image

    grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    encoded = np.frombuffer(file.getvalue(), np.uint8)
    wrong, devices = [], {"CPU": "cpu"} | ({"GPU": "mixed"} if _driver_has_gpu() else {})
    for name, device in devices.items():
        pipeline = dali.Pipeline(batch_size=1, num_threads=1, device_id=None if name == "CPU" else 0)
        source = dali.fn.external_source(source=lambda: [encoded], batch=True)
        pipeline.set_outputs(dali.fn.decoders.image(source, device=device, output_type=dali.types.GRAY))
        pipeline.build()
        (images,) = pipeline.run()
        if not np.array_equal(np.asarray(images.as_cpu().at(0))[..., 0], grey):
            wrong.append(name)
    return {"version": dali.__version__, "devices": list(devices), "wrong": wrong}


def _session(provider: str) -> Facts:
    """Open a convolution with ``provider`` on top, as the module's list of providers proves nothing."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    from bench.providers import missing_library

    facts: Facts = {"version": onnxruntime.__version__, "offered": provider in onnxruntime.get_available_providers()}
    if not facts["offered"]:
        return facts
    image, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, side, side])
        for name, side in (("x", 3), ("y", 1))
    )
    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, [1, 1, 3, 3], [1.0] * 9)
    convolution = helper.make_node("Conv", ["x", "kernel"], ["y"], kernel_shape=[3, 3])
    graph = helper.make_graph([convolution], "probe", [image], [result], [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model, providers=list(dict.fromkeys([provider, CPU])))
    (nine,) = session.run(None, {"x": np.ones((1, 1, 3, 3), np.float32)})
    facts |= {"opened": session.get_providers()[0], "right": float(nine.item()) == 9.0, "missing": ""}
    if facts["opened"] != provider:
        facts["missing"] = missing_library("cuda" if provider == CUDA else "tensorrt")
    return facts


def _cores() -> Facts:
    """Tell the cores and the quota: those whose time this process may use, or None."""
    pairs = [text.split() for text in _cgroup("cpu.max")]  # version 2
    pairs += [list(pair) for pair in zip(_cgroup("cpu.cfs_quota_us"), _cgroup("cpu.cfs_period_us"), strict=True)]
    quotas = [int(quota) / int(period) for quota, period in pairs if quota not in ("max", "-1")]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cpu_count()))
    return {"cores": cores, "quota": min(quotas, default=None)}


def _memory() -> Facts:
    import psutil

    limits = [int(text) for name in ("memory.max", "memory.limit_in_bytes") for text in _cgroup(name) if text != "max"]
    return {"free": min([psutil.virtual_memory().available, *limits])}


def _cgroup(name: str) -> Iterator[str]:
    """Yield the content of file ``name`` of each control group this process is in, its own and those above."""
    lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines() if OWN_CGROUPS.is_file() else []
    for _, controllers, own in (line.split(":", 2) for line in lines):
        root = CGROUPS / controllers.removeprefix("name=")  # none in version 2
        folder = root / own.lstrip("/")
        for level in (folder, *folder.parents):
            if level.is_relative_to(root) and (level / name).is_file():
                yield (level / name).read_text(encoding="utf-8").strip()


def _shared_memory() -> Facts:
    there = SHARED_MEMORY.is_dir()
    return {"folder": str(SHARED_MEMORY), "free": shutil.disk_usage(SHARED_MEMORY).free if there else None}


def _disk(out: str) -> Facts:
    whole = Path(out).absolute()
    nearest = next(path for path in (whole, *whole.parents) if path.exists())
    facts = {"nearest": str(nearest), "free": shutil.disk_usage(nearest).free, "error": ""}
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"fusebench")
    except OSError as error:
        facts["error"] = error.strerror or str(error)
    return facts


def _driver_has_gpu() -> bool:
    """Ask the driver itself, without torch."""
    count = ctypes.c_int()
    with suppress(OSError):
        cuda = ctypes.CDLL("libcuda.so.1")
        return cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


CHILDREN: tuple[dict[str, Callable[..., Facts]], ...] = (
    {"torch": _torch, "torchvision": _torchvision, "weights": _weights, "gpu": _gpu, "tf32": _tf32, "nvml": _nvml},
    {"triton": _triton},
    {"dali": _dali},
    {provider: partial(_session, provider) for provider in (CPU, CUDA, TENSORRT)},
    {"cores": _cores, "memory": _memory, "shared memory": _shared_memory, "disk": _disk},
)
"""Probes by name, those of one child together; what is likelier to crash comes later."""
PROBES = {name: probe for group in CHILDREN for name, probe in group.items()}
