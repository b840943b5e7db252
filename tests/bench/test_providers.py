"""A provider of ONNX Runtime that can't be loaded is explained by the library that is missing."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path

import onnxruntime
import pytest

from bench.doctor import GPU_PLATFORM
from bench.providers import missing_library

PACKAGES = Path(onnxruntime.__file__).parents[1]

pytestmark = pytest.mark.skipif(not GPU_PLATFORM, reason="onnxruntime-gpu is for Linux on x86-64")


def has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], list[str]]:
    """Replace the loader by one that fails with given words for given files; return the names of all it was asked."""

    def start(failures: dict[str, str]) -> list[str]:
        asked: list[str] = []

        def load(path: str, mode: int = ctypes.DEFAULT_MODE) -> None:
            del mode
            asked.append(Path(path).name)
            if asked[-1] in failures:
                raise OSError(failures[asked[-1]])

        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(ctypes, "CDLL", load)
        return asked

    return start


@pytest.mark.skipif(has_library("libcuda.so.1"), reason="an NVIDIA driver is installed")
def test_without_a_driver_its_library_is_what_the_cuda_provider_lacks() -> None:
    assert missing_library("cuda") == "the library libcuda.so.1 is missing"


@pytest.mark.parametrize("library", ["libcurand.so.10", "libcublasLt.so.13", "libcudnn.so.9"])
def test_a_library_that_is_not_installed_is_named(tmp_path: Path, library: str) -> None:
    if find_library(library.removeprefix("lib").partition(".")[0]):
        pytest.skip(f"{library} is installed for the whole system")
    (tmp_path / "onnxruntime").symlink_to(PACKAGES / "onnxruntime")  # it looks for the libraries beside itself
    for original in (PACKAGES / "nvidia").glob("*/lib/*"):
        if original.name != library:
            link = tmp_path / original.relative_to(PACKAGES)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(original)
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    ended = subprocess.run(
        [sys.executable, "-c", "from bench.providers import missing_library; print(missing_library('cuda'))"],
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == f"the library {library} is missing"


def test_nothing_is_missing_where_all_can_be_loaded(loader: Callable[[dict[str, str]], list[str]]) -> None:
    asked = loader({})
    assert missing_library("cuda") == ""
    shared, *_, provider = asked
    assert (shared, provider) == ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")


def test_cudnn_is_asked_for_by_cuda_only(loader: Callable[[dict[str, str]], list[str]]) -> None:
    loader({"libcudnn.so.9": "libcudnn.so.9: cannot open shared object file: No such file or directory"})
    assert missing_library("cuda") == "the library libcudnn.so.9 is missing"
    assert missing_library("tensorrt") == ""


def test_other_words_of_the_loader_are_told_in_one_short_line(loader: Callable[[dict[str, str]], list[str]]) -> None:
    loader({"libonnxruntime_providers_tensorrt.so": "undefined symbol:\n  " + 300 * "x"})
    told = missing_library("tensorrt")
    assert told.startswith("undefined symbol: xxx")
    assert len(told) == 200
