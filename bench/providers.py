"""Which library keeps a provider of ONNX Runtime from being loaded; imports no torch."""

import ctypes
import re
from pathlib import Path

import onnxruntime

CUDNN = "libcudnn.so.9"
"""The CUDA provider opens it at its first convolution, so it can be loaded itself without it."""
CANNOT_OPEN = re.compile(r"(\S+): cannot open shared object file")


def missing_library(name: str) -> str:
    """Return why the provider ``cuda`` or ``tensorrt`` can't be loaded, naming the library; nothing where it can."""
    onnxruntime.preload_dlls()  # CUDA and cuDNN of the Python packages, which the loader would not find by itself
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        # The provider wants to find this one already there.
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        if name == "cuda":
            ctypes.CDLL(CUDNN)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{name}.so"))
    except OSError as error:
        found = CANNOT_OPEN.search(str(error))
        return f"the library {found[1]} is missing" if found else " ".join(str(error).split())[:200]
    return ""
