"""What every loader is given, and the interface every loader has."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fusion.augment import Rows
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
    ranges: AugmentationRange = field(default_factory=AugmentationRange)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} need the same length, and std above 0")


class Loader(Protocol):
    """Turns rows into batches of pixels; the same row gives the same pixels, within a tolerance, in every loader."""

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield [B, C, S, S] float32 batches of ``rows`` in order; the last may be smaller.

        Args:
            rows: which images and which copies.
            batch_size: rows in a batch.
            epoch: number the augmentation is drawn with; 0 for ever under ``paper``.
        """
        ...
