"""Three ways from rows to batches, with one interface and the same pixels within a stated tolerance."""

from collections.abc import Callable

import psutil
import torch

from fusion.errors import UserError
from fusion.loaders.dali import HAVE_DALI, DaliLoader
from fusion.loaders.resident import ResidentLoader
from fusion.loaders.spec import BatchSpec, Loader
from fusion.loaders.torchvision import TorchvisionLoader
from fusion.prepared import Prepared

LOADERS: dict[str, Callable[[Prepared, BatchSpec], Loader]] = {
    "resident": ResidentLoader,  # the array lies on the device
    "dali": DaliLoader,  # files are decoded every epoch by DALI
    "torchvision": TorchvisionLoader,  # files are decoded every epoch by worker processes
}
RESIDENT_SHARE = 0.5
"""Share of the free memory the prepared array may take; the rest is for the networks."""

__all__ = [
    "HAVE_DALI",
    "LOADERS",
    "BatchSpec",
    "Loader",
    "ResidentLoader",
    "choose_loader",
    "free_bytes",
    "make_loader",
]


def choose_loader(prepared: Prepared, device: torch.device) -> tuple[str, str]:
    """Return the fastest loader that fits the device's free memory, and why it is not ``resident`` where it isn't."""
    needed, free = prepared.images_u8.nbytes, free_bytes(device)
    if needed <= RESIDENT_SHARE * free:
        return "resident", ""
    streaming = "dali" if HAVE_DALI else "torchvision"
    return streaming, (
        f"the prepared images take {needed / 2**20:.0f} MiB, more than {RESIDENT_SHARE:.0%} of the {device.type}'s "
        f"{free / 2**20:.0f} MiB of free memory"
    )


def make_loader(name: str, prepared: Prepared, spec: BatchSpec) -> Loader:
    """Return the loader called ``name``.

    Raises:
        UserError: there is no such loader, or it can't work here.
    """
    if name not in LOADERS:
        raise UserError(f"loader {name!r} is unknown; choose from {', '.join(LOADERS)}")
    return LOADERS[name](prepared, spec)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or of the host without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
