"""The numbers of the tables, what is missing in them, and what they say of how they were made."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_rows import (
    DATA_HASH,
    PAPER,
    PAPER_CELLS,
    counts,
    failed,
    row_of,
    run_json,
    scores,
    shown_in,
    tables_of,
    write_cell,
    write_run,
)

from bench.audit import COLUMNS
from bench.paper import SCORES
from bench.report import build_tables, prepared_table, read_results, write_tables
from bench.report.formats import to_latex
from fusion.checksums import problems

TABLES = [
    *("table1", "table2", "table3", "table4", "table5", "table6", "engines", "leaderboard"),
    *("comparisons", "subsets", "baselines", "leakage_gap", "duplicates", "transfer", "explanations"),
]


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_every_table_is_built_and_written(scored_run: Path) -> None:
    tables = write_tables(scored_run)
    assert list(tables) == TABLES
    assert sorted(path.name for path in (scored_run / "tables").iterdir()) == sorted(
        ["SHA256SUMS", *(f"{name}.{ending}" for name in TABLES for ending in ("csv", "md", "tex"))]
    )
    assert problems(scored_run / "tables") == []
    for table in tables.values():
        assert len(table.frame) == len(table.display)
        assert all(isinstance(cell, str) for row in table.display.itertuples(index=False) for cell in row)


def test_score_tables_keep_the_papers_order_and_hold_its_numbers_beside_ours(scored_run: Path) -> None:
    tables = tables_of(scored_run)
    for name, model, rows in (("table2", "model1", 15), ("table3", "model2", 15), ("table4", "model3", 4)):
        frame = tables[name].frame
        assert list(frame["cell"]) == [cell for cell in PAPER_CELLS if cell.startswith(model)]
        assert len(frame) == rows
        for metric in SCORES:
            column = "printed" if metric in COLUMNS else "paper"  # how these are read: test_report_audit.py
            assert list(frame[f"{metric}_{column}"]) == [PAPER[cell, metric] for cell in frame["cell"]]
    best = row_of(tables["table2"], "model1/efficientnet_b0+lr")
    assert best["accuracy_ours"] == 0.9
    assert best["accuracy_difference"] == pytest.approx(0.9 - 0.713)
    assert list(shown_in(tables["table2"], "model1/efficientnet_b0+lr"))[:4] == [
        "paper",
        "EfficientNetB0",
        "LR",
        "0.900 / 0.768 (+0.132)",
    ]
    assert list(shown_in(tables["table4"], "model3/cnn17+e25+b64"))[1:3] == ["25", "64"]


def test_table1_counts_sources_classes_and_totals(scored_run: Path) -> None:
    extra = {"source": "mine", "modality": "other", "label": 1, "images": 5, "copies": 5}
    results = read_results(scored_run)
    plain = build_tables(results)["table1"].frame.set_index(["source", "label"])
    assert plain.loc[("total", "benign"), "augmented_ours"] == plain.loc[("total", "benign"), "augmented_paper"] == 2799
    assert plain.loc[("total", "malignant"), "augmented_ours"] == 2414
    assert plain.loc[("total", "both"), "original_ours"] == 3205
    assert (plain["original_difference"] == 0).all()
    data = run_json(data={"counts": [*counts()[2:], extra]})
    more = build_tables(replace(results, run=data))["table1"]
    frame = more.frame.set_index(["source", "label"])
    assert math.isnan(frame.loc[("mine", "malignant"), "original_paper"])
    assert math.isnan(frame.loc[("rsna", "benign"), "original_ours"])
    assert frame.loc[("total", "malignant"), "original_ours"] == 210 + 104 + 5
    assert list(more.display.loc[more.display["Source"] == "mine", "Images"]) == ["5 / –"]
    assert list(more.display.loc[more.display["Source"] == "rsna", "Images"]) == ["– / 1200", "– / 1158"]


def test_a_prepared_data_set_has_table1_before_any_run(scored_run: Path) -> None:
    table = prepared_table(counts(), ["rsna", "busi"])
    assert table.notes[0] == "phantom data: busi, rsna — synthetic images, not patients"
    assert table.display.equals(tables_of(scored_run)["table1"].display)


def test_table6_keeps_the_literature_and_compares_the_ablation(scored_run: Path) -> None:
    table = tables_of(scored_run)["table6"]
    assert len(table.frame) == 9
    assert list(table.display["Authors"])[:2] == ["Jabeen K et al.", "Byra M et al."]
    ultrasound = row_of(table, "ablation/cnn17+ultrasound")
    assert (ultrasound["sample_size_ours"], ultrasound["sample_size_paper"]) == (847, 847)
    assert ultrasound["accuracy_paper"] == 0.998
    assert shown_in(table, "ablation/cnn17+fused").iloc[-1] == "not run / 0.943"


def test_leaderboard_ranks_by_accuracy_and_leaves_the_unfinished_unranked_at_the_bottom(scored_run: Path) -> None:
    table = tables_of(scored_run)["leaderboard"]
    assert len(table.frame) == 34
    accuracy = table.frame["accuracy_ours"].dropna()
    assert list(accuracy) == sorted(accuracy, reverse=True)
    assert list(table.frame["rank"].dropna()) == [1] * 33  # their predictions are all the same
    last = table.frame.iloc[-1]
    assert (last["cell"], last["status"], math.isnan(last["rank"])) == ("model2/resnet50+sgdm", "failed", True)
    first = table.display.iloc[0]
    assert (first["Rank"], first["Acc."], first["n"]) == ("1", "0.900 (0.850–0.950)", "100")


def test_ties_are_ordered_by_auc_then_name(tmp_path: Path) -> None:
    names = ["model1/b+lr", "model1/a+lr", "model1/c+lr", "model1/d+lr"]
    folder = write_run(tmp_path, cells=names)
    for cell, auc in zip(names, (0.5, 0.5, 0.7, math.nan), strict=True):
        write_cell(folder, cell, scores(0.8, auc=auc))
    table = tables_of(folder)["leaderboard"]
    assert list(table.frame["cell"]) == ["model1/c+lr", "model1/a+lr", "model1/b+lr", "model1/d+lr"]
    assert table.display["AUC"].iloc[-1] == "undefined"


def test_two_protocols_are_two_blocks_and_two_seeds_are_averaged(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], protocols=["paper", "clean"], seeds=[0, 1])
    for protocol, values in (("paper", (0.8, 0.9)), ("clean", (0.6, 0.7))):
        for seed, value in enumerate(values):
            write_cell(folder, cell, scores(value), protocol, seed)
    tables = tables_of(folder)
    frame = tables["table2"].frame
    assert list(frame["protocol"]) == ["paper", "clean"]
    assert list(frame["accuracy_ours"]) == pytest.approx([0.85, 0.65])
    assert list(frame["seeds"]) == [2, 2]
    assert list(tables["leaderboard"].frame["accuracy_sd"]) == pytest.approx([np.std([0.8, 0.9], ddof=1)] * 2)
    assert list(tables["leaderboard"].frame["rank"]) == [1, 1]
    assert to_latex(tables["table2"]).count(r"\midrule") == 2


# -- what is missing -------------------------------------------------------------------------------------------------


def test_failed_missing_and_undefined_cells_remain(scored_run: Path) -> None:
    tables = tables_of(scored_run)
    lost = row_of(tables["table3"], "model2/resnet50+sgdm")
    assert (lost["status"], lost["reason"], lost["seeds"]) == ("failed", "out of memory", 0)
    assert math.isnan(lost["accuracy_ours"])
    assert shown_in(tables["table3"], "model2/resnet50+sgdm")["Acc."] == "failed / 0.612"
    assert "failed (out of memory): model2/resnet50+sgdm [paper]" in tables["table3"].notes
    assert row_of(tables["table6"], "ablation/cnn17+fused")["status"] == "not run"
    undefined = shown_in(tables["table2"], "model1/resnet50+nb")
    assert (undefined["PPV"], undefined["NPV"]) == ("undefined / 0.570", "0.600 / 0.679 (−0.079)")


def test_a_cell_with_a_lost_seed_is_partial(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], seeds=[0, 1, 2])
    write_cell(folder, cell, scores(0.8))
    write_cell(folder, cell, failed("too bad"), seed=1)
    row = row_of(tables_of(folder)["table2"], cell)
    assert (row["status"], row["seeds"], row["accuracy_ours"]) == ("partial", 1, 0.8)
    assert row["reason"] == "seed 1 failed: too bad; seed 2 not run"


def test_a_metric_undefined_under_one_seed_has_no_mean(tmp_path: Path) -> None:
    cell = "model1/resnet50+svm"
    folder = write_run(tmp_path, cells=[cell], seeds=[0, 1])
    write_cell(folder, cell, scores(0.8))
    write_cell(folder, cell, scores(0.8, ppv=math.nan), seed=1)
    assert shown_in(tables_of(folder)["table2"], cell)["PPV"] == "undefined / 0.721"


def test_a_run_without_rows_or_cells_still_has_tables(tmp_path: Path) -> None:
    tables = write_tables(write_run(tmp_path, cells=["model1/mine+svm"]))
    assert shown_in(tables["table2"], "model1/mine+svm")["Acc."] == "not run / –"
    assert tables["table3"].frame.empty
    assert "no cell of this table belongs to this run" in tables["table3"].notes
    assert "accuracy_ours" in (tmp_path / "tables" / "table3.csv").read_text(encoding="utf-8")


# -- honest labels ---------------------------------------------------------------------------------------------------


def test_phantoms_and_random_weights_are_named_in_every_table_and_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path, weights="random", data={"synthetic_sources": ["rsna", "busi", "oasbud"]})
    for name, table in write_tables(folder).items():
        assert "phantom data: busi, oasbud, rsna — synthetic images, not patients" in table.notes
        assert "weights: random (not pre-trained): scores say nothing about the architectures" in table.notes
        assert any("malignant" in note for note in table.notes)
        assert any(note == f"300 × 300 pixels; 1 seed; data {DATA_HASH[:12]}" for note in table.notes)
        marked = pd.read_csv(folder / "tables" / f"{name}.csv")
        assert {"weights", "synthetic_sources", "data_hash"} <= set(marked)
        for ending in ("md", "tex"):
            text = (folder / "tables" / f"{name}.{ending}").read_text(encoding="utf-8")
            assert "synthetic images" in text
            assert "not pre-trained" in text


def test_rows_made_otherwise_than_the_run_says_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    other = {"weights": "random", "synthetic_sources": "busi", "data_hash": "f" * 64}
    write_cell(folder, "model1/resnet50+svm", [row | other for row in scores(0.8)])
    notes = "\n".join(tables_of(folder)["table3"].notes)
    assert "phantom data: busi" in notes
    assert "weights: random" in notes
    assert "some rows were measured on other data (ffffffffffff)" in notes
