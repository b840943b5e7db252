"""Streams the image files every epoch through a DALI pipeline: decode, resize, affine map, noise, normalise."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.augment import Rows
from fusion.cores import cpu_count
from fusion.decode import HAVE_DALI, dali_decode, dali_resize
from fusion.errors import UserError
from fusion.loaders.spec import BatchSpec
from fusion.prepare import Prepared
from kernels.augment_reference import draw_parameters, standard_normal

if HAVE_DALI:
    from nvidia.dali import fn, math, pipeline_def, types


class DaliLoader:
    """Serves batches decoded from the files; nothing but the batches in flight is held in memory.

    Geometry and noise come from the same counters as in every loader, so a row's noise is the same pixel for pixel.

    Raises:
        UserError: DALI is not installed.
    """

    def __init__(self, prepared: Prepared, spec: BatchSpec) -> None:
        if not HAVE_DALI:
            raise UserError("loader 'dali' needs DALI (Linux on x86-64 only); choose 'resident' or 'torchvision'")
        self.files = prepared.files()
        self.size = prepared.image_size
        self.spec = spec

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of ``rows``; see ``Loader``."""
        if len(rows) == 0:  # DALI refuses to read no files
            return
        gpu = self.spec.device.type == "cuda"
        pipeline = _stream_pipeline(
            files=[str(self.files[i]) for i in rows.image],
            source=_RowSource(rows, batch_size, epoch, self.size, self.spec),
            size=self.size,
            spec=self.spec,
            gpu=gpu,
            batch_size=batch_size,
            num_threads=cpu_count(),
            device_id=torch.cuda.current_device() if gpu else None,
        )
        pipeline.build()
        for start in range(0, len(rows), batch_size):
            (images,) = pipeline.run()
            # DALI reuses its buffers, so the batch is copied, and the copy has ended, before the next run.
            batch = torch.from_dlpack(images.as_tensor()).clone(memory_format=torch.contiguous_format)
            if gpu:
                torch.cuda.current_stream().synchronize()
            yield batch[: len(rows) - start].contiguous(memory_format=torch.channels_last)


class _RowSource:
    """Gives DALI the affine maps and the noise of each batch of rows."""

    def __init__(self, rows: Rows, batch_size: int, epoch: int, size: int, spec: BatchSpec) -> None:
        self.rows, self.batch_size, self.epoch, self.size, self.spec = rows, batch_size, epoch, size, spec

    def matrices(self, batch: int) -> Any:
        """Return the inverse affine maps in pixels, [B, 2, 3] float32: A (x - c) + c about the centre c."""
        image, copy = self._keys(batch)
        linear = draw_parameters(self.spec.ranges, self.spec.seed, image, copy, self.epoch).inverse_affine()
        centre = self.size / 2
        return torch.cat([linear, centre - linear.sum(dim=-1, keepdim=True) * centre], dim=-1).numpy()

    def noise(self, batch: int) -> Any:
        """Return the noise to add, [B, S, S, 1] float32, zero for rows that are not augmented."""
        image, copy = (keys.to(self.spec.device) for keys in self._keys(batch))
        noise = torch.zeros(len(image), self.size, self.size, device=self.spec.device)
        noisy = torch.nonzero(copy > 0).flatten()
        if len(noisy) and self.spec.ranges.noise_sigma > 0:
            values = standard_normal(self.spec.seed, image[noisy], copy[noisy], self.epoch, self.size, self.size)
            noise[noisy] = values * self.spec.ranges.noise_sigma
        return noise[..., None] if noise.is_cuda else noise[..., None].numpy()

    def _keys(self, batch: int) -> tuple[Tensor, Tensor]:
        # DALI asks for full batches, and asks ahead: past the end the last row is repeated, and cut off by the loader.
        index = np.minimum(np.arange(batch * self.batch_size, (batch + 1) * self.batch_size), len(self.rows) - 1)
        part = self.rows[index]
        return torch.from_numpy(part.image), torch.from_numpy(part.copy)


if HAVE_DALI:

    @pipeline_def
    def _stream_pipeline(files: list[str], source: _RowSource, size: int, spec: BatchSpec, gpu: bool) -> Any:
        encoded, _ = fn.readers.file(files=files, random_shuffle=False, pad_last_batch=True)
        images = dali_resize(dali_decode(encoded, gpu=gpu), size)
        matrix = fn.external_source(source=source.matrices, batch=True)
        noise = fn.external_source(source=source.noise, batch=True, device="gpu" if gpu else "cpu")
        mapped = fn.warp_affine(
            images, matrix=matrix, dtype=types.FLOAT, interp_type=types.INTERP_LINEAR, fill_value=0.0
        )
        pixels = math.clamp(mapped / 255.0 + noise, 0.0, 1.0)
        channels = [(pixels - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        return fn.transpose(fn.cat(*channels, axis=2), perm=[2, 0, 1])
