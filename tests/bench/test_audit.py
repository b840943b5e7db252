"""The audit on tables made from known confusion matrices, printed right and printed wrong, and on the paper's."""

import numpy as np
import pandas as pd
import pytest

from bench.audit import (
    COLUMNS,
    EXCESS,
    OTHER_ORDERS,
    READINGS,
    accuracy_excess,
    accuracy_outside,
    admissible_sizes,
    established,
    fits,
    nearest,
    paper_readings,
    printed_scores,
    read_row,
    stated_sizes,
    verdicts,
)
from bench.audit_witness import witness, witness_fits
from bench.confusion_search import ROUNDING, ClassSizes, matrix_scores
from bench.paper import SCORES

# tp, fn, fp, tn of test sets within 3 images a class of 97 malignant and 112 benign
MATRICES = [(61, 36, 30, 82), (80, 14, 41, 71), (33, 64, 8, 104), (90, 9, 20, 95)]
SIZES = ClassSizes(malignant=tuple(range(94, 101)), benign=tuple(range(109, 116)))


def printed(matrices: list[tuple[int, ...]], *, reading: str, table: str = "table2") -> pd.DataFrame:
    """Return rows of scores to three decimals, written into the columns that ``reading`` reads them from."""
    lines = []
    for number, matrix in enumerate(matrices):
        scores = dict(zip(SCORES, np.round(matrix_scores(*np.array(matrix, dtype=float)), 3).tolist(), strict=True))
        columns = {READINGS[reading].printed_column(name): value for name, value in scores.items()}
        lines.append({"table": table, "cell": f"{table}/{number}", **columns})
    return pd.DataFrame(lines)[["table", "cell", *SCORES]]


def evidence_of(rows: pd.DataFrame, sizes: ClassSizes = SIZES) -> pd.DataFrame:
    return pd.concat([fits(rows, sizes), nearest(rows, sizes)], axis=1)


def by_reading(evidence: pd.DataFrame, cell: str) -> pd.DataFrame:
    return evidence[evidence["cell"] == cell].set_index("reading")


# -- readings --------------------------------------------------------------------------------------------------------


def test_readings_are_those_of_a_matrix_with_its_classes_or_its_sides_exchanged() -> None:
    tp, fn, fp, tn = matrix = (61, 36, 30, 82)
    written = {"A": matrix, "B": (tp, fp, fn, tn), "C": (tn, fp, fn, tp), "D": (tn, fn, fp, tp)}
    malignant = matrix_scores(*np.array(matrix, dtype=float))
    for key, other in written.items():
        row = dict(zip(SCORES, matrix_scores(*np.array(other, dtype=float)), strict=True))
        assert read_row(row, READINGS[key].columns) == pytest.approx(malignant), key


def test_readings_and_other_orders_are_all_orders_of_four_columns() -> None:
    orders = {*OTHER_ORDERS, *(reading.columns for reading in READINGS.values())}
    assert len(orders) == len(OTHER_ORDERS) + len(READINGS) == 24
    assert all(sorted(order) == sorted(COLUMNS) for order in orders)
    assert READINGS["D"].printed_column("sensitivity") == "npv"
    assert READINGS["D"].printed_column("kappa") == "kappa"


@pytest.mark.parametrize("key", READINGS)
def test_a_table_is_found_in_the_reading_it_was_printed_in(key: str) -> None:
    rows = printed(MATRICES, reading=key)
    evidence = evidence_of(rows)
    for number, matrix in enumerate(MATRICES):
        line = by_reading(evidence, f"table2/{number}").loc[key]
        assert line["matrices"] >= 1
        assert line["residual"] <= ROUNDING
        # the printed decimals leave room for near neighbours
        assert line[["tp", "fn", "fp", "tn"]].tolist() == pytest.approx(list(matrix), abs=4)
    found = established(evidence)["table2"]
    assert found is not None
    assert found.key == key
    judged = verdicts(rows, evidence, SIZES)
    assert list(judged["reading"]) == [key] * len(MATRICES)
    assert set(judged["verdict"]) <= {"one reading", "several readings"}
    assert (judged["without"] == "").all()


def test_the_exact_sizes_give_the_exact_counts() -> None:
    tp, fn, fp, tn = MATRICES[0]
    only = ClassSizes(malignant=(tp + fn,), benign=(fp + tn,))
    line = by_reading(evidence_of(printed(MATRICES[:1], reading="B"), only), "table2/0").loc["B"]
    assert line["matrices"] == 1
    assert line[["tp", "fn", "fp", "tn"]].tolist() == [tp, fn, fp, tn]


def test_rows_that_two_readings_explain_establish_none() -> None:
    balanced = [(70, 27, 27, 85)]  # as many false negatives as false positives: transposed is the same
    rows = printed(balanced, reading="A")
    evidence = evidence_of(rows)
    assert established(evidence) == {"table2": None}
    (judged,) = verdicts(rows, evidence, SIZES).to_dict("records")
    assert judged["verdict"] == "several readings"
    assert judged["fitting"] == "A B"


def test_a_table_printed_half_one_way_and_half_the_other_establishes_none() -> None:
    rows = pd.concat([printed(MATRICES[:2], reading="A"), printed(MATRICES[2:], reading="D")], ignore_index=True)
    rows["cell"] = [f"table2/{number}" for number in range(4)]
    assert established(fits(rows, SIZES)) == {"table2": None}


def test_tables_are_judged_apart() -> None:
    rows = pd.concat(
        [printed(MATRICES, reading="A"), printed(MATRICES, reading="D", table="table3")], ignore_index=True
    )
    found = established(fits(rows, SIZES))
    assert {name: reading and reading.key for name, reading in found.items()} == {"table2": "A", "table3": "D"}


# -- rows without a matrix -------------------------------------------------------------------------------------------


def test_a_misprinted_column_is_named() -> None:
    rows = printed(MATRICES[:1], reading="D")
    rows.loc[0, "kappa"] += 0.05
    (judged,) = verdicts(rows, evidence_of(rows), SIZES).to_dict("records")
    assert judged["verdict"] == "no matrix"
    assert judged["reading"] == "D"
    assert judged["residual"] > ROUNDING
    assert "kappa" in judged["without"].split(", ")
    assert "npv" not in judged["without"].split(", ")


def test_means_over_runs_have_an_accuracy_but_no_matrix() -> None:
    runs = np.array([(61, 36, 30, 82), (95, 2, 100, 12), (10, 87, 1, 111)], dtype=float)
    means = np.round(matrix_scores(*runs.T).mean(axis=1), 3)
    rows = pd.DataFrame([{"table": "table2", "cell": "mean", **dict(zip(SCORES, means.tolist(), strict=True))}])
    evidence = evidence_of(rows)
    line = by_reading(evidence, "mean").loc["A"]
    assert line["matrices"] == 0
    assert abs(line["accuracy_excess"]) <= EXCESS
    reading = established(evidence)["table2"]
    assert reading is not None
    assert reading.key == "A"


def test_accuracy_outside_a_pair_is_proof_for_any_size() -> None:
    rows = printed(MATRICES[:1], reading="A")
    (row,) = rows.to_dict("records")
    assert accuracy_outside(row) == []
    highest = max(row["sensitivity"], row["specificity"])
    rows.loc[0, "accuracy"] = highest + 0.002
    (row,) = rows.to_dict("records")
    assert "sensitivity and specificity" in accuracy_outside(row)
    (judged,) = verdicts(rows, evidence_of(rows), SIZES).to_dict("records")
    assert judged["verdict"] == "no matrix of any size"


def test_columns_in_another_order_are_found_as_such() -> None:
    rows = printed(MATRICES[:1], reading="A")
    rows[["sensitivity", "specificity"]] = rows[["specificity", "sensitivity"]].to_numpy()
    (judged,) = verdicts(rows, evidence_of(rows), SIZES).to_dict("records")
    assert judged["fitting"] == ""
    assert judged["other_orders"] >= 1


# -- the paper -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rows = printed_scores()
    evidence = evidence_of(rows, admissible_sizes())
    return rows, evidence, verdicts(rows, evidence, admissible_sizes())


def test_the_stated_test_set_is_a_fifth_of_2414_and_2799() -> None:
    assert stated_sizes() == ClassSizes(malignant=(483,), benign=(560,))
    assert admissible_sizes().middle == stated_sizes()
    assert (admissible_sizes().malignant[0], admissible_sizes().malignant[-1]) == (473, 493)
    assert (admissible_sizes().benign[0], admissible_sizes().benign[-1]) == (550, 570)
    assert list(printed_scores()["table"].value_counts(sort=False)) == [15, 15, 4]


def test_every_row_of_the_paper_has_a_verdict(paper: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    rows, evidence, judged = paper
    assert len(judged) == len(rows) == 34
    assert len(evidence) == 34 * 4
    fitting = judged[judged["fitting"] != ""].set_index("cell")["fitting"].to_dict()
    assert fitting == {
        "model1/efficientnet_b0+svm": "C D",
        "model1/inception_v3+nb": "D",
        "model1/inception_v3+svm": "C D",
        "model1/mobilenet_v2+nb": "D",
        "model1/resnet101+nb": "D",
        "model1/resnet50+nb": "D",
        "model1/resnet50+svm": "C D",
    }
    assert (judged["other_orders"] == 0).all()
    assert (evidence["residual"] < 0.35).all()


def test_counts_of_the_paper_give_its_printed_row(paper: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    rows, _, judged = paper
    line = judged.set_index("cell").loc["model1/inception_v3+nb"]
    tp, fn, fp, tn = (float(line[name]) for name in ("tp", "fn", "fp", "tn"))
    row = rows.set_index("cell").loc["model1/inception_v3+nb"]
    # benign positive, transposed: what is printed as sensitivity is benign's ppv, and so on
    assert row["sensitivity"] == round(tn / (tn + fn), 3)
    assert row["specificity"] == round(tp / (tp + fp), 3)
    assert row["ppv"] == round(tn / (tn + fp), 3)
    assert row["npv"] == round(tp / (tp + fn), 3)
    assert row["accuracy"] == round((tp + tn) / (tp + fn + fp + tn), 3)


def test_tables_2_and_3_are_read_with_benign_positive_and_transposed_and_table_4_as_nothing() -> None:
    found = paper_readings()
    assert {name: reading and reading.key for name, reading in found.items()} == {
        "table2": "D",
        "table3": "D",
        "table4": None,
    }


@pytest.mark.parametrize("shift", [(-10, 10), (10, -10), (0, 0), (10, 10)])
def test_no_other_reading_holds_at_any_admissible_share(shift: tuple[int, int]) -> None:
    sizes = ClassSizes(malignant=(483 + shift[0],), benign=(560 + shift[1],))
    rows = printed_scores().query("table != 'table4'").to_dict("records")
    for key in "ABC":
        excess = [accuracy_excess(read_row(row, READINGS[key].columns), sizes) for row in rows]
        assert sum(abs(value) > EXCESS for value in excess) >= 20


def test_table_4_contradicts_itself(paper: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    rows, _, judged = paper
    last = judged[judged["table"] == "table4"]
    assert (last["verdict"] == "no matrix of any size").all()
    assert (last["accuracy_holds"] == "").all()
    for row in rows[rows["table"] == "table4"].to_dict("records"):
        assert row["accuracy"] < min(row["ppv"], row["npv"]) - ROUNDING


# -- witness ---------------------------------------------------------------------------------------------------------


def test_mlscorecheck_agrees(paper: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    rows, evidence, _ = paper
    answers = witness(rows, evidence)
    assert answers["ours"].sum() == 10
    # its intervals for kappa let 0.243502 pass for 0.243
    apart = answers[answers["ours"] != answers["mlscorecheck"]]
    assert list(apart["cell"] + " " + apart["reading"]) == ["model2/resnet101+sgdm D"]
    assert apart["residual"].tolist() == pytest.approx([0.0005023], abs=1e-6)


def test_mlscorecheck_finds_a_known_matrix_and_misses_a_wrong_one() -> None:
    size = ClassSizes(malignant=(97,), benign=(112,))
    scores = np.round(matrix_scores(*np.array(MATRICES[0], dtype=float)), 3)
    assert witness_fits(scores, size)
    scores[5] += 0.01
    assert not witness_fits(scores, size)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pulp")  # of its solver, mlscorecheck's choice
@pytest.mark.parametrize(
    ("cell", "possible"),
    [
        ("model1/resnet101+lr", "D"),
        ("model2/resnet50+adam", "D"),
        ("model2/inception_v3+rmsprop", "D"),
        ("model3/cnn17+e25+b64", ""),
        ("model3/cnn17+e30+b32", ""),
    ],
)
def test_mlscorecheck_allows_means_over_ten_test_sets_under_the_same_reading(cell: str, possible: str) -> None:
    """``accuracy_excess`` decides alike, but by arithmetic instead of linear programming."""
    from mlscorecheck.check.binary import check_n_testsets_mos_no_kfold

    (malignant,), (benign,) = stated_sizes().malignant, stated_sizes().benign
    row = printed_scores().set_index("cell").loc[cell]
    for key, reading in READINGS.items():
        scores = read_row(row, reading.columns)
        found = check_n_testsets_mos_no_kfold(
            testsets=[{"p": malignant, "n": benign} for _ in range(10)],
            scores={"sens": scores[0], "spec": scores[1], "acc": scores[4]},
            eps=ROUNDING,
        )
        assert found["inconsistency"] == (key not in possible), key
        assert (abs(accuracy_excess(scores, stated_sizes())) <= EXCESS) == (key in possible), key
