"""Images of the run: a few test images of each source, and the augmented copies of one image.

They are the user's own: what the terms of a data set allow to be published, its images' figures may be.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.image_files import AUGMENTATION, AUGMENTATION_FACTS, images_folder, row_file
from bench.report.figures.style import Drawing, LeftOutError, clear, panels
from bench.report.layout import Table
from bench.report.read import Results
from bench.store import cell_folder
from fusion.catalog import LABEL_NAMES
from fusion.checksums import require_intact
from fusion.errors import UserError
from fusion.files import read_json
from fusion.images import UnreadableImageError, read_grey_u8
from fusion.text import one_line

EACH = 3
"""Images of a source and class."""
MOST_SOURCES = 12
MOST_COPIES = 16
COPY_COLUMNS = 4
AGAIN = "call the same 'fusebench run' again, which writes it from the data"
TERMS = "Before you publish this figure, read the terms of the data set whose images it shows"
ID_LENGTH = 25


def draw_samples(run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw up to ``EACH`` unaugmented test images of every source and class, each of another group where there are.

    Raises:
        LeftOutError: no test image is kept in the run's folder, or one is damaged.
    """
    del tables, protocol
    cell, predictions = _most_images(results)
    images = predictions.assign(row=np.arange(len(predictions)))[predictions["copy"] == 0].sort_values("image_id")
    images = images.drop_duplicates(["source", "label", "group_id"])
    try:
        folder = images_folder(run_dir, cell_folder(run_dir, *cell), predictions)
    except UserError as reason:
        raise LeftOutError(str(reason)) from None
    sources = sorted(images["source"].unique())
    shown = sources[:MOST_SOURCES]
    canvas, axes = panels(
        len(shown), 2 * EACH, panel=(1.05, 1.05), gap=(0.08, [0.2] * (len(shown) - 1)), margin=(0.45, 0.12, 0.4, 0.1)
    )
    for row, source in enumerate(shown):
        for panel in axes[row]:
            clear(panel)
        for label, name in LABEL_NAMES.items():
            chosen = images[(images["source"] == source) & (images["label"] == label)].head(EACH)
            first = axes[row, label * EACH]
            if row == 0:
                first.text(0, 1.22, name, transform=first.transAxes, fontsize=8, fontweight="bold")
            for panel, image in zip(axes[row, label * EACH :], chosen.to_dict("records"), strict=False):
                _show(panel, _pixels(run_dir, row_file(folder, image["row"]), results), _end_of(image["image_id"]))
        axes[row, 0].text(
            *(-0.08, 0.5, one_line(source, 24)),
            transform=axes[row, 0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
        )
    more = f". {len(sources) - len(shown)} more sources are not shown" if len(sources) > len(shown) else ""
    phantom = sorted(set(results.run["data"]["synthetic_sources"]) & set(shown))
    said = f"Phantom, not patients: {', '.join(one_line(name, 24) for name in phantom)}. " if phantom else ""
    if len(phantom) < len(shown):
        said += f"{TERMS}. "
    return Drawing(canvas=canvas, caption=f"{said}Test images as the models see them, with their names{more}")


def draw_augmentation(run_dir: Path, results: Results, tables: dict[str, Table], protocol: str) -> Drawing:
    """Draw one image and its augmented copies, as the run's loader made them.

    Raises:
        LeftOutError: the run has not kept them, or a file is damaged.
    """
    del tables, protocol
    folder = run_dir / AUGMENTATION
    if not (folder / AUGMENTATION_FACTS).is_file():
        raise LeftOutError(f"{folder} is missing: call the same 'fusebench run' again, which writes it from the data")
    try:
        facts = read_json(folder / AUGMENTATION_FACTS, "the augmented copies of an image")
        image_id, source, synthetic = facts["image_id"], facts["source"], facts["synthetic"]
        captions = [_told(number, copy) for number, copy in enumerate(facts["copies"][:MOST_COPIES])]
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise LeftOutError(f"{folder / AUGMENTATION_FACTS} is damaged ({one_line(str(error), 80)})") from None
    if not captions:
        raise LeftOutError(f"{folder / AUGMENTATION_FACTS} names no copy")
    rows = math.ceil(len(captions) / COPY_COLUMNS)
    canvas, axes = panels(
        rows, COPY_COLUMNS, panel=(1.55, 1.55), gap=(0.15, [0.36] * (rows - 1)), margin=(0.3, 0.3, 0.34, 0.12)
    )
    for number, panel in enumerate(axes.flat):
        clear(panel)
        if number < len(captions):
            _show(panel, _pixels(run_dir, folder / f"{number}.png", results), captions[number], size=6.5)
    return Drawing(
        canvas=canvas,
        caption=f"{'Phantom, not a patient' if synthetic else TERMS}. {one_line(str(image_id), 60)} of "
        f"{one_line(str(source), 40)}; ↺ and ↻: rotation, ×: zoom, ↔ and ↕: flips, σ: noise in parts of the grey "
        "range",
    )


def _most_images(results: Results) -> tuple[tuple[str, int, str], pd.DataFrame]:
    """Return the finished cell that was tested on the most unaugmented images; the first of them."""
    images = {cell: int((predictions["copy"] == 0).sum()) for cell, predictions in results.predictions.items()}
    if not any(images.values()):
        raise LeftOutError("no finished cell was tested on an unaugmented image")
    cell = max(images, key=lambda one: images[one])
    return cell, results.predictions[cell]


def _told(number: int, copy: dict[str, Any]) -> str:
    if number == 0:
        return "the image itself"
    angle, zoom, sigma = (float(copy[name]) for name in ("angle_degrees", "zoom", "noise_sigma"))
    flips = "".join(sign for sign, name in (("↔", "flip_x"), ("↕", "flip_y")) if copy[name] is True)
    turn = f"{'↺' if angle >= 0 else '↻'} {abs(angle):.0f}°"
    return f"copy {number}\n{', '.join(filter(None, (turn, f'× {zoom:.2f}', flips, f'σ {sigma:.2g}')))}"


def _pixels(run_dir: Path, path: Path, results: Results) -> np.ndarray:
    side = results.run["data"]["image_size"]
    try:
        grey = read_grey_u8(path)
    except UnreadableImageError as reason:
        raise LeftOutError(f"{path.relative_to(run_dir)}: {reason}; {AGAIN}") from None
    if grey.shape != (side, side):
        height, width = grey.shape
        raise LeftOutError(f"{path.relative_to(run_dir)} has {width} x {height} pixels, not the run's {side} x {side}")
    try:
        require_intact(path, way_out=AGAIN)
    except UserError as reason:
        raise LeftOutError(str(reason)) from None
    return grey


def _show(panel: Any, grey: np.ndarray, title: str, size: float = 5.5) -> None:
    panel.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="none")
    panel.set_title(title, loc="left", fontsize=size, pad=2)


def _end_of(name: str) -> str:
    """Return the end of a long name, which tells images of one folder apart."""
    line = one_line(name)
    return line if len(line) <= ID_LENGTH else "…" + line[1 - ID_LENGTH :]
