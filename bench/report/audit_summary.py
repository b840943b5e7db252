"""The findings of ``fusebench audit`` in plain words, and what they mean for our own tables."""

import pandas as pd

from bench.audit import COLUMNS, READINGS, paper_readings
from bench.audit_claims import claims, sizes
from bench.confusion_search import ROUNDING
from bench.report.audit import paper_audit, sizes_in_words
from bench.report.layout import METRICS


def audit_summary() -> list[str]:
    """Return the findings in plain words, a sentence or two each; see ``paper_audit`` for the time."""
    _, judged = paper_audit()
    found = claims()
    fitting = judged[judged["fitting"] != ""]
    shared = [key for key in READINGS if fitting["fitting"].str.contains(key).all()]
    return [
        f"{len(fitting)} of {len(judged)} rows of Tables 2 to 4 have a confusion matrix among all those of "
        f"{sizes_in_words()}; reading {' or '.join(shared)} fits in all of these, alone in "
        f"{(fitting['verdict'] == 'one reading').sum()}.",
        *(_of_table(name, judged[judged["table"] == name]) for name in judged["table"].unique()),
        *_of_claims(found),
    ]


def reading_note(table: str) -> str:
    """Return what stands below our own ``table2``, ``table3`` or ``table4`` on how the paper's columns are read."""
    reading = paper_readings()[table]
    if reading is None:
        return "the paper's columns are compared as printed: no reading of them is established; see 'fusebench audit'"
    beside = ", ".join(
        f"beside our {METRICS[score].heading} its {METRICS[reading.printed_column(score)].heading}" for score in COLUMNS
    )
    return f"the paper's columns are read as {reading.name}: {beside} stands; see 'fusebench audit'"


def _of_table(name: str, rows: pd.DataFrame) -> str:
    title = f"Table {name.removeprefix('table')}"
    reading = paper_readings()[name]
    without = rows[rows["fitting"] == ""]
    impossible = rows[rows["verdict"] == "no matrix of any size"]
    if reading is None:
        explained = rows[rows["accuracy_holds"] != ""]
        return (
            f"{title}: no reading is established. {len(without)} of {len(rows)} rows have no confusion matrix, "
            f"{len(impossible)} of them for no test set of any size, and in {len(rows) - len(explained)} no reading "
            "explains the accuracy, not even as a mean over several runs."
        )
    near = (without["residual"] < 2 * ROUNDING).sum()
    meant = ", ".join(f"{score} under {reading.printed_column(score)}" for score in COLUMNS)
    accurate = {key: rows["accuracy_holds"].str.contains(key).sum() for key in READINGS}
    others = max(count for key, count in accurate.items() if key != reading.key)
    has_one = f"it has a matrix in all {len(rows) - len(without)} rows that have one, and " * (len(without) < len(rows))
    return (
        f"{title}: reading {reading.key}, {reading.name}, is established: {has_one}in {accurate[reading.key]} of "
        f"{len(rows)} rows accuracy is the mean of its two recalls weighted by class sizes (under any other in "
        f"{others} at most). Malignant's scores stand so: {meant}. {len(without)} rows have no single confusion matrix "
        f"({near} miss one by less than 0.001): they may be means over several runs, or misprinted."
    )


def _of_claims(found: pd.DataFrame) -> list[str]:
    lines = []
    for name, title in {"text": "Text", "table1": "Table 1", "table3": "Table 3", "table5": "Table 5"}.items():
        of_name = found[found["finding"] == name]
        wrong = [
            f"{row['where']}, {row['claim']}: {row['stated']} against {row['found']}"
            for row in of_name[of_name["agrees"] == "no"].to_dict("records")
        ]
        what = "scores of a row are those of a mean of three runs that decide all alike" * (name == "table3")
        agreed = f"{len(of_name) - len(wrong)} of {len(of_name)} {what or 'claims agree'}"
        if name == "table5":
            checked = sizes()
            off = checked[checked["agrees"] == "no"]
            agreed = f"{len(checked) - len(off)} of {len(checked)} sizes agree with the parameter counts"
            wrong = [
                f"{row['model']} is {row['ratio']:.1f} times the computed size" for row in off.to_dict("records")
            ] + wrong
        lines.append(f"{title}: {'; '.join([agreed, *wrong])}.")
    best, worst, apart = found[found["finding"] == "table6"].to_dict("records")
    lines.append(
        f"Table 6: accuracy {best['stated']} on fused images lies outside Table 4's {worst['found']} to "
        f"{best['found']}; a network for each modality reaches as much together ({apart['found']}, {apart['note']})."
    )
    return lines
