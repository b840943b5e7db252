"""The points of ROC curves and of the Pareto plot, held to scikit-learn and to a search of every pair."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from measured_rows import CNN, CPU, GPU, SGDM, SVM, engine, measure, network
from report_rows import predictions, scores, write_cell, write_run
from sklearn.metrics import roc_auc_score, roc_curve

from bench.intervals import delong_auc, roc_band
from bench.report import build_tables, read_results
from bench.report.curves import (
    FALSE_POSITIVE_RATES,
    PARETO_COLUMNS,
    ROC_COLUMNS,
    pareto_front,
    pareto_points,
    roc_points,
)
from fusion.checksums import record


def write_predictions(rows_csv: Path, **changes: object) -> pd.DataFrame:
    frame = predictions(60).assign(**changes)
    frame.to_parquet(rows_csv.with_name("predictions.parquet"), index=False)
    record(rows_csv.with_name("predictions.parquet"))
    return frame


def curve_of(run_dir: Path, cell: str = SVM) -> pd.DataFrame:
    points = roc_points(read_results(run_dir))
    assert tuple(points.columns) == ROC_COLUMNS
    return points[points["cell"] == cell].reset_index(drop=True)


def test_a_curve_is_scikit_learns_with_the_interval_of_delong_and_the_band_of_the_bootstrap(tmp_path: Path) -> None:
    path = write_cell(write_run(tmp_path, cells=[SVM]), SVM, scores(0.8))
    rows = write_predictions(path)
    curve = curve_of(tmp_path)
    fpr, tpr, _ = roc_curve(rows["label"], rows["probability"], drop_intermediate=False)
    judged = [rows[name].to_numpy() for name in ("label", "probability", "group_id")]
    assert list(curve["fpr"]) == [0, *FALSE_POSITIVE_RATES]
    assert tuple(curve.loc[0, ["tpr", "low", "high"]]) == (0, 0, 0)
    np.testing.assert_allclose(curve["tpr"][1:], np.interp(FALSE_POSITIVE_RATES, fpr, tpr), atol=1e-12)
    np.testing.assert_array_equal(curve[["tpr", "low", "high"]][1:].T, roc_band(*judged, FALSE_POSITIVE_RATES))
    assert np.isclose(curve["auc"], roc_auc_score(rows["label"], rows["probability"])).all()
    assert (curve[["auc", "auc_low", "auc_high"]].to_numpy() == np.array(delong_auc(*judged))).all()
    assert (curve["seeds"] == 1).all()
    assert (curve["family"] == "model1").all()


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, cells=[SVM], seeds=[0, 1])
    rows = [write_predictions(write_cell(run_dir, SVM, scores(0.8), seed=seed)) for seed in (0, 1)]
    worse = write_predictions(
        run_dir / "cells" / "paper" / "1" / SVM / "rows.csv", probability=1 - rows[1]["probability"]
    )
    expected = [roc_auc_score(frame["label"], frame["probability"]) for frame in (rows[0], worse)]
    curve = curve_of(tmp_path)
    assert len(curve) == len(FALSE_POSITIVE_RATES) + 1
    assert np.isclose(curve["auc"], np.mean(expected)).all()
    assert (curve["seeds"] == 2).all()
    assert (curve["low"] <= curve["tpr"]).all()
    assert (curve["tpr"] <= curve["high"]).all()


def test_one_class_alone_has_no_curve(tmp_path: Path) -> None:
    write_predictions(write_cell(write_run(tmp_path, cells=[SVM]), SVM, scores(0.8)), label=1)
    assert curve_of(tmp_path)[["tpr", "low", "high", "auc", "auc_low", "auc_high"]].isna().all(axis=None)


def test_a_run_without_a_finished_cell_has_no_points(bare_run: Path) -> None:
    results = read_results(bare_run)
    assert roc_points(results).empty
    points = pareto_points(build_tables(results))
    assert points.empty
    assert tuple(points.columns) == PARETO_COLUMNS


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_a_search_of_every_pair_finds(rows: list[tuple[int, int, int]]) -> None:
    dominated = {
        one
        for one, other in product(range(len(rows)), repeat=2)
        if all(b >= a for a, b in zip(rows[one], rows[other], strict=True)) and rows[one] != rows[other]
    }
    assert list(pareto_front(np.array(rows))) == [row not in dominated for row in range(len(rows))]


def test_a_point_is_the_leaderboards_and_names_machine_and_engine(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, cells=[SVM, SGDM, CNN])
    for cell, accuracy in ((SVM, 0.9), (SGDM, 0.8), (CNN, 0.95)):
        write_cell(run_dir, cell, [row | {"config_hash": "c"} for row in scores(accuracy)])
    measure(run_dir, SVM, [*network(), *engine("pytorch-cpu", p50={1: 30.0}), *engine("onnxruntime-cpu", p50={1: 15})])
    measure(run_dir, SGDM, [*network(), *engine("pytorch-cpu", p50={1: 30.0, 8: 1.0})])
    measure(run_dir, SGDM, [*network(), *engine("pytorch-cuda", p50={1: 4.0})], GPU)
    points = pareto_points(build_tables(read_results(run_dir))).set_index("cell")
    assert set(points.index) == {SVM, SGDM}  # the CNN was not measured
    assert set(points["machine"]) == {f"{CPU['cpu']}, 2 cores"}
    assert tuple(points.loc[SVM, ["engine", "precision", "latency_p50_ms"]]) == ("onnxruntime-cpu", "fp32", 15.0)
    assert tuple(points.loc[SGDM, ["engine", "latency_p50_ms", "accuracy"]]) == ("pytorch-cpu", 30.0, 0.8)
    assert points.loc[SVM, "on_front"]
    assert not points.loc[SGDM, "on_front"]
