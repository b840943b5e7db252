"""Table 5, and the costs in the leaderboard."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from measured_rows import CNN, GPU, MINE, SGDM, SVM, engine, measure, network, refused, shown, two_machines
from report_rows import run_json, tables_of

from bench.paper import paper_costs
from bench.report import build_tables, read_results

# -- Table 5 ---------------------------------------------------------------------------------------------------------


def test_table5_has_ours_beside_the_papers(bare_run: Path) -> None:
    two_machines(bare_run)
    table = tables_of(bare_run)["table5"]
    assert table.frame[["machine", "cell", "precision"]].values.tolist() == [
        ["AMD EPYC, 2 cores", SVM, "fp32"],
        ["AMD EPYC, 2 cores", SGDM, ""],
        ["AMD EPYC, 2 cores", CNN, "fp32"],
        ["NVIDIA H100", SVM, "fp32"],
        ["NVIDIA H100", SVM, "fp16"],
        ["NVIDIA H100", SGDM, ""],
        ["NVIDIA H100", CNN, ""],
    ]
    assert list(table.display.iloc[0]) == [
        *("AMD EPYC, 2 cores", "paper", SVM, "fp32", "12.3 (10.1)", "8.00 (6.50)", "27.4"),
        *("90.1 / 99.7 (−9.6)", "177 / 177 (0)", "90.4", "7.70"),
    ]
    assert list(table.display.iloc[1])[3:] == [
        *("–", "not measured", "not measured", "25.9", "– / 113.9", "– / 290", "–", "–"),
    ]
    assert list(table.display["PyTorch, s"])[3:5] == ["0.810 (0.123)", "not measured"]
    first = table.frame.iloc[0]
    assert (first["pytorch_engine"], first["onnxruntime_engine"]) == ("pytorch-cpu", "onnxruntime-cpu")
    assert (first["onnxruntime_end_to_end_s"], first["onnxruntime_model_only_s"]) == (8.0, 6.5)
    assert (first["test_rows"], first["executed_time_s_paper"], first["layers_difference"]) == (1043, 27.4, 0)
    assert first["parameter_mib_difference"] == pytest.approx(90.1 - 99.7)
    notes = " ".join(table.notes)
    assert "all test rows (1043 images of 300 × 300 pixels)" in notes
    assert "77.4 and 113.9" in notes
    assert "measured on: AMD EPYC, 2 cores; NVIDIA H100" in notes


def test_table5_takes_the_fastest_engine_at_parity_of_each_kind_and_precision(bare_run: Path) -> None:
    measure(
        bare_run,
        SVM,
        [
            *engine("pytorch-cpu", end_to_end_s=9.0),
            *engine("pytorch-cuda", end_to_end_s=2.0),
            *engine("pytorch-cuda-compiled", end_to_end_s=1.0, probability_difference=0.5),
            *engine("onnxruntime-cpu", end_to_end_s=0.5, probability_difference=0.5),
            *engine("pytorch-cuda", "bf16", end_to_end_s=math.nan),
            *engine("onnxruntime-cpu", "int8", end_to_end_s=0.1),
        ],
    )
    table = tables_of(bare_run)["table5"]
    lines = shown(table, cell=SVM)
    assert lines["Precision"].tolist() == ["fp32", "bf16"]
    assert lines["PyTorch, s"].tolist() == ["2.00 (10.1)", "not measured"]
    assert lines["ORT, s"].tolist() == ["beyond tolerance", "not measured"]
    assert table.frame["pytorch_engine"].tolist()[:2] == ["pytorch-cuda", ""]


def test_table5_averages_seeds_and_has_cells_the_paper_does_not_print(bare_run: Path) -> None:
    for seed, seconds in enumerate((10.0, 11.0)):
        measure(bare_run, MINE, [*network(50, 10.0), *engine("pytorch-cpu", end_to_end_s=seconds)], seed=seed)
    table = tables_of(bare_run)["table5"]
    assert list(table.frame["cell"]) == [SVM, SGDM, CNN, MINE]
    (line,) = shown(table, cell=MINE).to_dict("records")
    assert (line["PyTorch, s"], line["Paper, s"]) == ("10.5 (10.1)", "–")
    assert (line["Parameters, MiB"], line["Layers"]) == ("10.0 / –", "50 / –")
    assert table.frame["seeds"].tolist() == [0, 0, 0, 2]


def test_table5_keeps_the_papers_order_and_only_the_cells_of_the_run(bare_run: Path) -> None:
    printed_cells = list(paper_costs()["cell"])
    results = read_results(bare_run)
    table = build_tables(replace(results, run=run_json(cells=printed_cells[::-1])))["table5"]
    assert list(table.frame["cell"]) == printed_cells
    other = build_tables(replace(results, run=run_json(cells=[MINE])))["table5"]
    assert other.frame.empty
    assert "no cell of this table belongs to this run" in other.notes


def test_sizes_without_an_engine_are_shown(bare_run: Path) -> None:
    measure(bare_run, SVM, [*network(), refused("pytorch-cpu", "out of memory")])
    (line,) = shown(tables_of(bare_run)["table5"], cell=SVM).to_dict("records")
    assert (line["PyTorch, s"], line["Layers"], line["GMACs"]) == ("not measured", "177 / 177 (0)", "7.70")


def test_cells_with_facts_of_their_network_alone_are_not_rows_of_table5(bare_run: Path) -> None:
    measure(bare_run, SVM, [*network(), *engine("pytorch-cpu", p50={1: 9.0})])
    measure(bare_run, SVM, network(), seed=1)
    for cell in (SGDM, MINE):
        for seed in (0, 1):
            measure(bare_run, cell, network(290, 15.5), seed=seed)
    tables = tables_of(bare_run)
    assert list(tables["table5"].frame["cell"]) == [SVM, SGDM, CNN]  # MINE isn't printed
    (line,) = shown(tables["table5"], cell=SGDM).to_dict("records")
    assert (line["PyTorch, s"], line["Parameters, MiB"], line["Layers"]) == (
        *("not measured", "15.5 / 113.9 (−98.4)", "290 / 290 (0)"),
    )
    # the times are of one seed, the facts of two
    assert list(tables["table5"].frame["seeds"]) == [1, 2, 0]
    assert set(tables["engines"].frame["cell"]) == {SVM}
    for cell in (SGDM, MINE):
        costs = shown(tables["leaderboard"], cell=cell)[["p50, ms", "MiB", "Layers"]]
        assert costs.values.tolist() == [["–", "15.5", "290"]]


# -- leaderboard -----------------------------------------------------------------------------------------------------


def test_the_leaderboard_has_the_costs_of_the_machine_with_most_models(bare_run: Path) -> None:
    two_machines(bare_run)
    table = tables_of(bare_run)["leaderboard"]
    row = table.frame.set_index("cell").loc[SVM]
    # int8 is faster, but beyond tolerance; the GPU is faster, but has one model only
    assert (row["latency_p50_ms"], row["latency_engine"], row["latency_precision"]) == (15.0, "onnxruntime-cpu", "fp32")
    assert (row["parameter_mib"], row["layers"]) == (90.1, 177)
    assert shown(table, cell=SVM)[["p50, ms", "MiB", "Layers"]].values.tolist() == [["15.0", "90.1", "177"]]
    assert shown(table, cell=SGDM)[["p50, ms", "MiB", "Layers"]].values.tolist() == [["–", "–", "–"]]
    assert any("one image on AMD EPYC, 2 cores, by the fastest engine at parity" in note for note in table.notes)

    measure(bare_run, CNN, engine("pytorch-cuda", p50={1: 2.0}), GPU)
    measure(bare_run, MINE, engine("pytorch-cuda", p50={1: 2.0}), GPU)
    row = tables_of(bare_run)["leaderboard"].frame.set_index("cell").loc[SVM]
    assert (row["latency_p50_ms"], row["latency_precision"]) == (1.25, "fp16")


def test_the_leaderboard_leaves_int8_out(bare_run: Path) -> None:
    rows = [*engine("pytorch-cpu", p50={1: 9.0}), *engine("onnxruntime-cpu", "int8", {1: 4.0})]
    measure(bare_run, SVM, rows)
    tables = tables_of(bare_run)
    ranks = tables["engines"].frame.set_index("precision")["rank"]
    assert (ranks["int8"], ranks["fp32"]) == (1, 2)  # at parity, and the fastest
    row = tables["leaderboard"].frame.set_index("cell").loc[SVM]
    assert (row["latency_p50_ms"], row["latency_engine"], row["latency_precision"]) == (9.0, "pytorch-cpu", "fp32")
    assert any("int8 left out" in note for note in tables["leaderboard"].notes)


def test_the_leaderboard_never_takes_another_batch_for_one_image(bare_run: Path) -> None:
    measure(bare_run, SVM, engine("pytorch-cpu", p50={32: 1.0}))
    assert shown(tables_of(bare_run)["leaderboard"], cell=SVM)["p50, ms"].tolist() == ["–"]
