"""Do the paper's printed scores belong to a confusion matrix, and under which reading of their columns?

A row of Tables 2 to 4 prints six scores of one test set. All six follow from four integers, so a row can be tried
against every confusion matrix of every admissible test set. A ``Reading`` says in which printed column each score of
malignant stands; the counts of all readings are those of malignant as the positive class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from bench.confusion_search import EPSILON, ROUNDING, ClassSizes, Floats, fitting_matrices, nearest_matrix
from bench.paper import SCORES, paper_metrics, paper_table

Row = Mapping[Any, Any]
"""A printed row: its six scores by their names, and more."""
TEST_SHARE = 0.2
"""Of the augmented images (section 2.3.4)."""
SLACK = 10
"""Images of a class by which the test set may differ from its stated size, as splitting rules round differently."""
COLUMNS = SCORES[:4]
"""The printed columns that a mix-up can exchange; accuracy and kappa are the same whichever class is positive."""
TABLES = {"model1": "table2", "model2": "table3", "model3": "table4"}
COUNTS = ("tp", "fn", "fp", "tn")
EXCESS = 2 * ROUNDING + EPSILON
"""Largest distance of a printed accuracy from a weighted mean of two printed scores: all three are rounded."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the printed columns may have been meant."""

    key: str
    """One letter, for the columns of a table."""
    name: str
    columns: tuple[str, str, str, str]
    """The printed columns in which malignant's sensitivity, specificity, ppv and npv stand."""

    def printed_column(self, score: str) -> str:
        """Return the printed column in which malignant's ``score`` stands."""
        return dict(zip(COLUMNS, self.columns, strict=True)).get(score, score)


# a matrix printed transposed (rows for columns) exchanges sensitivity with ppv, and specificity with npv
READINGS = {
    reading.key: reading
    for reading in (
        Reading(key="A", name="positive malignant, as printed", columns=("sensitivity", "specificity", "ppv", "npv")),
        Reading(key="B", name="positive malignant, transposed", columns=("ppv", "npv", "sensitivity", "specificity")),
        Reading(key="C", name="positive benign, as printed", columns=("specificity", "sensitivity", "npv", "ppv")),
        Reading(key="D", name="positive benign, transposed", columns=("npv", "ppv", "specificity", "sensitivity")),
    )
}
OTHER_ORDERS = sorted(set(permutations(COLUMNS)) - {reading.columns for reading in READINGS.values()})
"""The 20 other ways to assign the four columns to the four scores."""
LEFT_OUT = (*((score,) for score in SCORES), ("accuracy", "kappa"))
"""Columns without which a row is tried again, to find a misprint."""


def stated_sizes() -> ClassSizes:
    """Return 20 % of the augmented images of Table 1, rounded: 483 malignant and 560 benign."""
    table = paper_table(1)
    malignant, benign = (round(TEST_SHARE * int(table[f"{name}_augmented"].sum())) for name in ("malignant", "benign"))
    return ClassSizes(malignant=(malignant,), benign=(benign,))


def admissible_sizes() -> ClassSizes:
    """Return the test sets within ``SLACK`` images a class of the stated one; that is in the middle."""
    stated = stated_sizes()
    malignant, benign = (tuple(range(size - SLACK, size + SLACK + 1)) for size in (*stated.malignant, *stated.benign))
    return ClassSizes(malignant=malignant, benign=benign)


def printed_scores() -> pd.DataFrame:
    """Return the 34 rows of Tables 2 to 4 as printed: columns ``table``, ``cell`` and the six scores."""
    metrics = paper_metrics()
    models = metrics["cell"].str.partition("/")[0]
    metrics = metrics[models.isin(list(TABLES)) & metrics["metric"].isin(SCORES)]
    cells = list(metrics["cell"].unique())
    frame = metrics.pivot(index="cell", columns="metric", values="value").loc[cells, list(SCORES)].reset_index()
    frame.insert(0, "table", [TABLES[cell.partition("/")[0]] for cell in cells])
    return frame.rename_axis(columns=None)


# -- evidence --------------------------------------------------------------------------------------------------------


def read_row(row: Row, columns: Sequence[str]) -> Floats:
    """Return the scores [6] of malignant that a printed ``row`` gives, its first four standing in ``columns``."""
    return np.array([row[name] for name in (*columns, *SCORES[4:])], dtype=float)


def accuracy_excess(scores: Floats, stated: ClassSizes) -> float:
    """Return accuracy − the mean of sensitivity and specificity weighted by the class sizes.

    It is 0 for a test set of these sizes, and as well for the means over several such test sets, whatever their
    confusion matrices; for printed scores it is within ``EXCESS``.
    """
    (malignant,), (benign,) = stated.malignant, stated.benign
    return float(scores[4] - (malignant * scores[0] + benign * scores[1]) / (malignant + benign))


def fits(printed: pd.DataFrame, sizes: ClassSizes) -> pd.DataFrame:
    """Return one line per row of ``printed`` and reading, in this order.

    Args:
        printed: as ``printed_scores`` returns it.
        sizes: admissible test sets, the stated one in the middle.

    Returns:
        ``table``, ``cell``, ``reading`` (its key), ``matrices`` (how many give all six scores within rounding),
        ``matrices_truncated`` (the same if the scores were cut, not rounded), ``accuracy_excess`` at the stated sizes.
    """
    return pd.DataFrame(
        {
            "table": row["table"],
            "cell": row["cell"],
            "reading": key,
            "matrices": len(fitting_matrices(scores, sizes)),
            "matrices_truncated": len(fitting_matrices(scores, sizes, truncated=True)),
            "accuracy_excess": accuracy_excess(scores, sizes.middle),
        }
        for row in printed.to_dict("records")
        for key, reading in READINGS.items()
        for scores in [read_row(row, reading.columns)]
    )


def nearest(printed: pd.DataFrame, sizes: ClassSizes) -> pd.DataFrame:
    """Return the nearest matrix of every line of ``fits``, ``tp, fn, fp, tn``, and its ``residual``."""
    found = [
        nearest_matrix(read_row(row, reading.columns), sizes)
        for row in printed.to_dict("records")
        for reading in READINGS.values()
    ]
    return pd.DataFrame([matrix for matrix, _ in found], columns=list(COUNTS)).assign(
        residual=[residual for _, residual in found]
    )


# -- verdicts --------------------------------------------------------------------------------------------------------


def established(evidence: pd.DataFrame) -> dict[str, Reading | None]:
    """Return the established reading of each table in ``evidence`` of ``fits``; None where there is none.

    A reading is established for a table if it alone stands in every row: it has a matrix, or no reading has one and
    its ``accuracy_excess`` is explained by rounding.
    """
    has_one = evidence["matrices"] > 0
    none_has = ~has_one.groupby([evidence["table"], evidence["cell"]]).transform("any")
    stands = has_one | (none_has & (evidence["accuracy_excess"].abs() <= EXCESS))
    found: dict[str, Reading | None] = {}
    for table, lines in evidence.assign(stands=stands).groupby("table", sort=False):
        keys = [key for key in READINGS if lines.loc[lines["reading"] == key, "stands"].all()]
        found[str(table)] = READINGS[keys[0]] if len(keys) == 1 else None
    return found


@cache
def paper_readings() -> dict[str, Reading | None]:
    """Return the established reading of ``table2``, ``table3`` and ``table4``."""
    return established(fits(printed_scores(), admissible_sizes()))


def accuracy_outside(row: Row) -> list[str]:
    """Return the pairs of printed columns that accuracy does not lie between, of two.

    Accuracy is a weighted mean of sensitivity and specificity, and of ppv and npv as well, whatever the class sizes;
    no reading parts these pairs. So if one is named, no confusion matrix of any test set gives the ``row``.
    """
    return [
        f"{one} and {other}"
        for one, other in (COLUMNS[:2], COLUMNS[2:])
        if not min(row[one], row[other]) - EXCESS <= row["accuracy"] <= max(row[one], row[other]) + EXCESS
    ]


def verdicts(printed: pd.DataFrame, evidence: pd.DataFrame, sizes: ClassSizes) -> pd.DataFrame:
    """Return one line per row of ``printed``.

    Args:
        printed: as ``printed_scores`` returns it.
        evidence: the columns of ``fits`` and ``nearest`` side by side.
        sizes: what both were made with.

    Returns:
        ``table``, ``cell``; ``verdict``: ``one reading`` or ``several readings`` has a matrix, ``no matrix``, or
        ``no matrix of any size``; ``fitting``, the keys of the readings that have one, and ``accuracy_holds``, of those
        whose ``accuracy_excess`` is explained by rounding, each joined by a space; the best ``reading``, which is one
        that fits or else of the smallest residual, the established one if in doubt; its columns of ``evidence``;
        ``accuracy_outside``;
        ``other_orders``, how many of ``OTHER_ORDERS`` have a matrix; and ``without``, the columns without which,
        alone or as named, the best reading would have one, if it has none.
    """
    of_tables = established(evidence)
    lines = []
    for row in printed.to_dict("records"):
        of_row = evidence[(evidence["table"] == row["table"]) & (evidence["cell"] == row["cell"])].copy()
        of_row["fits"] = of_row["matrices"] > 0
        of_row["holds"] = of_row["accuracy_excess"].abs() <= EXCESS
        of_row["near"] = -of_row["residual"].round(4)
        reading = of_tables[row["table"]]
        of_row["established"] = of_row["reading"] == (reading.key if reading else "")
        best = of_row.sort_values(["fits", "near", "established", "holds"], ascending=False, kind="stable").iloc[0]
        fitting = list(of_row.loc[of_row["fits"], "reading"])
        outside = accuracy_outside(row)
        lines.append(
            {
                "table": row["table"],
                "cell": row["cell"],
                "verdict": _verdict(fitting, outside),
                "fitting": " ".join(fitting),
                "accuracy_holds": " ".join(of_row.loc[of_row["holds"], "reading"]),
                **best[[name for name in evidence.columns if name not in ("table", "cell")]].to_dict(),
                "accuracy_outside": "; ".join(outside),
                "other_orders": sum(len(fitting_matrices(read_row(row, order), sizes)) > 0 for order in OTHER_ORDERS),
                "without": "" if fitting else ", ".join(_without(row, READINGS[best["reading"]], sizes)),
            }
        )
    return pd.DataFrame(lines)


def _verdict(fitting: list[str], outside: list[str]) -> str:
    if fitting:
        return "one reading" if len(fitting) == 1 else "several readings"
    return "no matrix of any size" if outside else "no matrix"


def _without(row: Row, reading: Reading, sizes: ClassSizes) -> list[str]:
    return [
        " and ".join(left_out)
        for left_out in LEFT_OUT
        if len(fitting_matrices(read_row({**row, **dict.fromkeys(left_out, np.nan)}, reading.columns), sizes))
    ]
