"""Decoding and resizing image files to one square size, by DALI or by torchvision.

Both decode to one grey channel (ITU-R 601 luma), ignore EXIF orientation and resize with an antialiased triangle
filter; a test holds their pixels together. DALI decodes and, on a GPU, resizes; on the CPU torchvision resizes for it.
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
    gpu = torch.cuda.is_available()
    pipeline = _decode_pipeline(
        files=[str(path) for path in paths],
        size=size if gpu else None,
        batch_size=BATCH,
        num_threads=cpu_count(),
        device_id=torch.cuda.current_device() if gpu else None,
    )
    pipeline.build()
    for start in range(0, len(paths), BATCH):
        (images,) = pipeline.run()
        images = images.as_cpu()
        count = min(BATCH, len(paths) - start)
        # On the CPU, torchvision's resize takes a quarter of the time of DALI's; DALI decodes the next batch meanwhile.
        yield np.stack([resize_u8(np.asarray(images.at(i))[..., 0], size) for i in range(count)])


def decode_torchvision(path: Path, size: int) -> np.ndarray:
    """Return one file decoded by Pillow and resized by torchvision, [1, S, S] uint8."""
    return resize_u8(read_grey_u8(path), size)


def resize_u8(grey_u8: np.ndarray, size: int) -> np.ndarray:
    """Return [H, W] as [1, S, S] by torchvision; unchanged where it has that size."""
    return tv.resize(torch.from_numpy(grey_u8)[None], [size, size], antialias=True).numpy()


def dali_decode(encoded: Any, *, gpu: bool) -> Any:
    """Return the DALI node of ``encoded`` files as [H, W, 1] uint8 grey images."""
    return fn.decoders.image(
        encoded, device="mixed" if gpu else "cpu", output_type=types.GRAY, adjust_orientation=False
    )


def dali_resize(images: Any, size: int) -> Any:
    """Return the DALI node of images [H, W, 1] resized to [S, S, 1]."""
    return fn.resize(images, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)


if HAVE_DALI:

    @pipeline_def
    def _decode_pipeline(files: list[str], size: int | None) -> Any:
        encoded, _ = fn.readers.file(files=files, random_shuffle=False, pad_last_batch=True)
        images = dali_decode(encoded, gpu=size is not None)
        return images if size is None else dali_resize(images, size)
