"""How near the augmentation comes to the time its bytes take to be copied."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.measurement import Advance, Measurement, augmented_rows, summarised, timed
from fusion.loaders import BatchSpec, ResidentLoader
from fusion.prepared import Prepared

KERNEL_BATCHES = (30, 512)
KERNEL_LAUNCHES = 20
COPIED_MIB = {"cuda": 1024, "cpu": 128}
"""Size of the copy that bandwidth is measured with: far larger than the caches."""


def measure_kernel(prepared: Prepared, spec: BatchSpec, *, rounds: int, advance: Advance) -> list[Measurement]:
    """Return how long the augmentation of a batch takes, and how long copying its bytes would.

    The floor counts each image read once and each output written once. On a GPU the time is that of the device,
    ``KERNEL_LAUNCHES`` launches in one CUDA graph; off the GPU it is that of the reference.
    """
    loader, size = ResidentLoader(prepared, spec), prepared.image_size
    bandwidths = _copy_bandwidths(spec.device, rounds)
    epoch = torch.zeros((), dtype=torch.int64, device=spec.device)  # as in training: a number would be one more kernel
    found = [
        summarised([one / 1e9 for one in bandwidths], quantity="copy_bandwidth", batch=0, unit="GB/s"),
    ]
    for done, batch in enumerate(KERNEL_BATCHES):
        advance("kernel", done, len(KERNEL_BATCHES))
        rows = augmented_rows(prepared, batch)
        image, copy = (torch.from_numpy(keys).to(spec.device) for keys in (rows.image, rows.copy))
        seconds = _kernel_seconds(lambda: loader.batch(image, copy, epoch=epoch), spec.device, rounds)  # noqa: B023
        moved = batch * size * size * (1 + len(spec.mean) * spec.dtype.itemsize)
        floors = [moved / bandwidth for bandwidth in bandwidths]
        for quantity, values in (("kernel_time", seconds), ("kernel_floor", floors)):
            found.append(summarised([1e6 * one for one in values], quantity=quantity, batch=batch, unit="us"))
    advance("kernel", len(KERNEL_BATCHES), len(KERNEL_BATCHES))
    return found


def _copy_bandwidths(device: torch.device, rounds: int) -> list[float]:
    """Return the bytes read and written per second by copies on the device, one figure for each round."""
    source = torch.zeros(COPIED_MIB[device.type] * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return [2 * source.numel() / one for one in _kernel_seconds(lambda: target.copy_(source), device, rounds)]


def _kernel_seconds(work: Callable[[], Tensor], device: torch.device, rounds: int) -> list[float]:
    """Return the seconds of one call of ``work`` in each round."""
    work()
    if device.type != "cuda":
        return [timed(work, device) for _ in range(rounds)]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [work() for _ in range(KERNEL_LAUNCHES)]
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    seconds = []
    for _ in range(rounds):
        graph.replay()  # the device is busy while the host launches what is timed
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1000 / len(kept))
    return seconds
