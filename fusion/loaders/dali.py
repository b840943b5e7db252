"""Streams the image files every epoch through a DALI pipeline: for sets larger than the device's memory.

DALI reads and decodes, and on a GPU resizes, ahead of the training; on the CPU torchvision resizes, as in
``fusion.prepare``. Augmentation is the kernel of the resident loader, so a row's pixels are the same wherever the
files were prepared the same way.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.augment import Rows
from fusion.cores import cpu_count
from fusion.decode import HAVE_DALI, dali_decode, dali_resize, resize_u8
from fusion.errors import UserError
from fusion.images import UnreadableImageError, read_grey_u8
from fusion.loaders.spec import BatchSpec, augment_rows
from fusion.prepared import Prepared

if HAVE_DALI:
    from nvidia.dali import fn, pipeline_def

AHEAD = 2
"""Batches that DALI prepares before they are asked for."""


class DaliLoader:
    """Serves batches decoded from the files; nothing but the batches in flight is held in memory.

    Raises:
        UserError: DALI is not installed, or a file is gone.
    """

    def __init__(self, prepared: Prepared, spec: BatchSpec) -> None:
        if not HAVE_DALI:
            raise UserError("loader 'dali' needs DALI (Linux on x86-64 only); choose 'resident' or 'torchvision'")
        self.size = prepared.image_size
        self.spec = spec
        self.source = PathSource(prepared.files())
        self.pipeline: Any = None
        self.under_way = False

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of ``rows``; see ``Loader``.

        Raises:
            UserError: DALI can't read or decode a file.
        """
        image = torch.from_numpy(rows.image).to(self.spec.device)
        copy = torch.from_numpy(rows.copy).to(self.spec.device)
        reading: deque[tuple[Tensor, Any]] = deque()
        start = 0
        try:
            for images_u8 in self.images_u8(rows, batch_size):
                part = slice(start, start + len(images_u8))
                position = torch.arange(len(images_u8), device=self.spec.device)
                batch = augment_rows(images_u8, image[part], copy[part], self.spec, epoch=epoch, position=position)
                if images_u8.is_cuda:
                    reading.append((images_u8, torch.cuda.current_stream().record_event()))
                    if len(reading) > 1:
                        _release(reading)
                yield batch
                start += len(images_u8)
        finally:  # also of an epoch that is left early
            while reading:
                _release(reading)

    def images_u8(self, rows: Rows, batch_size: int) -> Iterator[Tensor]:
        """Yield the [B, 1, S, S] uint8 images of ``rows`` as they are handed over, on the device.

        On a GPU a batch lies in DALI's memory, and is to be held until everything that reads it has run.

        Raises:
            UserError: DALI can't read or decode a file.
        """
        self._start(rows, batch_size)
        gpu = self.spec.device.type == "cuda"
        self.under_way = True
        try:
            while True:
                (images,) = self.pipeline.run()
                if gpu:  # without a copy; run() has waited for the pixels
                    yield torch.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)
                else:
                    grey = (np.asarray(images.at(i))[..., 0] for i in range(len(images)))
                    yield torch.from_numpy(np.stack([resize_u8(one, self.size) for one in grey]))
        except StopIteration:
            self.pipeline.reset()
            self.under_way = False
        except RuntimeError as error:
            self.pipeline = None  # a pipeline that has failed stays failed
            raise self.source.explained(error) from None

    def _start(self, rows: Rows, batch_size: int) -> None:
        """Make the pipeline ready for the first of ``rows``; it is built once, and again for a larger batch."""
        if self.pipeline is not None and self.under_way:  # an epoch that was left before its end
            self.source.serve(rows[:0], batch_size)
            try:
                while True:
                    self.pipeline.run()
            except StopIteration:
                self.pipeline.reset()
        if self.pipeline is None or batch_size > self.pipeline.max_batch_size:
            gpu = self.spec.device.type == "cuda"
            self.pipeline = _stream_pipeline(
                source=self.source,
                size=self.size if gpu else None,
                batch_size=batch_size,
                prefetch_queue_depth=AHEAD,
                num_threads=cpu_count(),
                device_id=torch.cuda.current_device() if gpu else None,
            )
            self.pipeline.build()
        self.source.serve(rows, batch_size)


def _release(reading: deque[tuple[Tensor, Any]]) -> None:
    """Let go of the oldest batch once the kernel has read it: DALI fills memory anew that nobody holds."""
    reading[0][1].synchronize()
    reading.popleft()


class PathSource:
    """Tells DALI, batch after batch, which files to read."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.paths = [np.frombuffer(str(file).encode(), dtype=np.uint8) for file in files]
        self.images: list[int] = []
        self.batch_size = 1
        self.next = 0

    def serve(self, rows: Rows, batch_size: int) -> None:
        """Set the rows of the next epoch."""
        self.images, self.batch_size, self.next = rows.image.tolist(), batch_size, 0

    def __call__(self) -> list[np.ndarray]:
        """Return the paths of the next batch as DALI wants them."""
        part = self.images[self.next : self.next + self.batch_size]
        if not part:
            raise StopIteration
        self.next += len(part)
        return [self.paths[image] for image in part]

    def explained(self, error: RuntimeError) -> UserError:
        """Return what to tell of an error of the pipeline: which of the files asked for last can't be read, and why."""
        # DALI's own words name the operator, not the file.
        told = "DALI can't stream the files: " + str(error).rpartition("encountered:")[2].strip().partition("\n")[0]
        for image in self.images[max(0, self.next - (AHEAD + 1) * self.batch_size) : self.next]:
            try:
                read_grey_u8(self.files[image])
            except UnreadableImageError as reason:
                told = f"{self.files[image]} can't be streamed: {reason}"
                break
        return UserError(f"{told}; choose the loader 'resident'")


if HAVE_DALI:

    @pipeline_def
    def _stream_pipeline(source: PathSource, size: int | None) -> Any:
        paths = fn.external_source(source=source, batch=True)
        images = dali_decode(fn.io.file.read(paths), gpu=size is not None)
        return images if size is None else dali_resize(images, size)
