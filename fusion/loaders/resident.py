"""The prepared array lies on the device; every batch is one call of the augmentation there."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fusion.augment import Rows
from fusion.loaders.spec import BatchSpec
from fusion.prepare import Prepared
from kernels.augment_reference import augment


class ResidentLoader:
    """Serves batches from the whole uint8 array held in the device's memory."""

    def __init__(self, prepared: Prepared, spec: BatchSpec) -> None:
        self.spec = spec
        self.images_u8 = torch.from_numpy(np.array(prepared.images_u8)).to(spec.device)

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of ``rows``; see ``Loader``."""
        spec = self.spec
        image = torch.from_numpy(rows.image).to(spec.device)
        copy = torch.from_numpy(rows.copy).to(spec.device)
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            yield augment(
                self.images_u8,
                image[part],
                copy[part],
                seed=spec.seed,
                epoch=epoch,
                ranges=spec.ranges,
                mean=spec.mean,
                std=spec.std,
            )
