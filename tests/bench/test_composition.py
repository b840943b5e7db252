"""Baselines beside the best cells, transfer beside the same modality, and what the sentences say of them."""

import math
from pathlib import Path

import pandas as pd
import pytest
from report_rows import failed, predictions, row_of, scores, shown_in, tables_of, write_cell, write_run
from run_folders import BASELINES, PROTOCOLS, cell_folder, predictions_of
from sklearn.metrics import accuracy_score, roc_auc_score

from bench.report import build_tables, read_results
from bench.report.composition import SEES, composition_sentences
from bench.report.formats import to_latex, to_markdown
from fusion.checksums import record

ABLATION, TRANSFER = "ablation/cnn17+ultrasound", "transfer/cnn17+mammography-to-ultrasound"
BEST, SECOND = "model1/resnet50+svm", "model1/resnet50+lr"


@pytest.fixture
def composed(tmp_path: Path) -> Path:
    """Baselines, two cells of Model 1, and one direction of the transfer, with scores by hand."""
    folder = write_run(tmp_path / "run", cells=[SECOND, BEST, ABLATION, TRANSFER, *BASELINES])
    for cell, accuracy in zip(BASELINES, (0.55, 0.6, 0.62, 0.7), strict=True):
        write_cell(folder, cell, scores(accuracy, auc=accuracy + 0.01))
    for cell, accuracy in ((SECOND, 0.8), (BEST, 0.91), (ABLATION, 0.95), (TRANSFER, 0.5)):
        write_cell(folder, cell, scores(accuracy, auc=accuracy + 0.01))
    return folder


# -- baselines -------------------------------------------------------------------------------------------------------


def test_baselines_stand_beside_the_best_cell_of_each_model(composed: Path) -> None:
    table = tables_of(composed)["baselines"]
    assert list(table.frame["cell"]) == [*BASELINES, BEST]
    assert list(table.frame["sees"]) == [*SEES.values(), "the images"]
    assert row_of(table, BEST)["accuracy_over_majority"] == pytest.approx(0.36)
    assert list(shown_in(table, BEST)) == [
        *("paper", BEST, "the images"),
        *("0.910 (0.860–0.960)", "0.920", "+0.360"),
    ]
    assert shown_in(table, "baseline/majority")["Over majority"] == "0.000"


def test_the_sentence_names_what_is_seen_and_what_it_reaches(composed: Path) -> None:
    sentence = composition_sentences(read_results(composed))[0]
    assert sentence == (
        "baselines: under protocol paper a model reaches accuracy (AUC) by seeing nothing 0.550 (0.560), its modality "
        "0.600 (0.610), its data set 0.620 (0.630), 8 × 8 pixels 0.700 (0.710); the most accurate of the "
        "others, model1/resnet50+svm, 0.910 (0.920)"
    )


def test_a_run_without_baselines_says_how_to_get_them(composed: Path) -> None:
    write_cell(composed, "baseline/source", failed("out of memory"))
    results = read_results(composed)
    assert "baselines: under protocol paper not all are there" in composition_sentences(results)[0]
    table = build_tables(results)["baselines"]
    assert list(shown_in(table, "baseline/source"))[3:] == ["failed", "failed", "–"]
    assert any("failed (out of memory): baseline/source" in note for note in table.notes)


# -- transfer --------------------------------------------------------------------------------------------------------


def test_transfer_stands_beside_the_same_modality_and_the_commoner_class(composed: Path) -> None:
    labels = predictions(20)["label"].where(lambda label: label.index > 2, 1)  # 11 of 20 are malignant
    folder = cell_folder(composed, TRANSFER)
    predictions(20).assign(label=labels).to_parquet(folder / "predictions.parquet", index=False)
    record(folder / "predictions.parquet")
    table = tables_of(composed)["transfer"]
    assert list(table.frame["trained_on"]) == ["ultrasound", "mammography"]
    assert list(table.frame["cell"]) == [ABLATION, TRANSFER]
    share = max(labels.mean(), 1 - labels.mean())
    assert list(table.frame["accuracy_commoner_class"]) == pytest.approx([share, share])
    assert share > 0.55
    (sentence,) = (text for text in table.notes if text.startswith("transfer: "))
    assert sentence == (
        "transfer: under protocol paper the CNN trained on mammography reaches accuracy (AUC) 0.500 (0.510) on "
        f"ultrasound, trained on ultrasound itself 0.950 (0.960); always deciding for the commoner class reaches "
        f"accuracy {share:.3f}"
    )


def test_without_the_ablation_the_transfer_stands_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", cells=[TRANSFER])
    write_cell(folder, TRANSFER, scores(0.5))
    table = tables_of(folder)["transfer"]
    assert list(table.frame["cell"]) == [TRANSFER]
    assert "trained on ultrasound itself" not in " ".join(table.notes)


@pytest.mark.parametrize("cells", [[], [BEST], ["transfer/mine", "baseline/mine", "transfer/cnn17+up"]])
def test_a_run_of_anything_else_has_tables_without_a_crash(tmp_path: Path, cells: list[str]) -> None:
    folder = write_run(tmp_path / "run", cells=cells)
    for cell in cells[:1]:
        write_cell(folder, cell, scores(0.5))
    tables = tables_of(folder)
    for name in ("baselines", "leakage_gap", "duplicates", "transfer"):
        assert len(tables[name].frame) == len(tables[name].display)
        assert to_markdown(tables[name])
        assert to_latex(tables[name])


# -- of a real run ---------------------------------------------------------------------------------------------------


def test_the_tables_of_a_run_are_what_scikit_learn_says_of_its_predictions(whole_run: Path) -> None:
    results = read_results(whole_run)
    tables = build_tables(results)
    for name in ("baselines", "transfer"):
        frame = tables[name].frame
        assert set(frame["protocol"]) == set(PROTOCOLS)
        for row in frame.to_dict("records"):
            stored = predictions_of(cell_folder(whole_run, row["cell"], row["protocol"]))
            assert row["accuracy"] == pytest.approx(accuracy_score(stored["label"], stored["decision"]))
            assert row["auc"] == pytest.approx(roc_auc_score(stored["label"], stored["probability"]))
    gap = tables["leakage_gap"].frame
    assert set(gap["cell"]) == set(results.run["cells"])
    for row in gap.to_dict("records"):
        under = [predictions_of(cell_folder(whole_run, row["cell"], protocol)) for protocol in PROTOCOLS]
        paper, clean = (accuracy_score(one["label"], one["decision"]) for one in under)
        assert row["accuracy_gap"] == pytest.approx(paper - clean)
        assert row["accuracy_gap_low"] <= paper - clean <= row["accuracy_gap_high"]
    counted = tables["duplicates"].frame
    assert (counted.loc[counted["protocol"] == "clean", "straddling"] == 0).all()
    assert counted.query("protocol == 'paper' and kind == 'copies'")["straddling"].item() > 0


def test_a_transfer_is_judged_on_the_rows_of_the_ablation(whole_run: Path) -> None:
    same = ["image_id", "copy", "label"]
    for protocol in PROTOCOLS:
        for there, here in (("ultrasound", "mammography"), ("mammography", "ultrasound")):
            other = predictions_of(cell_folder(whole_run, f"transfer/cnn17+{here}-to-{there}", protocol))
            own = predictions_of(cell_folder(whole_run, f"ablation/cnn17+{there}", protocol))
            pd.testing.assert_frame_equal(other[same], own[same])
            assert set(other["modality"]) == {there}
            assert not math.isclose(other["probability"].sum(), own["probability"].sum())
