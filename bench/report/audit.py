"""The tables of ``fusebench audit``: the paper's printed numbers held against each other."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from bench.audit import (
    EXCESS,
    READINGS,
    SLACK,
    admissible_sizes,
    fits,
    nearest,
    printed_scores,
    stated_sizes,
    verdicts,
)
from bench.audit_claims import FINDINGS, SIZE_TOLERANCE, claims, sizes
from bench.report.layout import NONE, Table, number

TITLES = {
    "text": "What the text says of the tables.",
    "table1": "Table 1: its sums, its copies, and the sample sizes of Table 6.",
    "table3": "Table 3: one row, and the mean of three runs that give every image one class.",
    "table6": "Table 6 against Table 4, and against its own rows.",
}
KEYS = "; ".join(f"{key}: {reading.name}" for key, reading in READINGS.items())
TRANSPOSED = "transposed: sensitivity stands where ppv should and specificity where npv should, and the reverse"


@cache
def paper_audit() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the evidence (a line per row and reading) and the verdicts (a line per row) of Tables 2 to 4.

    It takes some seconds and is done once in a process; the frames are not to be changed.
    """
    printed, admissible = printed_scores(), admissible_sizes()
    evidence = pd.concat([fits(printed, admissible), nearest(printed, admissible)], axis=1)
    return evidence, verdicts(printed, evidence, admissible)


def audit_tables() -> dict[str, Table]:
    """Return a table per finding, by name; see ``paper_audit`` for the time."""
    evidence, judged = paper_audit()
    found = claims()
    of = {name: found[found["finding"] == name] for name in FINDINGS}
    tables = (
        _verdicts(judged),
        _residuals(evidence),
        _accuracy(evidence),
        *(_sizes(sizes(), lines) if name == "table5" else _claims(name, lines) for name, lines in of.items()),
    )
    return {table.name: table for table in tables}


def witness_table(answers: pd.DataFrame) -> Table:
    """Return how often mlscorecheck and our search agree, from the lines of ``bench.audit_witness.witness``."""
    ours, other = answers["ours"], answers["mlscorecheck"]
    cases = {
        "Both fit": ours & other,
        "None fits": ~ours & ~other,
        "Only ours": ours & ~other,
        "Only its": other & ~ours,
    }
    frame = pd.DataFrame(
        {"reading": key, **{name.lower().replace(" ", "_"): int((case & of_key).sum()) for name, case in cases.items()}}
        for key in READINGS
        for of_key in [answers["reading"] == key]
    )
    return Table(
        name="audit_witness",
        title="mlscorecheck as an independent witness: rows of Tables 2 to 4, at the sizes of our nearest matrix.",
        notes=tuple(
            f"{row['cell']}, reading {row['reading']}: only {'our search' if row['ours'] else 'mlscorecheck'} finds a "
            f"matrix; its residual is {number(row['residual'], 6)}"
            for row in answers[ours != other].to_dict("records")
        ),
        frame=frame,
        display=frame.astype(str).set_axis(["Reading", *cases], axis=1),
        numbers=tuple(cases),
    )


def _verdicts(judged: pd.DataFrame) -> Table:
    display = [
        [
            row["table"],
            row["cell"],
            row["reading"],
            *(f"{row[name]}" for name in ("tp", "fn", "fp", "tn")),
            number(row["residual"], 6),
            f"{row['matrices']}",
            _fitting(row),
            " or ".join(row["accuracy_holds"].split()) or NONE,
            row["without"] or NONE,
        ]
        for row in judged.to_dict("records")
    ]
    counts = ("TP", "FN", "FP", "TN")
    headings = ["Table", "Cell", "Best", *counts, "Residual", "Matrices", "Fits", "Accuracy fits", "Without"]
    return Table(
        name="audit_verdicts",
        title="Which confusion matrix gives a printed row? The best one, and the readings under which one fits.",
        notes=(
            KEYS,
            TRANSPOSED,
            f"test sets: {sizes_in_words()}, all of them and all their matrices; counts: malignant positive",
            "residual: largest distance of the best matrix from a printed score; up to 0.0005 it is rounding",
            "any size: accuracy is outside both printed scores of a pair whose weighted mean it must be, so no test "
            "set gives the row",
            "without: a matrix of the best reading gives the others if this column is left out: a misprint, maybe",
        ),
        frame=judged,
        display=pd.DataFrame(display, columns=headings),
        numbers=(*counts, "Residual", "Matrices"),
        brief=("Cell", "Best", *counts, "Residual", "Fits"),
        block="Table",
    )


def _fitting(row: Mapping[Any, Any]) -> str:
    if row["fitting"]:
        return " or ".join(row["fitting"].split())
    return "none, any size" if row["verdict"] == "no matrix of any size" else "none"


def _residuals(evidence: pd.DataFrame) -> Table:
    marked = evidence["residual"].map(lambda value: number(value, 6)) + evidence["matrices"].map(
        lambda count: "*" if count else ""
    )
    return _by_reading(
        evidence,
        marked,
        name="audit_residuals",
        title="Largest distance of the nearest confusion matrix from a printed score, by reading.",
        notes=("* a matrix gives all six scores within rounding", KEYS),
    )


def _accuracy(evidence: pd.DataFrame) -> Table:
    marked = evidence["accuracy_excess"].map(lambda value: number(value, 4)) + evidence["accuracy_excess"].map(
        lambda value: "*" if abs(value) <= EXCESS else ""
    )
    (malignant,), (benign,) = stated_sizes().malignant, stated_sizes().benign
    return _by_reading(
        evidence,
        marked,
        name="audit_accuracy",
        title="Accuracy − the mean of sensitivity and specificity weighted by class sizes, by reading.",
        notes=(
            f"{malignant} malignant and {benign} benign test images; * within rounding",
            "it is 0 for one test set and also for the mean over several runs, which has no confusion matrix",
            KEYS,
        ),
    )


def _by_reading(evidence: pd.DataFrame, texts: pd.Series, name: str, title: str, notes: tuple[str, ...]) -> Table:
    """Return a table of a row a cell, its frame holding all columns of ``evidence`` as ``<column>_<key>``."""
    keys = ["table", "cell"]
    rows = pd.MultiIndex.from_frame(evidence[keys].drop_duplicates())
    wide = evidence.pivot(index=keys, columns="reading").loc[rows]
    display = evidence.assign(text=texts).pivot(index=keys, columns="reading", values="text").loc[rows, list(READINGS)]
    return Table(
        name=name,
        title=title,
        notes=notes,
        frame=wide.set_axis(["_".join(column) for column in wide.columns], axis=1).reset_index(),
        display=display.reset_index().rename(columns={"table": "Table", "cell": "Cell"}).rename_axis(columns=None),
        numbers=tuple(READINGS),
        brief=("Cell", *READINGS),
        block="Table",
    )


def _claims(name: str, lines: pd.DataFrame) -> Table:
    shown = lines[["where", "claim", "stated", "found", "agrees", "note"]].astype(str)
    return Table(
        name=f"audit_{name}",
        title=TITLES[name],
        notes=(f"{(lines['agrees'] == 'yes').sum()} of {len(lines)} agree in the decimals printed",),
        frame=lines.reset_index(drop=True),
        display=shown.rename(columns=str.capitalize).reset_index(drop=True),
        numbers=("Stated", "Found"),
        brief=("Where", "Claim", "Stated", "Found", "Agrees"),
    )


def _sizes(lines: pd.DataFrame, of_cnn: pd.DataFrame) -> Table:
    display = [
        [
            row["model"],
            f"{row['classes']}",
            f"{row['values']}",
            number(row["size_mib_paper"], 1),
            number(row["size_mib"], 1),
            number(row["ratio"], 2),
            row["agrees"],
        ]
        for row in lines.to_dict("records")
    ]
    return Table(
        name="audit_table5",
        title="Table 5: printed sizes against what the networks' parameters take.",
        notes=(
            "printed: its MB, read as MiB; ours: parameters and buffers as float32, with 1000 classes for the "
            "extractors of Model 1",
            f"agrees: printed is up to {100 * SIZE_TOLERANCE:.0f} % above ours",
            *(
                f"{row['claim']}: {row['stated']} and {row['found']} for one network"
                for row in of_cnn.to_dict("records")
            ),
        ),
        frame=lines,
        display=pd.DataFrame(display, columns=["Model", "Classes", "Values", "Printed", "Ours", "Ratio", "Agrees"]),
        numbers=("Classes", "Values", "Printed", "Ours", "Ratio"),
        brief=("Model", "Printed", "Ours", "Ratio", "Agrees"),
    )


def sizes_in_words() -> str:
    """Return the admissible test sets, e.g. ``473 to 493 malignant and 550 to 570 benign``."""
    stated = stated_sizes()
    return " and ".join(
        f"{size - SLACK} to {size + SLACK} {name}"
        for (size,), name in ((stated.malignant, "malignant"), (stated.benign, "benign"))
    )
