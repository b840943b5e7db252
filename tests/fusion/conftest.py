"""The records of small images, and a folder to prepare them into."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_images import BATCH, run, write_images

from fusion import decode
from fusion import prepare as preparing
from fusion.catalog import ImageRecord
from fusion.decode import decode_and_resize


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    return write_images(tmp_path / "raw")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "prepared"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BATCH", BATCH)
    monkeypatch.setattr(preparing, "BATCH", BATCH)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of every batch that is decoded."""
    sizes: list[int] = []

    def counted(*arguments: Any) -> Iterator[np.ndarray]:
        for batch in decode_and_resize(*arguments):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(preparing, "decode_and_resize", counted)
    return sizes


@pytest.fixture
def finished(records: list[ImageRecord], out: Path) -> Path:
    run(records, out)
    return out
