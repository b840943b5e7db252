"""An independent witness of the audit: mlscorecheck (Fazekas and Kovács, 2023), which shares no code with it."""

import logging

import pandas as pd

from bench.audit import READINGS, read_row
from bench.confusion_search import EPSILON, ROUNDING, ClassSizes, Floats

NAMES = ("sens", "spec", "ppv", "npv", "acc", "kappa")
"""The six scores in mlscorecheck's words."""


def witness_fits(scores: Floats, size: ClassSizes) -> bool:
    """Return whether mlscorecheck finds a confusion matrix of one test set that gives ``scores`` [6] within rounding.

    It solves for tp and tn by interval arithmetic, which for kappa lets pass a little more than ``ROUNDING``.

    Args:
        scores: of malignant, in the order of ``bench.paper.SCORES``.
        size: one test set.
    """
    from mlscorecheck.check.binary import check_1_testset_no_kfold

    logging.getLogger("mlscorecheck").setLevel(logging.WARNING)  # it tells every step on stderr
    (malignant,), (benign,) = size.malignant, size.benign
    found = check_1_testset_no_kfold(
        testset={"p": malignant, "n": benign}, scores=dict(zip(NAMES, scores.tolist(), strict=True)), eps=ROUNDING
    )
    return not found["inconsistency"]


def witness(printed: pd.DataFrame, evidence: pd.DataFrame) -> pd.DataFrame:
    """Ask for each line of ``evidence`` at the class sizes of its nearest matrix.

    Args:
        printed: as ``bench.audit.printed_scores`` returns it.
        evidence: the columns of ``bench.audit.fits`` and ``nearest`` side by side.

    Returns:
        ``cell``, ``reading``, ``residual``, and whether a matrix fits: ``ours``, ``mlscorecheck``.
    """
    rows = {row["cell"]: row for row in printed.to_dict("records")}
    lines = []
    for line in evidence.to_dict("records"):
        size = ClassSizes(malignant=(line["tp"] + line["fn"],), benign=(line["fp"] + line["tn"],))
        scores = read_row(rows[line["cell"]], READINGS[line["reading"]].columns)
        answers = {"ours": line["residual"] <= ROUNDING + EPSILON, "mlscorecheck": witness_fits(scores, size)}
        lines.append({**{name: line[name] for name in ("cell", "reading", "residual")}, **answers})
    return pd.DataFrame(lines)
