"""Augmenting a batch of 300 x 300 from an array on the device: the fused kernel on a GPU, the reference elsewhere.

The copy moves as many bytes as the kernel must, reading every grey value once and writing every pixel once: the ratio
of the two is the kernel's share of the bandwidth of a copy. A round on a GPU queues ``GPU_CALLS`` calls and waits for
the last of them, so that a kernel longer than its launch is timed without it; a batch of 30 may be shorter.
"""

import pytest
import torch

from bench.step import PRECISIONS
from fusion.loaders.spec import BatchSpec, augment_rows
from fusion.models import normalisation

SIZE = 300
ROUNDS = 10
GPU_CALLS = 50
NETWORKS = {1: "cnn17", 3: "resnet50"}
"""A network that takes so many channels."""

gpu_only = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
too_slow = pytest.mark.skipif(not torch.cuda.is_available(), reason="on the CPU 512 images take seconds")
of_all_channels = pytest.mark.parametrize("channels", list(NETWORKS))


def group(batch: int, channels: int, device: torch.device) -> str:
    calls = f", {GPU_CALLS} times" if device.type == "cuda" else ""
    return f"augmentation: {batch} images, {channels} channel(s){calls}"


@pytest.mark.parametrize("batch", [30, pytest.param(512, marks=[pytest.mark.gpu, too_slow])])
@of_all_channels
def test_augment(benchmark, timed, device, precision, batch, channels):
    benchmark.group = group(batch, channels, device)
    mean, std = normalisation(NETWORKS[channels])
    spec = BatchSpec(seed=0, mean=mean, std=std, device=device, dtype=PRECISIONS[precision])
    images_u8 = torch.randint(256, (batch, 1, SIZE, SIZE), dtype=torch.uint8, device=device)
    image, epoch = torch.randperm(batch, device=device), torch.zeros((), dtype=torch.int64, device=device)
    copy = torch.ones_like(image)
    calls = GPU_CALLS if device.type == "cuda" else 1
    pixels = timed(lambda: augment_rows(images_u8, image, copy, spec, epoch=epoch), rounds=ROUNDS, calls=calls)
    assert pixels.shape == (batch, channels, SIZE, SIZE)


@pytest.mark.parametrize("batch", [pytest.param(batch, marks=gpu_only) for batch in (30, 512)])
@of_all_channels
def test_copy_of_as_many_bytes(benchmark, timed, device, precision, batch, channels):
    benchmark.group = group(batch, channels, device)
    read_and_written = batch * SIZE * SIZE * (1 + channels * PRECISIONS[precision].itemsize)
    source = torch.zeros(read_and_written // 2, dtype=torch.uint8, device=device)  # a copy reads and writes each byte
    timed(source.clone, rounds=ROUNDS, calls=GPU_CALLS)
