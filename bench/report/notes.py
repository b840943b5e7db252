"""What must be said under every table: what the numbers rest on, and which cells are missing."""

from typing import Any

import pandas as pd

from bench.report.layout import REASON_LENGTH
from bench.report.summary import Summary, union
from fusion.text import one_line

PROTOCOLS = {
    "paper": "images are pooled and augmented, then the augmented rows are split 80/20 as in the paper; copies of one "
    "image fall on both sides, so scores are optimistic by design",
    "clean": "groups (patient, lesion, duplicates) are split 80/20 first and only training rows are augmented; no "
    "group is on both sides",
}
RANDOM_WEIGHTS = "weights: random (not pre-trained): scores say nothing about the architectures"


def run_notes(run: dict[str, Any], rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the notes that every table of the run carries, warnings first."""
    data, marks = run["data"], labels(run, rows)
    protocols = union(run["protocols"], rows["protocol"])
    seeds = union(run["seeds"], rows["seed"])
    side = data["image_size"]
    weights, sources = marks["weights"], marks["synthetic_sources"]
    trained = [name for name in weights if name != "random"]
    return (
        *phantom_notes(sources),
        *([RANDOM_WEIGHTS] if "random" in weights else []),
        *([f"weights of the backbones: {', '.join(trained)}"] if trained else []),
        *(f"some rows were measured on other data ({code[:12]}) than this run's" for code in marks["data_hash"][1:]),
        "positive class: malignant; decided malignant when its probability is ≥ 0.5",
        *(f"protocol {name}: {PROTOCOLS.get(name, 'not described')}" for name in protocols),
        f"{side} × {side} pixels; {len(seeds)} seed{'s, values are their means' if len(seeds) > 1 else ''}; "
        f"data {data['data_hash'][:12]}",
    )


def phantom_notes(sources: list[str]) -> tuple[str, ...]:
    """Return the one note that names the phantom ``sources``, if there are any."""
    return (f"phantom data: {', '.join(sorted(sources))} — synthetic images, not patients",) if sources else ()


def status_notes(summaries: list[Summary]) -> tuple[str, ...]:
    """Return one note per status and reason for the cells that are not done, naming these cells."""
    if not summaries:
        return ("no cell of this table belongs to this run",)
    cells: dict[str, list[str]] = {}
    for summary in summaries:
        if summary.status != "done":
            reason = f" ({one_line(summary.reason, REASON_LENGTH)})" if summary.reason else ""
            cells.setdefault(summary.status + reason, []).append(f"{summary.cell} [{summary.protocol}]")
    return tuple(f"{what}: {', '.join(names)}" for what, names in cells.items())


def labels(run: dict[str, Any], rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return what every table is marked with: all the ``weights``, ``synthetic_sources`` and ``data_hash`` of a run.

    The rows are asked as well as the run: a run resumed with other weights or data keeps the mark of its first part.
    """
    # the 17-layer CNN starts from random weights always, which is no warning
    with_backbone = rows[rows["cell"].str.startswith(("model1/", "model2/"))]
    weights = union([run["weights"]], with_backbone["weights"])
    sources = union(run["data"]["synthetic_sources"], " ".join(rows["synthetic_sources"]).split())
    return {
        "weights": [name for name in weights if name],
        "synthetic_sources": sorted(sources),
        "data_hash": union([run["data"]["data_hash"]], (code for code in rows["data_hash"] if code)),
    }
