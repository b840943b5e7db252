"""What the paper states in one place, against what follows from another: text, Tables 1, 3, 5 and 6."""

import math
from typing import Any

import numpy as np
import pandas as pd

from bench.audit import stated_sizes
from bench.confusion_search import EPSILON, matrix_scores
from bench.paper import BACKBONES, CLASSIFIERS, PROPOSED, SCORES, paper_table, text_claims

TOTALS = {"benign_original": 1733, "malignant_original": 1472, "benign_augmented": 2799, "malignant_augmented": 2414}
"""The last line of Table 1, which the paper repeats in section 2."""
VALUES = {
    ("efficientnet_b0", 1000): 5_330_564,
    ("efficientnet_b0", 2): 4_052_126,
    ("inception_v3", 1000): 23_869_000,
    ("inception_v3", 2): 21_824_098,
    ("mobilenet_v2", 1000): 3_538_984,
    ("mobilenet_v2", 2): 2_260_546,
    ("resnet101", 1000): 44_654_504,
    ("resnet101", 2): 42_609_602,
    ("resnet50", 1000): 25_610_152,
    ("resnet50", 2): 23_565_250,
    ("cnn17", 2): 177_656_070,
}
"""Parameters and floating-point buffers by network and classes, from the code of ``fusion.models`` and timm; noted
here as building them takes longer than the whole audit. The 17-layer CNN is ours, made to meet the printed size."""
SIZE_TOLERANCE = 0.07
"""Share by which a printed size may be larger than our own: the paper's toolbox keeps a record of each layer."""
SAME_DECIMALS = 0.0005 + EPSILON
CONSTANT_RUNS = {"benign": 2, "malignant": 1}
"""Three runs, each of which gives every image one class: what one row of Table 3 looks like."""
CONSTANT_ROW = ("InceptionV3", "RMSprop")
FINDINGS = ("text", "table1", "table3", "table5", "table6")


def claims() -> pd.DataFrame:
    """Return one line per claim.

    Returns:
        ``finding`` (one of ``FINDINGS``), ``where`` it is stated, ``claim``, ``stated`` and ``found`` as printed,
        ``difference`` (stated − found, NaN between words), ``agrees`` (``yes`` or ``no``), and ``note``.
    """
    return pd.DataFrame([*_text(), *_table1(), *_table3(), *_table5(), *_table6()])


def sizes() -> pd.DataFrame:
    """Return Table 5's sizes against the parameter counts.

    Returns:
        ``model`` as printed, ``network``, ``classes`` (1000 for the feature extractors of Model 1, else 2), ``values``
        (parameters and floating-point buffers), ``size_mib_paper`` (its MB read as MiB), ``size_mib`` as float32,
        ``ratio`` paper / ours, and ``agrees``: ``yes`` if 1 to 1 + ``SIZE_TOLERANCE``.
    """
    lines = []
    for row in paper_table(5).to_dict("records"):
        name, _, end = row["model"].partition(" + ")
        network, classes = BACKBONES.get(name, "cnn17"), 1000 if end in CLASSIFIERS else 2
        values = VALUES[network, classes]
        mib = values * 4 / 2**20
        ratio = row["parameter_size_mb"] / mib
        lines.append(
            {
                "model": row["model"],
                "network": network,
                "classes": classes,
                "values": values,
                "size_mib_paper": row["parameter_size_mb"],
                "size_mib": mib,
                "ratio": ratio,
                "agrees": "yes" if 1 <= ratio <= 1 + SIZE_TOLERANCE else "no",
            }
        )
    return pd.DataFrame(lines)


def constant_runs() -> dict[str, float]:
    """Return the printed columns of the mean over ``CONSTANT_RUNS``, benign positive and the matrix transposed.

    A score that is undefined in a run is left out of its mean.
    """
    (malignant,), (benign,) = stated_sizes().malignant, stated_sizes().benign
    of_benign = {"benign": (benign, 0, malignant, 0), "malignant": (0, benign, 0, malignant)}
    runs = [of_benign[name] for name, times in CONSTANT_RUNS.items() for _ in range(times)]
    means = dict(zip(SCORES, np.nanmean(matrix_scores(*np.array(runs, dtype=float).T), axis=1).tolist(), strict=True))
    exchanged = {"sensitivity": "ppv", "specificity": "npv", "ppv": "sensitivity", "npv": "specificity"}
    return {name: means[exchanged.get(name, name)] for name in SCORES}


def _text() -> list[dict[str, Any]]:
    lines = []
    for row in text_claims().to_dict("records"):
        stated: str | float = row["value"]
        found: str | float
        if row["where"] == "table 6":
            continue  # a finding of its own
        if row["metric"] == "batch sizes":
            found = " and ".join(sorted({f"{line['batch_size']}" for line in paper_table(4).to_dict("records")}))
        else:
            table = paper_table(int(row["model"].split()[1]) + 1).to_dict("records")
            stated, found = float(stated), max(table, key=lambda line: line["accuracy"])[row["metric"]]
        note = "" if "disagree" in row["note"] else row["note"]
        lines.append(_line("text", row["where"], f"{row['model']}: {row['metric']}", stated, found, note))
    return lines


def _table1() -> list[dict[str, Any]]:
    table = paper_table(1)
    lines = [
        _line("table1", "table 1, total", name.replace("_", ", "), total, int(table[name].sum()), "sum of the sources")
        for name, total in TOTALS.items()
    ]
    images = table["benign_original"] + table["malignant_original"]
    sums = {name: int(images[table["modality"] == name].sum()) for name in ("ultrasound", "mammography")}
    sums["fusion"] = sum(sums.values())
    lines += [
        _line(
            "table1", "table 6", f"sample size, {row['data']}", row["sample_size"], sums[row["data"]], "sum of images"
        )
        for row in _proposed().to_dict("records")
    ]
    copies = {
        f"{row['source']}, {name}": row[f"{name}_augmented"] / row[f"{name}_original"]
        for row in table.to_dict("records")
        for name in ("benign", "malignant")
    }
    lines += [
        _line("table1", "table 1", f"rows per image, {what}", round(number), number, "a whole number of copies")
        for what, number in copies.items()
    ]
    return lines


def _table3() -> list[dict[str, Any]]:
    table = paper_table(3)
    (row,) = table[(table["backbone"] == CONSTANT_ROW[0]) & (table["optimizer"] == CONSTANT_ROW[1])].to_dict("records")
    return [
        _line("table3", f"table 3, {' + '.join(CONSTANT_ROW)}", name, row[name], value, "mean of three constant runs")
        for name, value in constant_runs().items()
    ]


def _table5() -> list[dict[str, Any]]:
    one, other = (row["size_mib_paper"] for row in sizes().to_dict("records") if row["network"] == "cnn17")
    return [_line("table5", "table 5", "MB of the 17-layer CNN", one, other, "its other line: the same network")]


def _table6() -> list[dict[str, Any]]:
    rows = _proposed().to_dict("records")
    (fused,) = (row["accuracy"] for row in rows if row["data"] == "fusion")
    single = [row for row in rows if row["data"] != "fusion"]
    pooled = sum(row["accuracy"] * row["sample_size"] for row in single) / sum(row["sample_size"] for row in single)
    printed = [row["accuracy"] for row in paper_table(4).to_dict("records")]
    what = "accuracy, fusion, against"
    return [
        _line("table6", "table 6", f"{what} the best of Table 4", fused, max(printed), ""),
        _line("table6", "table 6", f"{what} the worst of Table 4", fused, min(printed), ""),
        _line("table6", "table 6", f"{what} one network a modality", fused, pooled, "mean weighted by sample size"),
    ]


def _proposed() -> pd.DataFrame:
    table = paper_table(6)
    return table[table["authors"] == PROPOSED]


def _line(finding: str, where: str, claim: str, stated: str | float, found: str | float, note: str) -> dict[str, Any]:
    if isinstance(stated, str) or isinstance(found, str):
        difference, agrees = math.nan, stated == found
    else:
        difference = float(stated - found)
        agrees = abs(difference) <= SAME_DECIMALS
    return {
        "finding": finding,
        "where": where,
        "claim": claim,
        "stated": _text_of(stated),
        "found": _text_of(found),
        "difference": difference,
        "agrees": "yes" if agrees else "no",
        "note": note,
    }


def _text_of(value: str | float) -> str:
    """Return scores with the three decimals of the paper, and other numbers as they are."""
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if 0 <= value < 1 else f"{value:g}"
