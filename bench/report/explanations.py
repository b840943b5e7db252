"""The table of class-activation maps: how much of them lies inside the lesions, cell by cell."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.explanation_rows import predictions_hash
from bench.report.layout import NONE, Table, number
from bench.report.read import Results
from bench.report.read_cells import CellId
from bench.report.read_explanations import Explanation
from bench.report.summary import mean_interval, union
from fusion.text import one_line

DECIMALS = {"mask_share": 3, "mask_area": 3, "mask_gain": 2, "pointing_hit": 3}
HEADINGS = {"mask_share": "In lesion", "mask_area": "Even map", "mask_gain": "Gain", "pointing_hit": "Pointing hit"}
MOST = {"mask_gain": math.inf}
"""Of a metric that may be above 1."""
COUNTED = "zero_maps"
COLUMNS = (
    *("protocol", "cell"),
    *(f"{metric}{end}" for metric in DECIMALS for end in ("", "_low", "_high")),
    *("scored_images", COUNTED, "images", "seeds"),
)
NOTES = (
    "maps: Grad-CAM of the malignant logit at the last feature map, on unaugmented test images; coarse (one cell of a "
    "backbone is 32 pixels) and no proof of what a network decides by",
    "in lesion: share of the map's mass inside the outlined lesions, mean over images, with a 95 % interval "
    "(BCa over groups); even map: the lesions' share of the area the map covers, which a map that tells nothing "
    "has; gain: the first / the second",
    "pointing hit: share of images whose map is largest inside a lesion; the even map's share is chance",
    "zero maps: explained images no place of which speaks for malignancy; scored are the images that have a mask and a "
    "map that is not zero",
)
NOTHING = "nothing was explained: run 'fusebench explain RESULTS'"


def current(results: Results) -> tuple[dict[CellId, Explanation], list[str]]:
    """Return the explanations of cells as the run has them now, and the names of the cells of the others."""
    done = results.rows[results.rows["status"] == "done"]
    now = {
        (protocol, int(seed), cell): code
        for protocol, seed, cell, code in done[["protocol", "seed", "cell", "config_hash"]].itertuples(index=False)
    }

    def fits(key: CellId, one: Explanation) -> bool:
        if key not in now or set(one.rows["config_hash"]) != {now[key]}:
            return False
        return set(one.rows["predictions_hash"]) == {predictions_hash(results.predictions[key])}

    kept = {key: one for key, one in results.explanations.items() if fits(key, one)}
    return kept, [key[2] for key in results.explanations if key not in kept]


def explanations_table(
    explanations: Mapping[CellId, Explanation], cells: list[str], outdated: list[str], notes: tuple[str, ...]
) -> Table:
    """Return the scores of the maps of every explained cell, means over its seeds with the intervals of these means.

    Args:
        explanations: from ``current``.
        cells: the run's, in their order.
        outdated: cells whose explanations were left out.
        notes: what every table of the run carries.
    """
    protocols = union([], (protocol for protocol, _, _ in explanations))
    frame, display = [], []
    for protocol in protocols:
        found = [cell for name, _, cell in explanations if name == protocol]
        for cell in [name for name in union(cells, found) if name in found]:
            seeds = [one.rows for (name, _, its), one in explanations.items() if (name, its) == (protocol, cell)]
            numbers = _numbers(seeds)
            frame.append({"protocol": protocol, "cell": cell, **numbers})
            texts = [_text(numbers, metric) for metric in DECIMALS]
            counts = [f"{numbers[name]:g}" for name in ("scored_images", COUNTED, "images")]
            display.append([protocol, one_line(cell), *texts, *counts])
    headings = [*HEADINGS.values(), "Scored", "Zero maps", "Images"]
    left_out = ", ".join(union([], (one_line(cell) for cell in outdated)))
    return Table(
        name="explanations",
        title="Class-activation maps: how much of them lies inside the outlined lesions",
        notes=(
            *notes,
            *([] if frame else [NOTHING]),
            *([f"left out, as the cell was run again since or is gone: {left_out}"] if left_out else []),
            *(NOTES if frame else ()),
        ),
        frame=pd.DataFrame(frame, columns=list(COLUMNS)),
        display=pd.DataFrame(display, columns=["Protocol", "Model", *headings]),
        numbers=tuple(headings),
        brief=(
            *(("Protocol",) if len(protocols) > 1 else ()),
            *("Model", HEADINGS["mask_share"], HEADINGS["mask_gain"], HEADINGS["pointing_hit"], "Scored", "Zero maps"),
        ),
        block="Protocol",
    )


def _numbers(seeds: list[pd.DataFrame]) -> dict[str, float]:
    """Return the means over the seeds, ends of intervals too; numbers that one seed lacks are NaN."""

    def values(metric: str, column: str) -> np.ndarray:
        return np.array([rows.set_index("metric")[column][metric] for rows in seeds], dtype=np.float64)

    numbers: dict[str, float] = {}
    for metric in DECIMALS:
        value, low, high = (values(metric, column) for column in ("value", "low", "high"))
        ends = mean_interval(value, low, high, most=MOST.get(metric, 1.0))
        numbers |= {metric: float(value.mean()), **dict(zip((f"{metric}_low", f"{metric}_high"), ends, strict=True))}
    counts = {
        "scored_images": values("mask_share", "n"),
        COUNTED: values(COUNTED, "value"),
        "images": values(COUNTED, "n"),
    }
    return numbers | {name: float(count.mean()) for name, count in counts.items()} | {"seeds": len(seeds)}


def _text(numbers: dict[str, float], metric: str) -> str:
    """Return ``value (low–high)``; for the area, which no network decides, the value alone."""
    value, low, high = (numbers[metric + end] for end in ("", "_low", "_high"))
    text = number(value, DECIMALS[metric])
    if metric == "mask_area" or text == NONE or math.isnan(low + high):
        return text
    return f"{text} ({number(low, DECIMALS[metric])}–{number(high, DECIMALS[metric])})"
