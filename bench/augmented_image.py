"""One image of a run with its augmented copies as files, so that the report can show what augmentation does."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.cell import Settings
from bench.image_files import AUGMENTATION, AUGMENTATION_FACTS
from fusion.augment import COPIES, Rows
from fusion.checksums import problems
from fusion.files import replacing_folder, write_json
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import Prepared
from kernels.augment_reference import draw_parameters

log = logging.getLogger(__name__)
SHOWN = 8
"""The image itself and seven copies; protocol paper has up to four of an image."""


def write_augmented_image(prepared: Prepared, out: Path, settings: Settings, seed: int) -> None:
    """Write an image and its copies to ``images/augmentation/`` of the run's folder, unless they are there.

    The first image of those that are augmented most is taken. ``copies.json`` names it and what each copy drew.

    Args:
        prepared: the data set of the run.
        out: the run's folder.
        settings: with the loader that is meant.
        seed: draws the copies, as they are drawn in training (epoch 0).

    Raises:
        UserError: they can't be written.
    """
    folder = out / AUGMENTATION
    names = [f"{number}.png" for number in range(SHOWN)]
    if all((folder / name).is_file() for name in (*names, AUGMENTATION_FACTS)):
        if not (wrong := problems(folder)):
            return
        log.warning("note: %s is %s; the augmented copies are written anew", wrong[0].path, wrong[0].kind)
    catalog = prepared.catalog
    rows_each = [COPIES[key] for key in zip(catalog["modality"], catalog["label"], strict=True)]
    place = int(np.argmax(rows_each))
    rows = Rows(np.full(SHOWN, place, dtype=np.int64), np.arange(SHOWN, dtype=np.int64))
    spec = BatchSpec(seed=seed, mean=(0.0,), std=(1.0,), device=settings.torch_device())
    (pixels,) = make_loader(settings.loader, prepared, spec).batches(rows, SHOWN, epoch=0)
    drawn = draw_parameters(spec.ranges, seed, torch.from_numpy(rows.image), torch.from_numpy(rows.copy), 0)
    image = catalog.iloc[place]
    facts: dict[str, Any] = {
        "image_id": str(image["image_id"]),
        "source": str(image["source"]),
        "synthetic": bool(image["synthetic"]),
        "seed": seed,
        "copies": [{name: values[number].item() for name, values in vars(drawn).items()} for number in range(SHOWN)],
    }
    with replacing_folder(folder) as partial:
        for name, image_u8 in zip(names, (pixels * 255).round().byte().cpu().numpy()[:, 0], strict=True):
            Image.fromarray(image_u8).save(partial / name)
        write_json(partial / AUGMENTATION_FACTS, facts)
