"""The paper's tables, built from result rows with the paper's numbers beside ours."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.audit import COLUMNS, paper_readings
from bench.paper import ABLATIONS, PRINTED_NAMES, PROPOSED, SCORES, SOURCES, paper_metrics, paper_table
from bench.report.audit_summary import reading_note
from bench.report.comparisons import compare_ranked, comparisons_table
from bench.report.composition import composition_tables
from bench.report.engines import engines, table5
from bench.report.explanations import current, explanations_table
from bench.report.layout import COMPARED, METRICS, NONE, Table, compared
from bench.report.leaderboard import is_ranked, leaderboard, ordered
from bench.report.measured import gather, up_to_date
from bench.report.notes import labels, phantom_notes, run_notes, status_notes
from bench.report.read import Results
from bench.report.subsets import subsets_table
from bench.report.summary import OUTCOME_COLUMNS, Printed, Summary, of_models, protocol_column, summarise, union
from fusion.catalog import LABEL_NAMES


def _two_names(name: str) -> tuple[str, str]:
    backbone, _, head = name.partition("+")
    return PRINTED_NAMES.get(backbone, backbone), PRINTED_NAMES.get(head, head)


def _epochs_and_batch(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"cnn17\+e(\d+)\+b(\d+)", name)
    return (match[1], match[2]) if match else (name, NONE)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One of Tables 2 to 4: a row per cell and protocol, the six scores as columns."""

    model: str
    title: str
    keys: tuple[str, str]
    keys_of: Callable[[str], tuple[str, str]]
    """From a cell's name behind its model to the values of ``keys``."""


SCORE_TABLES = {
    "table2": ScoreTable(
        model="model1",
        title="Model 1: classifiers on the features of frozen backbones (the paper's Table 2).",
        keys=("Backbone", "Classifier"),
        keys_of=_two_names,
    ),
    "table3": ScoreTable(
        model="model2",
        title="Model 2: backbones with all weights retrained (the paper's Table 3).",
        keys=("Backbone", "Optimizer"),
        keys_of=_two_names,
    ),
    "table4": ScoreTable(
        model="model3",
        title="Model 3: the 17-layer CNN (the paper's Table 4).",
        keys=("Epochs", "Batch size"),
        keys_of=_epochs_and_batch,
    ),
}
MARKED = ["cell", "protocol", "seed", "weights", "synthetic_sources", "data_hash"]
"""Columns of results and measurements alike, from which notes and labels are made."""


def build_tables(results: Results) -> dict[str, Table]:
    """Return Tables 1 to 6, the engines, the leaderboard and what its scores rest on, by name.

    Every planned cell is a row of Tables 2 to 4 and 6 under every protocol, failed ones and those not run too.
    Measurements and explanations of a cell that was run again since are left out.
    """
    run, rows, measurements = results.run, results.rows, results.measurements
    printed: Printed = {(row["cell"], row["metric"]): row["value"] for row in paper_metrics().to_dict("records")}
    order = {cell: place for place, cell in enumerate(dict.fromkeys(cell for cell, _ in printed))}
    protocols = union(run["protocols"], rows["protocol"])
    summaries = summarise(run, rows)
    # the paper's cells in its order, then the others in the order of the matrix
    summaries.sort(key=lambda s: (protocols.index(s.protocol), order.get(s.cell, len(order))))
    now = up_to_date(measurements, rows)
    explained, outdated = current(results)
    told = pd.concat([rows[MARKED], measurements.loc[now, MARKED], *(one.rows[MARKED] for one in explained.values())])
    notes = run_notes(run, told)
    measured = gather(measurements[now], outdated=measurements.loc[~now, "cell"])
    board = ordered(of_models(summaries, *(table.model for table in SCORE_TABLES.values()), "baseline"))
    ranked = [summary for summary in board if is_ranked(summary)]
    tested = compare_ranked(ranked, results.predictions)
    tables = (
        _counts(run["data"]["counts"], notes),
        *(_scores(name, summaries, printed, notes) for name in SCORE_TABLES),
        table5(run, measured, notes),
        _literature(run, summaries, printed, notes),
        engines(run, measured, notes),
        leaderboard(board, tested, printed, measured, notes),
        comparisons_table(ranked, tested, notes),
        subsets_table(run, rows, notes),
        *composition_tables(results, summaries, notes),
        explanations_table(explained, union(run["cells"], rows["cell"]), outdated, notes),
    )
    # a CSV file has no notes, and must say all the same what its numbers rest on
    marks = {column: " ".join(names) for column, names in labels(run, told).items()}
    return {table.name: _marked(table, marks) for table in tables}


def _marked(table: Table, marks: dict[str, str]) -> Table:
    every = None if table.every is None else table.every.assign(**marks)
    return replace(table, frame=table.frame.assign(**marks), every=every)


def prepared_table(counts: list[dict[str, Any]], synthetic_sources: list[str]) -> Table:
    """Return Table 1 for a prepared data set, from the ``counts`` and phantom sources of its manifest."""
    return _counts(counts, phantom_notes(synthetic_sources))


def _scores(name: str, summaries: list[Summary], printed: Printed, notes: tuple[str, ...]) -> Table:
    table = SCORE_TABLES[name]
    chosen = of_models(summaries, table.model)
    key_columns = [key.lower().replace(" ", "_") for key in table.keys]
    reading = paper_readings()[name]
    column = {metric: reading.printed_column(metric) if reading else metric for metric in SCORES}
    cells = union([], (summary.cell for summary in chosen))
    read = {(cell, metric): printed.get((cell, column[metric]), math.nan) for cell in cells for metric in SCORES}
    frame, display = [], []
    for summary in chosen:
        keys = table.keys_of(summary.cell.partition("/")[2])
        scores: dict[str, object] = {}
        for metric in SCORES:
            scores |= summary.comparison(metric, read)
        scores |= {f"{metric}_printed": printed.get((summary.cell, metric), math.nan) for metric in COLUMNS}
        scores["reading"] = reading.key if reading else "as printed"
        where = {"protocol": summary.protocol, "cell": summary.cell, **dict(zip(key_columns, keys, strict=True))}
        frame.append(where | scores | summary.outcome())
        display.append([summary.protocol, *keys, *(_shown(summary, metric, read) for metric in SCORES)])
    headings = [METRICS[metric].heading for metric in SCORES]
    score_columns = [f"{metric}_{part}" for metric in SCORES for part in ("paper", "ours", "difference")]
    score_columns += [*(f"{metric}_printed" for metric in COLUMNS), "reading"]
    return Table(
        name=name,
        title=f"{table.title} {COMPARED}",
        notes=(*notes, reading_note(name), *status_notes(chosen)),
        frame=pd.DataFrame(frame, columns=["protocol", "cell", *key_columns, *score_columns, *OUTCOME_COLUMNS]),
        display=pd.DataFrame(display, columns=["Protocol", *table.keys, *headings]),
        numbers=("Epochs", "Batch size", *headings),
        brief=(*protocol_column(chosen), *table.keys, METRICS["accuracy"].heading, METRICS["kappa"].heading),
        block="Protocol",
    )


def _shown(summary: Summary, metric: str, printed: Printed) -> str:
    return compared(summary.ours(metric), printed.get((summary.cell, metric), math.nan), METRICS[metric].decimals)


def _counts(found: list[dict[str, Any]], notes: tuple[str, ...]) -> Table:
    classes = tuple(LABEL_NAMES.values())
    ours = {
        (count["source"], count["modality"], LABEL_NAMES[count["label"]]): (count["images"], count["copies"])
        for count in found
    }
    paper = {
        (SOURCES[row["source"]], row["modality"], label): (row[f"{label}_original"], row[f"{label}_augmented"])
        for row in paper_table(1).to_dict("records")
        for label in classes
    }
    # a source's rows stand together, benign before malignant, which is how they sort
    keys = union(paper, sorted(ours))
    for name, summed in {**{label: (label,) for label in classes}, "both": classes}.items():
        total = ("total", "all", name)
        for counts in (ours, paper):
            pairs = [counts[key] for key in keys if key in counts and key[2] in summed]
            counts[total] = (sum(images for images, _ in pairs), sum(copies for _, copies in pairs))
    frame, display = [], []
    for key in union(keys, ours):
        row: dict[str, object] = dict(zip(("source", "modality", "label"), key, strict=True))
        shown = list(key)
        nothing = (math.nan, math.nan)
        for kind, mine, theirs in zip(
            ("original", "augmented"), ours.get(key, nothing), paper.get(key, nothing), strict=True
        ):
            row |= {f"{kind}_paper": theirs, f"{kind}_ours": mine, f"{kind}_difference": mine - theirs}
            shown.append(compared(mine, theirs, 0))
        frame.append(row)
        display.append(shown)
    headings = ["Source", "Modality", "Class", "Images", "Rows after augmentation"]
    return Table(
        name="table1",
        title=f"Images of every source, before and after augmentation (the paper's Table 1). {COMPARED}",
        notes=(
            *notes,
            "counts before the split; protocol clean augments its training rows only and drops images shown under "
            "both classes",
        ),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display, columns=headings),
        numbers=tuple(headings[3:]),
        block="Source",
    )


def _literature(run: dict[str, Any], summaries: list[Summary], printed: Printed, notes: tuple[str, ...]) -> Table:
    chosen = of_models(summaries, "ablation")
    decimals = METRICS["accuracy"].decimals
    paper = [{str(key): value for key, value in row.items()} for row in paper_table(6).to_dict("records")]
    proposed = {f"ablation/cnn17+{ABLATIONS[row['data']]}": row for row in paper if row["authors"] == PROPOSED}
    frame: list[dict[str, Any]] = []
    display = []

    def add(row: dict[str, Any], size_ours: float, scores: dict[str, float], shown: str) -> None:
        what = {key: row[key] for key in ("protocol", "cell", "authors", "year", "data", "methods")}
        sizes = {"sample_size_paper": row["sample_size"], "sample_size_ours": size_ours}
        frame.append(what | sizes | scores | {key: row[key] for key in OUTCOME_COLUMNS})
        size = compared(size_ours, row["sample_size"], 0)
        display.append(
            [row["protocol"] or NONE, row["authors"], f"{row['year']}", row["data"], size, row["methods"], shown]
        )

    others = {"protocol": "", "cell": "", "seeds": 0, "status": "literature", "reason": ""}
    for row in paper:
        if row["authors"] != PROPOSED:
            scores = {"accuracy_paper": row["accuracy"], "accuracy_ours": math.nan, "accuracy_difference": math.nan}
            add({**others, **row}, math.nan, scores, compared(NONE, row["accuracy"], decimals))
    for summary in chosen:
        network, _, data = summary.cell.partition("/")[2].partition("+")
        unprinted: dict[str, Any] = {
            "authors": "this run",
            "year": NONE,
            "data": data,
            "methods": network,
            "sample_size": math.nan,
        }
        row = proposed.get(summary.cell, unprinted)
        where = {"protocol": summary.protocol, "cell": summary.cell, **summary.outcome()}
        scores = summary.comparison("accuracy", printed)
        add({**row, **where}, _images(run, data), scores, _shown(summary, "accuracy", printed))
    headings = ["Protocol", "Authors", "Year", "Data", "Images", "Methods", METRICS["accuracy"].heading]
    return Table(
        name="table6",
        title=f"The 17-layer CNN on one modality and on both, beside other authors (the paper's Table 6). {COMPARED}",
        notes=(*notes, *status_notes(chosen)),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display, columns=headings),
        numbers=("Year", "Images", METRICS["accuracy"].heading),
        brief=(*protocol_column(chosen), "Authors", "Year", "Data", METRICS["accuracy"].heading),
        block="Protocol",
    )


def _images(run: dict[str, Any], data: str) -> float:
    """Return how many images of the run's data an ablation reads: of one modality, or of all when fused."""
    images = [count["images"] for count in run["data"]["counts"] if data in ("fused", count["modality"])]
    return sum(images) if images else math.nan
