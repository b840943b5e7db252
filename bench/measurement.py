"""One figure of the data path, and the rows it is measured on."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusion.augment import Rows
from fusion.prepared import Prepared

Advance = Callable[[str, float, float], None]
"""Called with the part under way, and how much is done of how much there is of it."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of what ``fusebench data-path`` writes."""

    quantity: str
    """throughput; kernel_time, kernel_floor, copy_bandwidth; step_time, static_step_time, static_share, setup_time."""
    loader: str = ""
    stage: str = ""
    network: str = ""
    step: str = ""
    batch: int
    value: float
    """Median of the rounds."""
    unit: str
    low: float
    """Lowest of the rounds."""
    high: float
    n: int
    """Rounds."""


def summarised(values: Sequence[float], *, quantity: str, batch: int, unit: str, **where: str) -> Measurement:
    """Return the median and the range of the rounds ``values``."""
    middle = statistics.median(values)
    return Measurement(
        quantity=quantity,
        batch=batch,
        value=middle,
        unit=unit,
        low=min(values),
        high=max(values),
        n=len(values),
        **where,
    )


def augmented_rows(prepared: Prepared, count: int) -> Rows:
    """Return ``count`` augmented rows: the images in random order, again and again, a new copy each time.

    A copy is but a counter, so they are there in sets, too, that are trained without copies.
    """
    images = len(prepared.images_u8)
    number = np.arange(count)
    return Rows(np.random.default_rng(0).permutation(images)[number % images], 1 + number // images)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds ``work`` takes, until the device has finished it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
