"""Faults to be put into a child's import path or among the installed packages, for ``doctor`` to find."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.doctor import GPU_PLATFORM, Finding
from fusion.models.backbones import BACKBONES

Judge = Callable[..., Finding]
TIMM_NAMES = [row.timm_name for row in BACKBONES.values()]
needs_gpu_packages = pytest.mark.skipif(not GPU_PLATFORM, reason="onnxruntime-gpu and DALI are for Linux on x86-64")


def write_module(root: Path, name: str, code: str) -> Path:
    """Write a package that stands before the real one in a child whose PYTHONPATH is ``root``."""
    folder = root
    for part in name.split("."):
        folder /= part
        folder.mkdir()
        (folder / "__init__.py").touch()  # or the real package of that name would win
    (folder / "__init__.py").write_text(code)
    return root


def write_metadata(root: Path, name: str, version: str, *lines: str, module: str = "") -> Path:
    """Write what pip leaves behind of an installed package."""
    folder = root / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines)
    (folder / "METADATA").write_text("\n".join(lines))
    (folder / "top_level.txt").write_text(module or name)
    return root
