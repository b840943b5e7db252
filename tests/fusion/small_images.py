"""Small images, and their preparation in a second."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusion.catalog import ImageRecord
from fusion.decode import HAVE_DALI
from fusion.errors import UserError
from fusion.prepare import prepare
from fusion.prepared import Prepared

needs_dali = pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")

SIZE = 16
COUNT = 13
BATCH = 4


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def record(path: Path, **changes: Any) -> ImageRecord:
    facts: dict[str, Any] = {
        "image_id": f"mine/{path.name}",
        "source": "mine",
        "modality": "other",
        "label": 0,
        "group_id": f"mine:{path.stem}",
        "path": path,
    }
    return ImageRecord(**{**facts, **changes})


def write_images(folder: Path, count: int = COUNT) -> list[ImageRecord]:
    """Write images of many sizes, by turns benign and malignant, and return their records in no special order."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(count):
        path = folder / f"{i:02}.png"
        picture(i, 30 + i, 50 - i).save(path)
        records.append(record(path, label=i % 2))
    return records[::-1]


def run(records: Sequence[ImageRecord], out: Path, **options: Any) -> Prepared:
    settings: dict[str, Any] = {"image_size": SIZE, "decoder": "torchvision", "progress": lambda *_: None}
    return prepare(records, out, **{**settings, **options})


def refuse(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
