"""An independent witness of the audit: mlscorecheck (Fazekas and Kovács, 2023), which shares no code with it."""

import logging

from bench.confusion_search import ROUNDING, ClassSizes, Floats

NAMES = ("sens", "spec", "ppv", "npv", "acc", "kappa")
"""The six scores in mlscorecheck's words."""


def witness_fits(scores: Floats, size: ClassSizes) -> bool:
    """Return whether mlscorecheck finds a confusion matrix of one test set that gives ``scores`` [6] within rounding.

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
