"""What the paper states twice, and the parameter counts that are noted for the audit."""

import pandas as pd
import pytest
import timm
import torch
from torch import nn

from bench.audit_claims import FINDINGS, TOTALS, VALUES, claims, constant_runs, sizes
from bench.paper import paper_table, text_claims
from fusion.models import build_model
from fusion.models.backbones import BACKBONES


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return claims()


def of(found: pd.DataFrame, finding: str) -> pd.DataFrame:
    return found[found["finding"] == finding]


def test_every_claim_belongs_to_a_finding(found: pd.DataFrame) -> None:
    assert set(found["finding"]) == set(FINDINGS)
    assert set(found["agrees"]) == {"yes", "no"}
    assert (found[["where", "claim", "stated", "found"]] != "").all(axis=None)


def test_the_text_is_held_against_the_best_rows_of_the_tables(found: pd.DataFrame) -> None:
    noted = text_claims().query("`where` != 'table 6'").reset_index(drop=True)
    lines = of(found, "text").reset_index(drop=True)
    assert len(lines) == len(noted) == 7
    for ours, theirs in zip(lines.to_dict("records"), noted.to_dict("records"), strict=True):
        # text_claims.csv notes by hand what is computed here
        number = theirs["metric"] != "batch sizes"
        assert ours["found"] == (f"{float(theirs['table_value']):.3f}" if number else theirs["table_value"])
        assert ours["agrees"] == ("yes" if theirs["value"] == theirs["table_value"] else "no")
    assert list(lines["agrees"]) == ["no", "no", "no", "no", "yes", "yes", "no"]


def test_table_1_adds_up_to_its_totals_and_to_table_6(found: pd.DataFrame) -> None:
    assert sum(TOTALS.values()) == 3205 + 5213
    lines = of(found, "table1")
    assert len(lines) == 4 + 3 + 6
    assert (lines["agrees"] == "yes").all()
    assert list(lines["found"])[:7] == ["1733", "1472", "2799", "2414", "847", "2358", "3205"]
    assert list(lines["found"])[7:] == ["1", "1", "3", "4", "3", "4"]


def test_one_row_of_table_3_is_the_mean_of_three_constant_runs(found: pd.DataFrame) -> None:
    means = constant_runs()
    assert means == pytest.approx(
        {
            "sensitivity": 560 / 1043,
            "specificity": 483 / 1043,
            "ppv": 2 / 3,
            "npv": 1 / 3,
            "accuracy": (2 * 560 + 483) / 3129,
            "kappa": 0,
        }
    )
    assert list(of(found, "table3")["agrees"]) == ["yes"] * 5 + ["no"]


def test_table_6_is_held_against_table_4_and_itself(found: pd.DataFrame) -> None:
    lines = of(found, "table6")
    assert list(lines["stated"]) == ["0.943"] * 3
    assert list(lines["found"]) == ["0.964", "0.946", "0.943"]
    assert list(lines["agrees"]) == ["no", "no", "yes"]
    assert lines["difference"].iloc[2] == pytest.approx(0.943 - (847 * 0.998 + 2358 * 0.923) / 3205)


def test_table_5_prints_two_sizes_of_one_network(found: pd.DataFrame) -> None:
    (line,) = of(found, "table5").to_dict("records")
    assert (line["stated"], line["found"], line["agrees"]) == ("678.9", "679.6", "no")


def test_sizes_of_table_5_agree_but_for_efficientnet() -> None:
    frame = sizes()
    assert list(frame["model"]) == list(paper_table(5)["model"])
    assert set(frame.loc[frame["agrees"] == "no", "network"]) == {"efficientnet_b0"}
    assert list(frame.loc[frame["agrees"] == "no", "ratio"]) == pytest.approx([3.81, 7.37], abs=0.005)
    assert list(frame["classes"]) == [1000] * 5 + [2] * 7


def network(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        if classes == 2:
            return build_model(name, "random", 300)
        return timm.create_model(BACKBONES[name].timm_name.partition(".")[0], pretrained=False, num_classes=classes)


@pytest.mark.parametrize(("name", "classes"), VALUES)
def test_noted_values_are_those_of_the_code(name: str, classes: int) -> None:
    model = network(name, classes)
    buffers = (buffer for buffer in model.buffers() if buffer.is_floating_point())
    assert sum(values.numel() for values in (*model.parameters(), *buffers)) == VALUES[name, classes]
