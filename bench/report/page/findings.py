"""What the page says in plain words before its first table: what the run is, and what came of it."""

import math
from collections.abc import Mapping
from typing import Any

from bench.report.comparisons import MODALITY
from bench.report.layout import NONE, Table, number
from bench.report.read import Results
from bench.report.summary import union
from fusion.text import one_line


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    """Return name and value of what a reader must know of the run before any number."""
    run = results.run
    data, counts = run["data"], run["data"]["counts"]
    machines = union([], (_machine(one) for one in run.get("environments", {}).values()))
    sources = union([], (count["source"] for count in counts))
    side = data["image_size"]
    return (
        ("Matrix", f"{run['matrix'].get('name', '')}, {len(run['cells'])} cells"),
        ("Images", f"{sum(count['images'] for count in counts)} of {', '.join(sources) or 'no source'}"),
        ("Pixels", f"{side} × {side}"),
        ("Protocols", ", ".join(union(run["protocols"], results.rows["protocol"]))),
        ("Seeds", ", ".join(str(seed) for seed in union(run["seeds"], results.rows["seed"]))),
        ("Weights", run["weights"]),
        ("Run on", "; ".join(machines) or "not recorded"),
        ("Measured on", "; ".join(union([], results.measurements["machine"])) or "not measured"),
        ("Data", data["data_hash"][:12]),
    )


def findings(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """Return what a reader takes away: the outcome, the best model and who overlaps it, the fastest engine."""
    board = tables["leaderboard"].frame
    sentences = []
    for protocol, group in board.groupby("protocol", sort=False):
        sentences += [_outcome(str(protocol), group), *_best(str(protocol), group)]
    return (*sentences, *_fastest(tables["engines"]))


def _outcome(protocol: str, group: Any) -> str:
    counts = group["status"].value_counts()
    others = ", ".join(f"{counts[status]} {status}" for status in counts.index if status != "done")
    return f"Protocol {protocol}: {counts.get('done', 0)} of {len(group)} models done{', ' + others if others else ''}."


def _best(protocol: str, group: Any) -> list[str]:
    ranked = group[group["rank"].notna()].sort_values("rank", kind="stable")
    if ranked.empty:
        return []
    best = ranked.iloc[0]
    low, high = float(best["accuracy_low"]), float(best["accuracy_high"])
    interval = "" if math.isnan(low + high) else f" (95 % interval {number(low, 3)}–{number(high, 3)})"
    accuracy = f"{number(best['accuracy_ours'], 3)}{interval}"
    sentence = f"Most accurate under {protocol}: {best['cell']} with {accuracy}"
    if sharing := int((ranked["rank"] == best["rank"]).sum()) - 1:
        sentence += f"; {sharing} others share its place, as no test tells them apart from it"
    if best["versus_modality"] != NONE:
        sentence += f"; against {MODALITY}, which is told the modality alone: {best['versus_modality']}"
    return [sentence + "."]


def _fastest(table: Table) -> list[str]:
    frame = table.frame
    ranked = frame[frame["rank"].notna() & frame["ratio"].notna()]
    if ranked.empty:
        return ["No engine was measured."]
    best = ranked.iloc[int(ranked["ratio"].astype(float).argmax())]
    return [
        f"Fastest against PyTorch: {best['engine']} {best['precision']} on {best['machine']}, "
        f"{number(float(best['ratio']), 1)} times as fast for {best['cell']} with batch {best['batch']:.0f}."
    ]


def _machine(environment: Any) -> str:
    if not isinstance(environment, dict):
        return "not recorded"
    gpu = environment.get("gpu")
    name = gpu.get("name") if isinstance(gpu, dict) else None
    return one_line(f"{name or environment.get('cpu', 'unknown')}, {environment.get('cpu_cores', '?')} cores", 60)
