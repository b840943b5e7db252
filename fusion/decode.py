"""Decoding and resizing image files to one square size, by DALI or by torchvision.

Both decode to one grey channel (ITU-R 601 luma), ignore EXIF orientation and resize with an antialiased triangle
filter; a test holds their pixels together.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from fusion.cores import cpu_count
from fusion.errors import UserError
from fusion.images import read_grey_u8

HAVE_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
"""DALI exists for Linux on x86-64 only."""
if HAVE_DALI:
    from nvidia.dali import fn, pipeline_def, types

Decoder = Literal["dali", "torchvision"]
BATCH = 64


def available_decoder() -> Decoder:
    """Return ``dali`` where it is installed, else ``torchvision``."""
    return "dali" if HAVE_DALI else "torchvision"


def decode_and_resize(paths: Sequence[Path], size: int, decoder: Decoder) -> Iterator[np.ndarray]:
    """Yield ``paths`` decoded and resized, in order, in batches of at most ``BATCH``.

    Args:
        paths: files for which ``fusion.images.inspect_image`` says ``plain``.
        size: S, side of the result in pixels.
        decoder: ``dali`` or ``torchvision``.

    Yields:
        [B, 1, S, S] uint8.

    Raises:
        UserError: ``dali`` is asked for and not installed.
    """
    if decoder == "torchvision":
        for start in range(0, len(paths), BATCH):
            yield np.stack([decode_torchvision(path, size) for path in paths[start : start + BATCH]])
        return
    if not HAVE_DALI:
        raise UserError("decoder 'dali' is not installed here (Linux on x86-64 only); choose 'torchvision'")
    pipeline = _decode_pipeline(
        files=[str(path) for path in paths],
        size=size,
        batch_size=BATCH,
        num_threads=cpu_count(),
        device_id=torch.cuda.current_device() if torch.cuda.is_available() else None,
    )
    pipeline.build()
    for start in range(0, len(paths), BATCH):
        (images,) = pipeline.run()
        batch = np.asarray(images.as_cpu().as_array())[: len(paths) - start]
        yield batch.transpose(0, 3, 1, 2)


def decode_torchvision(path: Path, size: int) -> np.ndarray:
    """Return one file decoded by Pillow and resized by torchvision, [1, S, S] uint8."""
    grey = torch.from_numpy(read_grey_u8(path))[None]
    return tv.resize(grey, [size, size], antialias=True).numpy()


def dali_decode_and_resize(encoded: Any, size: int, *, gpu: bool) -> Any:
    """Return the DALI node of ``encoded`` files as [S, S, 1] uint8 grey images."""
    images = fn.decoders.image(
        encoded, device="mixed" if gpu else "cpu", output_type=types.GRAY, adjust_orientation=False
    )
    return fn.resize(images, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)


if HAVE_DALI:

    @pipeline_def
    def _decode_pipeline(files: list[str], size: int) -> Any:
        encoded, _ = fn.readers.file(files=files, random_shuffle=False, pad_last_batch=True)
        return dali_decode_and_resize(encoded, size, gpu=torch.cuda.is_available())
