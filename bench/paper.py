"""The printed tables of Wang et al., Tomography 2024, 10, 2038, as data, under this benchmark's cell names."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from fusion.errors import UserError

BACKBONES = {
    "EfficientNetB0": "efficientnet_b0",
    "InceptionV3": "inception_v3",
    "MobileNetV2": "mobilenet_v2",
    "ResNet101": "resnet101",
    "ResNet50": "resnet50",
}
CLASSIFIERS = {"LR": "lr", "NB": "nb", "SVM": "svm"}
OPTIMIZERS = {"ADAM": "adam", "RMSprop": "rmsprop", "SGDM": "sgdm"}
SOURCES = {"RSNA": "rsna", "Kaggle BUSI": "busi", "PAS (OASBUD)": "oasbud"}
ABLATIONS = {"ultrasound": "ultrasound", "mammography": "mammography", "fusion": "fused"}
PRINTED_NAMES = {ours: printed for names in (BACKBONES, CLASSIFIERS, OPTIMIZERS) for printed, ours in names.items()}
"""Our name of a backbone, classifier or optimizer -> the name the paper prints."""

SCORES = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "kappa")
"""The metrics of Tables 2 to 4, in printed order; fractions, kappa between -1 and 1."""

PROPOSED = "The proposed methods"
"""The authors' own rows in Table 6."""

TABLE_NUMBERS = range(1, 7)


def paper_table(number: int) -> pd.DataFrame:
    """Return the printed Table ``number``, one row per printed row, in printed order.

    Raises:
        UserError: the paper has no such table.
    """
    if number not in TABLE_NUMBERS:
        raise UserError(f"table {number}: the paper's tables are {TABLE_NUMBERS[0]} to {TABLE_NUMBERS[-1]}")
    return _read(f"table{number}.csv")


def paper_metrics() -> pd.DataFrame:
    """Return every printed score as one row ``cell, metric, value``, cells in printed order.

    Scores are fractions: the six of Tables 2 to 4 for 34 cells, the AUCs given in the text of six of these, and the
    accuracies of the three ablation cells of Table 6.
    """
    scored = {
        "model1/": (2, lambda row: f"{BACKBONES[row['backbone']]}+{CLASSIFIERS[row['classifier']]}"),
        "model2/": (3, lambda row: f"{BACKBONES[row['backbone']]}+{OPTIMIZERS[row['optimizer']]}"),
        "model3/": (4, lambda row: f"cnn17+e{row['epochs']}+b{row['batch_size']}"),
    }
    values = [
        (model + name(row), metric, row[metric])
        for model, (number, name) in scored.items()
        for row in paper_table(number).to_dict("records")
        for metric in SCORES
    ]
    values += [
        (_roc_cell(row["figure"], row["model"]), "auc", row["auc"]) for row in _read("roc_auc.csv").to_dict("records")
    ]
    values += [
        (f"ablation/cnn17+{ABLATIONS[row['data']]}", "accuracy", row["accuracy"])
        for row in paper_table(6).to_dict("records")
        if row["authors"] == PROPOSED
    ]
    return pd.DataFrame(values, columns=["cell", "metric", "value"])


def paper_costs() -> pd.DataFrame:
    """Return Table 5 as ``cell, executed_time_s, parameter_size_mib, layers``, in printed order.

    The paper's MB are read as MiB; its sizes of EfficientNetB0 fit under no reading (``results/README.md``).
    """
    table = paper_table(5).rename(columns={"parameter_size_mb": "parameter_size_mib"})
    table.insert(0, "cell", [_cost_cell(model) for model in table["model"]])
    return table.drop(columns="model")


def text_claims() -> pd.DataFrame:
    """Return what the text says of the tables: ``where, model, metric, value, table_value, note``; values as text."""
    return _read("text_claims.csv", dtype=str, keep_default_na=False)


def _cost_cell(model: str) -> str:
    backbone, _, end = model.partition(" + ")
    if not end:
        epochs, batch_size = re.findall(r"\d+", model)
        return f"model3/cnn17+e{epochs}+b{batch_size}"
    family = "model1" if end in CLASSIFIERS else "model2"
    return f"{family}/{BACKBONES[backbone]}+{(CLASSIFIERS | OPTIMIZERS)[end]}"


def _roc_cell(figure: int, model: str) -> str:
    """Return the cell of a curve: Figures 6, 7 and 8 show Models 1, 2 and 3."""
    if figure == 8:
        epochs, batch_size = re.findall(r"\d+", model)
        return f"model3/cnn17+e{epochs}+b{batch_size}"
    backbone, head = model.split(" + ")
    return f"model{figure - 5}/{BACKBONES[backbone]}+{(CLASSIFIERS | OPTIMIZERS)[head]}"


def _read(name: str, **options: Any) -> pd.DataFrame:
    installed = Path(__file__).parent / "paper_tables"
    checkout = Path(__file__).parent.parent / "results" / "paper"
    return pd.read_csv((installed if installed.is_dir() else checkout) / name, **options)
