"""Three ways from rows to batches, with one interface and the same pixels within a stated tolerance."""

from collections.abc import Callable

from fusion.errors import UserError
from fusion.loaders.dali import DaliLoader
from fusion.loaders.resident import ResidentLoader
from fusion.loaders.spec import BatchSpec, Loader
from fusion.loaders.torchvision import TorchvisionLoader
from fusion.prepare import Prepared

LOADERS: dict[str, Callable[[Prepared, BatchSpec], Loader]] = {
    "resident": ResidentLoader,  # the array lies on the device
    "dali": DaliLoader,  # files are decoded every epoch by DALI
    "torchvision": TorchvisionLoader,  # files are decoded every epoch by worker processes
}

__all__ = ["LOADERS", "BatchSpec", "Loader", "make_loader"]


def make_loader(name: str, prepared: Prepared, spec: BatchSpec) -> Loader:
    """Return the loader called ``name``.

    Raises:
        UserError: there is no such loader, or it can't work here.
    """
    if name not in LOADERS:
        raise UserError(f"loader {name!r} is unknown; choose from {', '.join(LOADERS)}")
    return LOADERS[name](prepared, spec)
