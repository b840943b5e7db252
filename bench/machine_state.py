"""What a machine does beside the work that is timed: clocks held back, cores taken by other guests, energy."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import psutil
import torch

from bench.engine_rows import Found

ENERGY_S = 1.0
"""Seconds of work for one reading of the GPU's energy counter, which moves a few times a second."""


@cache
def gpu_handle() -> Any:
    """Return NVML's handle of the GPU torch uses; None where there is none (``doctor`` tells why)."""
    if not torch.cuda.is_available() or find_spec("pynvml") is None:
        return None
    import pynvml

    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None


class StateRecorder:
    """Samples the machine between rounds of timing."""

    def __init__(self) -> None:
        self.cpu_before = psutil.cpu_times()
        self.mhz: list[float] = []
        self.throttled: list[bool] = []

    def sample(self) -> None:
        """Note the GPU's clock, and whether it is held back for heat or power."""
        handle = gpu_handle()
        if handle is None:
            return
        import pynvml

        idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
        with suppress(pynvml.NVMLError):  # virtual GPUs tell neither
            self.mhz.append(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
            self.throttled.append(bool(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & ~idle))

    def found(self, device: str) -> list[Found]:
        """Return what concerns an engine on ``device``."""
        if device == "cuda" and self.throttled:
            return [
                Found(metric="gpu_mhz", value=float(np.mean(self.mhz)), n=len(self.mhz)),
                Found(metric="gpu_throttled", value=float(np.mean(self.throttled)), n=len(self.throttled)),
            ]
        now, before = psutil.cpu_times(), self.cpu_before
        total = sum(now) - sum(before)
        if device == "cuda" or not hasattr(now, "steal") or total <= 0:
            return []
        return [Found(metric="cpu_stolen", value=(now.steal - before.steal) / total, n=1)]


def energy_per_image(call: Callable[[], object], synchronise: Callable[[], None], batch: int) -> list[Found]:
    """Return the joules the GPU takes for one image, idle power included, or nothing where it does not count them."""
    handle = gpu_handle()
    if handle is None:
        return []
    import pynvml

    try:
        before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < ENERGY_S:
        call()
        synchronise()
        calls += 1
    joules = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before) / 1000
    return [Found(metric="energy_j", value=joules / (calls * batch), n=calls)]
