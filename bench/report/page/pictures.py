"""The pictures of the explanations that the page has room for."""

import math
from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any

from bench.report.layout import number
from bench.report.page.render import Picture
from bench.report.read_cells import CellId
from fusion.catalog import LABEL_NAMES
from fusion.text import one_line


def explanation_pictures(explanations: Mapping[CellId, Any]) -> list[Picture]:
    """Return the pictures of all cells, one of each cell in turn, so that the first ones are of as many as there are.

    Args:
        explanations: from ``bench.report.read_explanations.read_explanations``.
    """
    of_cells = (_of_cell(cell, found.captions()) for cell, found in explanations.items())
    return [picture for picture in chain.from_iterable(zip_longest(*of_cells)) if picture]


def _of_cell(cell: CellId, captions: list[dict[str, Any]]) -> Iterator[Picture]:
    """Yield malignant and benign in turn, each from the highest probability."""
    of_classes = ([line for line in captions if line["label"] == label] for label in (1, 0))
    for line in chain.from_iterable(zip_longest(*of_classes)):
        if line:
            yield Picture(path=line["file"], caption=_caption(cell, line))


def _caption(cell: CellId, line: Mapping[str, Any]) -> str:
    protocol, seed, name = cell
    share = float(line["mask_share"])
    shows = f"{LABEL_NAMES[line['label']]} {line['modality']} of {line['source']}"
    lesion = "" if math.isnan(share) else f", {share:.0%} of the map lies in the lesion"
    probability = f"probability of malignancy {number(float(line['probability']), 2)}"
    return one_line(f"{name}, protocol {protocol}, seed {seed}: {shows}, {probability}{lesion}")
