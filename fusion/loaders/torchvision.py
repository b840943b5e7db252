"""The baseline: a DataLoader whose workers decode, resize and augment one file after the other with torchvision."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from fusion.augment import Rows
from fusion.decode import decode_torchvision
from fusion.errors import UserError
from fusion.images import UnreadableImageError
from fusion.loaders.spec import BatchSpec
from fusion.prepared import Prepared
from kernels.augment_reference import draw_parameters, standard_normal

WORKERS = 2

Key = tuple[int, int, int]
"""Image, copy and epoch of a row."""


class TorchvisionLoader:
    """Serves batches from ``WORKERS`` processes that stay alive between epochs."""

    def __init__(self, prepared: Prepared, spec: BatchSpec) -> None:
        self.spec = spec
        self.sampler = RowSampler()
        self.loader = start_workers(RowDataset(prepared.files(), prepared.image_size, spec), self.sampler, spec.device)

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of ``rows``; see ``Loader``.

        Raises:
            UserError: a file can't be read.
        """
        self.sampler.serve(rows, batch_size, epoch)
        with naming_files():
            for batch in self.loader:
                images = batch.to(self.spec.device, self.spec.dtype, non_blocking=True)
                yield images.contiguous(memory_format=torch.channels_last)


@contextmanager
def naming_files() -> Iterator[None]:
    """Turn the traceback of a worker that can't read a file into one line.

    Raises:
        UserError: in the place of ``UnreadableImageError``.
    """
    try:
        yield
    except UnreadableImageError as error:  # torch puts the worker's traceback before its message
        reason = str(error).strip().rpartition(f"{UnreadableImageError.__name__}: ")[2]
        raise UserError(f"{reason}; choose the loader 'resident'") from None


def start_workers(dataset: Dataset[Tensor], sampler: Sampler[list[Key]], device: torch.device) -> DataLoader[Tensor]:
    """Return a DataLoader with ``WORKERS`` processes, which start at its first epoch."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=WORKERS,
        multiprocessing_context="forkserver",  # a fork would copy the threads' locks of DALI and OpenMP
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        worker_init_fn=partial(_end_with, os.getpid()),
    )


def _end_with(process: int, _worker: int) -> None:
    """End this worker soon after ``process``, which a kill gives no time to end its workers; its parent is another."""

    def watch() -> None:
        while psutil.pid_exists(process):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class RowSampler(Sampler[list[Key]]):
    """Hands the batches of the epoch under way to the workers."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def serve(self, rows: Rows, batch_size: int, epoch: int) -> None:
        """Set the rows of the next epoch."""
        keys = [(image, copy, epoch) for image, copy in zip(rows.image.tolist(), rows.copy.tolist(), strict=True)]
        self.keys = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class RowDataset(Dataset[Tensor]):
    """Makes the [C, S, S] float32 pixels of one row from its file."""

    def __init__(self, files: list[Path], size: int, spec: BatchSpec) -> None:
        self.files, self.size, self.spec = files, size, spec

    def __getitem__(self, key: Key) -> Tensor:
        image, copy, epoch = key
        spec, size = self.spec, self.size
        try:
            decoded = decode_torchvision(self.files[image], size)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{self.files[image]} can't be streamed: {error}") from None
        pixels = torch.from_numpy(decoded).float() / 255.0
        if copy > 0:
            row = torch.tensor([image]), torch.tensor([copy])
            parameters = draw_parameters(spec.ranges, spec.seed, *row, epoch)
            if parameters.flip_x:
                pixels = tv.horizontal_flip(pixels)
            if parameters.flip_y:
                pixels = tv.vertical_flip(pixels)
            pixels = tv.affine(
                pixels,
                angle=-float(parameters.angle_degrees),
                translate=[0, 0],
                scale=float(parameters.zoom),
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.BILINEAR,
            )
            noise = standard_normal(spec.seed, *row, epoch, size, size)
            pixels = (pixels + parameters.noise_sigma * noise).clamp(0.0, 1.0)
        return tv.normalize(pixels.expand(len(spec.mean), -1, -1), list(spec.mean), list(spec.std))
