"""What every loader is given, the interface every loader has, and the kernel that makes the pixels of a batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fusion.augment import Rows
from fusion.errors import UserError
from kernels import augment_reference
from kernels.augment_reference import AugmentationRange


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """How a row becomes pixels.

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, or a standard deviation is not positive.
    """

    seed: int
    """Seed of the augmentation."""
    mean: tuple[float, ...]
    """Grey mean of each output channel, in 0..1; its length is the number of channels."""
    std: tuple[float, ...]
    """Grey standard deviation of each output channel."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    """Type of the batches; all arithmetic is float32."""
    ranges: AugmentationRange = field(default_factory=AugmentationRange)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} need the same length, and std above 0")


class Loader(Protocol):
    """Turns rows into batches of pixels; the same row gives the same pixels, within a tolerance, in every loader."""

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield [B, C, S, S] batches of ``rows`` in order, of the spec's dtype; the last may be smaller.

        A shard of an epoch, for several readers, is ``rows[k::n]``.

        Args:
            rows: which images and which copies.
            batch_size: rows in a batch.
            epoch: number the augmentation is drawn with; 0 for ever under ``paper``.
        """
        ...


def augment_rows(
    images_u8: Tensor,
    image: Tensor,
    copy: Tensor,
    spec: BatchSpec,
    *,
    epoch: int | Tensor,
    position: Tensor | None = None,
) -> Tensor:
    """Return the pixels of rows: by the fused kernel on a GPU, by the plain reference elsewhere.

    Args:
        images_u8: [N, 1, S, S] uint8 on the spec's device.
        image: [R] int64, which image each row shows.
        copy: [R] int64, which copy of it.
        spec: how a row becomes pixels.
        epoch: number the augmentation is drawn with, or a tensor of it on the device.
        position: [R] int64, where each image lies in ``images_u8``; None where that is ``image``.

    Raises:
        UserError: Triton, which the GPU needs, is not installed.
    """
    augment = augment_reference.augment
    if images_u8.is_cuda:
        try:
            from kernels.augment import augment  # needs Triton
        except ImportError as error:
            raise UserError(f"the GPU path needs Triton ({error}): pip install triton, or choose the cpu") from None
    return augment(
        images_u8,
        image,
        copy,
        seed=spec.seed,
        epoch=epoch,
        ranges=spec.ranges,
        mean=spec.mean,
        std=spec.std,
        dtype=spec.dtype,
        position=position,
    )
