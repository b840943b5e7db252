"""Classifying many images with an open session: from memory, or from files that are decoded while the model works."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from bench.sessions import WARM_UP_CALLS, Session
from fusion.cores import cpu_count
from fusion.decode import decode_torchvision
from fusion.errors import UserError
from fusion.images import UnreadableImageError


class BatchClassifier:
    """A session with a buffer for batches of one size, warmed up."""

    def __init__(self, session: Session, batch: int, image_size: int) -> None:
        self.session, self.batch, self.device = session, batch, session.device
        self.images_u8 = torch.zeros(batch, 1, image_size, image_size, dtype=torch.uint8, device=session.device)
        self.call = session.bind(self.images_u8)
        for _ in range(WARM_UP_CALLS):
            self.call()
        self.synchronise()

    def synchronise(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def probabilities(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Return the [R] float32 probabilities of the images in ``batches``.

        Args:
            batches: [B, 1, S, S] uint8 each; B is the classifier's batch, or less: the rest is classified in vain.
        """
        parts = []
        for images_u8 in batches:
            self.images_u8[: len(images_u8)].copy_(torch.from_numpy(images_u8))
            self.synchronise()  # ONNX Runtime works on a stream of its own
            parts.append(self.call()[: len(images_u8)].cpu().numpy().copy())
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def batches_of(images_u8: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Yield [R, 1, S, S] images in batches; the last may be smaller."""
    for start in range(0, len(images_u8), batch):
        yield images_u8[start : start + batch]


def decoded_batches(files: Sequence[Path], image_size: int, batch: int) -> Iterator[np.ndarray]:
    """Yield files in batches of [B, 1, S, S] uint8; the next batch is decoded while the caller works.

    Args:
        files: of any format ``fusion.images`` reads.
        image_size: S, side in pixels that they are resized to.
        batch: B; the last may be smaller.

    Raises:
        UserError: a file can't be read as an image; it is named.
    """
    with ThreadPoolExecutor(cpu_count()) as threads:  # Pillow and torch leave the interpreter to others meanwhile
        parts = (files[start : start + batch] for start in range(0, len(files), batch))
        decoded = ([threads.submit(decode, file, image_size) for file in part] for part in parts)
        waiting = next(decoded, None)
        while waiting is not None:
            following = next(decoded, None)
            yield np.stack([one.result() for one in waiting])
            waiting = following


def decode(file: Path, image_size: int) -> np.ndarray:
    """Return one file as [1, S, S] uint8, grey, resized as ``fusebench prepare`` does.

    Raises:
        UserError: it can't be read as an image.
    """
    try:
        return decode_torchvision(file, image_size)
    except UnreadableImageError as error:
        raise UserError(f"{file}: {error}") from None
