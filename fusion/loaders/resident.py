"""The prepared array lies on the device; every batch is one call of the augmentation there."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fusion.augment import Rows
from fusion.loaders.spec import BatchSpec, augment_rows
from fusion.prepared import Prepared


class ResidentLoader:
    """Serves batches from the whole uint8 array held in the device's memory."""

    def __init__(self, prepared: Prepared, spec: BatchSpec) -> None:
        self.spec = spec
        self.images_u8 = _on_device(prepared, spec.device)

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of ``rows``; see ``Loader``."""
        image = torch.from_numpy(rows.image).to(self.spec.device)
        copy = torch.from_numpy(rows.copy).to(self.spec.device)
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            yield self.batch(image[part], copy[part], epoch=epoch)

    def batch(self, image: Tensor, copy: Tensor, *, epoch: int | Tensor) -> Tensor:
        """Return the [R, C, S, S] pixels of rows named on the device, without the host.

        Args:
            image: [R] int64, which image each row shows.
            copy: [R] int64, which copy of it.
            epoch: number the augmentation is drawn with, or a tensor of it on the device.
        """
        return augment_rows(self.images_u8, image, copy, self.spec, epoch=epoch)


@lru_cache(maxsize=1)
def _on_device(prepared: Prepared, device: torch.device) -> Tensor:
    """Return the whole array on the device; the cells of a run share it."""
    return torch.from_numpy(np.array(prepared.images_u8)).to(device)
