"""The plots that answer to the pointer: their data for ``page.js``, and the same numbers as a table."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.curves import SEEDS_RULE, family, pareto_points, roc_points
from bench.report.layout import NONE, Table, number
from bench.report.measured import three_digits
from bench.report.page.provenance import Origin
from bench.report.page.views import View, view
from bench.report.read import Results
from bench.report.summary import union
from fusion.text import one_line


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot."""

    id: str
    title: str
    caption: str
    data: dict[str, Any]
    """For ``page.js``: ``kind``, and the curves or points."""
    names: tuple[str, ...]
    """Of the curves or points, in the order of ``data``."""
    numbers: View
    """The same for a reader who does not see it."""


def roc_plots(results: Results, origins: Mapping[tuple[str, str], Origin], run_dir: Path) -> list[Plot]:
    """Return a plot of ROC curves for every protocol and family of cells."""
    plots = []
    points = roc_points(results)
    seeds = f" {SEEDS_RULE[0].upper()}{SEEDS_RULE[1:]}." if (points["seeds"] > 1).any() else ""
    protocols = union(results.run["protocols"], points["protocol"])
    families = union((family(cell) for cell in results.run["cells"]), points["family"])
    groups = dict(list(points.groupby(["protocol", "family"], sort=False)))
    keys = [key for key in product(protocols, families) if key in groups]
    for place, key in enumerate(keys):
        group = groups[key]
        curves = list(_curves(group))
        drawn = [curve for curve, _ in curves if not math.isnan(curve["auc_value"])]
        drawn.sort(key=lambda curve: -curve["auc_value"])
        title = f"{one_line(key[1], 40)}, protocol {one_line(key[0], 40)}"
        plots.append(
            Plot(
                id=f"roc-{place}",
                title=f"ROC curves of {title}",
                caption="With the curve that is chosen stands its pointwise 95 % band, by the bootstrap over groups. "
                f"AUC with its 95 % interval.{seeds}",
                data={"kind": "roc", "curves": [{k: v for k, v in c.items() if k != "auc_value"} for c in drawn]},
                names=tuple(f"{curve['name']}, {curve['auc']}" for curve in drawn),
                numbers=view(_roc_numbers(f"roc-{place}", title, group), (), origins, run_dir),
            )
        )
    return plots


def cost_plots(tables: Mapping[str, Table], origins: Mapping[tuple[str, str], Origin], run_dir: Path) -> list[Plot]:
    """Return a plot of accuracy against latency for every protocol, none where nothing was measured."""
    plots = []
    for place, (protocol, group) in enumerate(pareto_points(dict(tables)).groupby("protocol", sort=False)):
        machines = ", ".join(filter(None, dict.fromkeys(group["machine"])))
        where = f" on {one_line(machines)}" if machines else ""
        title = f"Accuracy against latency, protocol {one_line(str(protocol), 40)}"
        points = [_point(row) for row in group.to_dict("records")]
        plots.append(
            Plot(
                id=f"cost-{place}",
                title=title,
                caption=f"Latency: median time of one image{where}, by the fastest engine at parity. Area: size of the "
                "parameters. The line: what accuracy can be had in a given time. A thick edge: no other model is as "
                "accurate, as fast and as small. With the point that is chosen stands its 95 % interval.",
                data={"kind": "cost", "points": points, "x_title": "p50 of one image, ms", "y_title": "accuracy"},
                names=tuple(point["name"] for point in points),
                numbers=view(_cost_numbers(f"cost-{place}", title, group), (), origins, run_dir),
            )
        )
    return plots


def _curves(group: pd.DataFrame) -> Iterator[tuple[dict[str, Any], str]]:
    for cell, curve in group.groupby("cell", sort=False):
        columns = {name: [round(value, 4) for value in curve[name]] for name in ("fpr", "tpr", "low", "high")}
        auc = float(curve["auc"].iloc[0])
        yield {"name": one_line(str(cell)), **columns, "auc": f"AUC {_auc(curve.iloc[0])}", "auc_value": auc}, str(cell)


def _auc(row: Any) -> str:
    value, low, high = (float(row[name]) for name in ("auc", "auc_low", "auc_high"))
    if math.isnan(value):
        return "undefined (one class only)"
    return number(value, 3) + ("" if math.isnan(low + high) else f" ({number(low, 3)}–{number(high, 3)})")


def _roc_numbers(name: str, title: str, group: pd.DataFrame) -> Table:
    frame = group.drop_duplicates("cell").reset_index(drop=True)
    rates = (0.05, 0.1, 0.2, 0.5)
    display = []
    for row in frame.to_dict("records"):
        curve = group[group["cell"] == row["cell"]]
        reached = [float(curve.loc[(curve["fpr"] - rate).abs().idxmin(), "tpr"]) for rate in rates]
        display.append([str(row["cell"]), _auc(row), *(number(value, 3) for value in reached)])
    headings = ["AUC", *(f"Sens. at {rate:.0%} false positives" for rate in rates)]
    return Table(
        name=name,
        title=f"AUC (95 % interval) and sensitivities of {title}",
        notes=(),
        frame=frame,
        display=pd.DataFrame(display, columns=["Model", *headings]),
        numbers=tuple(headings),
    )


def _point(row: Mapping[Any, Any]) -> dict[str, Any]:
    accuracy, low, high = (float(row[name]) for name in ("accuracy", "accuracy_low", "accuracy_high"))
    name = one_line(str(row["cell"]))
    bounded = not math.isnan(low + high)
    interval = f" ({number(low, 3)}–{number(high, 3)})" if bounded else ""
    lines = (
        f"accuracy {number(accuracy, 3)}{interval}",
        f"p50 {three_digits(float(row['latency_p50_ms']))} ms",
        one_line(f"{row['engine']} {row['precision']}"),
        f"{number(float(row['parameter_mib']), 1)} MiB of parameters",
        *(["no other is as accurate, as fast and as small"] if row["on_front"] else []),
    )
    return {
        "name": name,
        "x": float(row["latency_p50_ms"]),
        "y": accuracy,
        "low": low if bounded else None,
        "high": high if bounded else None,
        "size": float(row["parameter_mib"]),
        "front": bool(row["on_front"]),
        "text": "\n".join(lines),
    }


def _cost_numbers(name: str, title: str, group: pd.DataFrame) -> Table:
    frame = group.reset_index(drop=True)
    display = [
        [
            str(row["cell"]),
            number(row["accuracy"], 3),
            three_digits(row["latency_p50_ms"]),
            number(row["parameter_mib"], 1),
            f"{row['engine']} {row['precision']}",
            "yes" if row["on_front"] else NONE,
        ]
        for row in frame.to_dict("records")
    ]
    return Table(
        name=name,
        title=title,
        notes=(),
        frame=frame,
        display=pd.DataFrame(display, columns=["Model", "Acc.", "p50, ms", "MiB", "Engine", "On the front"]),
        numbers=("Acc.", "p50, ms", "MiB"),
    )
