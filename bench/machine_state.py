"""What a machine does beside the work that is timed: clocks held back, cores taken by other guests, energy."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import psutil
import torch

from bench.engine_rows import Found

ENERGY_S = 1.0
"""Seconds of work for one reading of the GPU's energy counter, which moves a few times a second."""


@cache
def gpu_handle() -> Any:
    """Return NVML's handle of the GPU torch uses, or None where torch sees none.

    Raises:
        ImportError, pynvml.NVMLError: nvidia-ml-py or NVML does not work here.
    """
    if not torch.cuda.is_available():
        return None
    import pynvml

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def gpu_clock(handle: Any) -> tuple[float, bool]:
    """Return the GPU's clock in MHz, and whether it is held back for heat or power; raises as ``gpu_handle``."""
    import pynvml

    idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    return mhz, bool(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & ~idle)


class StateRecorder:
    """Samples the machine between rounds of timing."""

    def __init__(self) -> None:
        self.cpu_before = psutil.cpu_times()
        self.mhz: list[float] = []
        self.throttled: list[bool] = []

    def sample(self) -> None:
        """Note the GPU's clock, where there is one that tells it; why not is for ``doctor`` to say."""
        with suppress(Exception):  # no timing is to be lost for it
            if (handle := gpu_handle()) is not None:
                mhz, throttled = gpu_clock(handle)
                self.mhz.append(mhz)
                self.throttled.append(throttled)

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
    with suppress(Exception):  # no timing is to be lost for it; ``doctor`` says why
        handle = gpu_handle()
        if handle is None:
            return []
        import pynvml

        before_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < ENERGY_S:
            call()
            synchronise()
            calls += 1
        joules = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before_mj) / 1000
        return [Found(metric="energy_j", value=joules / (calls * batch), n=calls)]
    return []
