import pandas as pd
import pytest

from bench.paper import BACKBONES, PRINTED_NAMES, SCORES, SOURCES, TABLE_NUMBERS, paper_metrics, paper_table
from fusion.errors import UserError


def test_table1_sums_are_those_of_the_text() -> None:
    table = paper_table(1)
    assert table["benign_augmented"].sum() == 2799
    assert table["malignant_augmented"].sum() == 2414
    assert table[["benign_original", "malignant_original"]].to_numpy().sum() == 3205
    assert set(table["source"]) == set(SOURCES)


@pytest.mark.parametrize(("number", "rows"), [(1, 3), (2, 15), (3, 15), (4, 4), (5, 12), (6, 9)])
def test_every_table_has_its_rows(number: int, rows: int) -> None:
    assert len(paper_table(number)) == rows


@pytest.mark.parametrize("number", [0, 7, -1])
def test_an_unknown_table_is_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"table {number}: the paper's tables are 1 to {TABLE_NUMBERS[-1]}"):
        paper_table(number)


def test_metrics_cover_34_cells_and_the_ablation() -> None:
    metrics = paper_metrics()
    assert list(metrics.columns) == ["cell", "metric", "value"]
    assert not metrics.duplicated(["cell", "metric"]).any()
    scored = metrics[metrics["metric"].isin(SCORES) & ~metrics["cell"].str.startswith("ablation/")]
    per_model = scored.drop_duplicates("cell")["cell"].str.partition("/")[0].value_counts()
    assert per_model.to_dict() == {"model1": 15, "model2": 15, "model3": 4}
    assert len(scored) == 34 * len(SCORES)
    assert len(metrics) == 34 * len(SCORES) + 6 + 3


@pytest.mark.parametrize(
    ("cell", "metric", "value"),
    [
        ("model1/efficientnet_b0+svm", "accuracy", 0.769),
        ("model1/resnet50+lr", "sensitivity", 0.790),
        ("model2/resnet101+rmsprop", "kappa", 0.020),
        ("model3/cnn17+e25+b64", "accuracy", 0.964),
        ("model3/cnn17+e30+b32", "auc", 0.9585),
        ("model1/resnet101+svm", "auc", 0.9311),
        ("model2/inception_v3+adam", "auc", 0.6842),
        ("ablation/cnn17+ultrasound", "accuracy", 0.998),
        ("ablation/cnn17+mammography", "accuracy", 0.923),
        ("ablation/cnn17+fused", "accuracy", 0.943),
    ],
)
def test_a_printed_number_is_found_under_our_name(cell: str, metric: str, value: float) -> None:
    printed: pd.Series = paper_metrics().set_index(["cell", "metric"])["value"]
    assert printed[cell, metric] == value


def test_names_lead_back_to_the_printed_ones() -> None:
    assert all(PRINTED_NAMES[ours] == printed for printed, ours in BACKBONES.items())
    assert len(PRINTED_NAMES) == 11
