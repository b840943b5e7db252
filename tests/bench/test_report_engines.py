"""The table of the engines: ranks, parity, and what could not be measured."""

import math
from pathlib import Path

import pytest
from measured_rows import CNN, FOUR_CELLS, GPU, MINE, SGDM, SVM, engine, measure, network, refused, shown, two_machines
from report_rows import tables_of

from bench.engine_rows import Found


def without(found: list[Found], *metrics: str) -> list[Found]:
    return [one for one in found if one.metric not in metrics]


def test_engines_are_ranked_by_p50_within_machine_cell_and_batch(bare_run: Path) -> None:
    two_machines(bare_run)
    frame = tables_of(bare_run)["engines"].frame
    timed = frame[frame["machine"].eq("AMD EPYC, 2 cores") & frame["cell"].eq(SVM)]
    assert timed[["batch", "engine", "precision", "rank"]].fillna(0).values.tolist() == [
        [1, "onnxruntime-cpu", "fp32", 1],
        [1, "pytorch-cpu", "fp32", 2],
        [1, "onnxruntime-cpu", "int8", 0],
        [32, "onnxruntime-cpu", "fp32", 1],
        [32, "pytorch-cpu", "fp32", 2],
    ]
    gpu = frame[frame["machine"].eq("NVIDIA H100")]
    assert list(gpu["rank"]) == [1, 2]
    assert list(gpu["latency_p50_ms"]) == [1.25, 4.0]


def test_a_row_beyond_tolerance_is_kept_marked_and_not_ranked(bare_run: Path) -> None:
    two_machines(bare_run)
    table = tables_of(bare_run)["engines"]
    (line,) = shown(table, cell=SVM, precision="int8").to_dict("records")
    assert line["Engine"] == "onnxruntime-cpu int8"
    assert (line["p50 ms"], line["95 % interval"]) == ("5.00", "4.90–5.10")
    assert line["× PyTorch"] == "6.00 †"
    assert (line["Max. Δp"], line["Flips"], line["Rank"], line["Status"]) == ("5e-01", "40", "–", "beyond tolerance")
    (at_parity, *_) = shown(table, cell=SVM, engine="onnxruntime-cpu", precision="fp32").to_dict("records")
    assert at_parity["× PyTorch"] == "2.00 (0.90–1.10)"
    assert any("beyond tolerance is kept and not ranked" in note for note in table.notes)
    assert "† not ranked: beyond tolerance" in table.notes
    assert any("allowed: fp32 1e-04, fp16 1e-02, int8 1e-04" in note for note in table.notes)


@pytest.mark.parametrize(
    ("difference", "tolerance", "status"),
    [
        (1e-4, 1e-4, "done"),
        (1.01e-4, 1e-4, "beyond tolerance"),
        (math.nan, 1e-4, "beyond tolerance"),
        (1e-7, math.nan, "beyond tolerance"),
        (math.inf, 1e-4, "beyond tolerance"),
    ],
)
def test_parity_is_a_difference_within_the_tolerance(
    bare_run: Path, difference: float, tolerance: float, status: str
) -> None:
    rows = engine("pytorch-cpu", p50={1: 9.0}, probability_difference=difference, probability_tolerance=tolerance)
    measure(bare_run, SVM, rows)
    (row,) = tables_of(bare_run)["engines"].frame.to_dict("records")
    assert row["status"] == status
    assert math.isnan(row["rank"]) == (status != "done")


def test_an_engine_that_was_never_compared_is_not_ranked(bare_run: Path) -> None:
    measure(bare_run, SVM, without(engine("pytorch-cpu", p50={1: 9.0}), "probability_difference"))
    tables = tables_of(bare_run)
    (row,) = tables["engines"].frame.to_dict("records")
    assert (row["status"], math.isnan(row["rank"])) == ("parity unknown", True)
    assert shown(tables["table5"], cell=SVM)["PyTorch, s"].tolist() == ["parity unknown"]


def test_one_seed_beyond_tolerance_is_not_averaged_away(bare_run: Path) -> None:
    measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 10.0}, cpu_stolen=0.06))
    measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 20.0}, probability_difference=1.5e-4), seed=1)
    (row,) = tables_of(bare_run)["engines"].frame.to_dict("records")
    assert (row["latency_p50_ms"], row["seeds"], row["accuracy"]) == (15.0, 2, 0.9)
    assert (row["probability_difference"], row["status"]) == (1.5e-4, "beyond tolerance")
    assert row["cpu_stolen"] == 0.06


def test_an_engine_without_latency_still_has_its_parity(bare_run: Path) -> None:
    measure(bare_run, SVM, engine("onnxruntime-cpu", "bf16", probability_difference=0.5))
    table = tables_of(bare_run)["engines"]
    (line,) = table.display.to_dict("records")
    assert (line["Batch"], line["p50 ms"], line["Status"]) == ("–", "–", "beyond tolerance")


def test_a_disturbed_measurement_says_so_and_keeps_its_rank(bare_run: Path) -> None:
    measure(
        bare_run,
        SVM,
        [
            *engine("pytorch-cpu", p50={1: 9.0}, cpu_stolen=0.06),
            *engine("pytorch-cuda", p50={1: 8.0}, gpu_throttled=0.1, cpu_stolen=0.2),
            *engine("onnxruntime-cpu", p50={1: 7.0}, cpu_stolen=0.05),
        ],
    )
    display = tables_of(bare_run)["engines"].display
    assert display["Status"].tolist() == ["done", "throttled, CPU shared", "CPU shared"]
    assert display["Rank"].tolist() == ["1", "2", "3"]


def test_a_reason_all_models_share_stands_once_and_others_with_their_model(bare_run: Path) -> None:
    two_machines(bare_run)
    table = tables_of(bare_run)["engines"]
    (everywhere,) = shown(table, cell="all").to_dict("records")
    assert everywhere["Machine"] == "AMD EPYC, 2 cores"
    assert (everywhere["Engine"], everywhere["× PyTorch"]) == ("onnxruntime-cuda", "not measured")
    assert everywhere["Status"] == "not measured (fp32): torch sees no NVIDIA GPU here"
    (alone,) = shown(table, cell=CNN, status="refused").to_dict("records")
    assert alone["Status"] == "refused (fp16): this CPU has no fp16"
    for notes in (table.notes, tables_of(bare_run)["table5"].notes):
        assert "not measured on AMD EPYC, 2 cores: onnxruntime-cuda fp32: torch sees no NVIDIA GPU here" in notes
        assert f"refused on AMD EPYC, 2 cores: onnxruntime-cpu fp16 ({CNN}): this CPU has no fp16" in notes


def test_many_cells_with_one_reason_are_counted(bare_run: Path) -> None:
    for cell in FOUR_CELLS[:3]:
        measure(bare_run, cell, [refused("onnxruntime-cpu", "too big", name) for name in ("fp32", "fp16")])
    measure(bare_run, MINE, engine("onnxruntime-cpu"))
    table = tables_of(bare_run)["engines"]
    assert "refused: onnxruntime-cpu fp32/fp16 (3 cells): too big" in table.notes
    lines = shown(table, status="refused")
    assert lines["Model"].tolist() == FOUR_CELLS[:3]  # not all: one each, of both precisions
    assert set(lines["Engine"]) == {"onnxruntime-cpu"}


def test_precisions_of_an_engine_that_failed_alike_are_one_row(bare_run: Path) -> None:
    lacking = [refused("pytorch-cuda", "no GPU", name, "not measured") for name in ("fp32", "bf16", "fp16")]
    others = [refused("pytorch-graph-cuda", "no GPU", "fp32", "not measured")]
    others += [refused("onnxruntime-cuda", f"no {name}", name) for name in ("fp32", "fp16")]
    for cell in (SVM, CNN):
        measure(bare_run, cell, [*engine("pytorch-cpu"), *lacking, *others])
    table = tables_of(bare_run)["engines"]
    columns = ["cell", "engine", "precision", "status", "reason"]
    assert table.frame.loc[table.frame["status"] != "done", columns].values.tolist() == [
        ["all", "pytorch-cuda", "fp32/bf16/fp16", "not measured", "no GPU"],
        ["all", "pytorch-graph-cuda", "fp32", "not measured", "no GPU"],
        ["all", "onnxruntime-cuda", "fp32", "refused", "no fp32"],
        ["all", "onnxruntime-cuda", "fp16", "refused", "no fp16"],
    ]
    (line,) = shown(table, engine="pytorch-cuda").to_dict("records")
    assert (line["Engine"], line["× PyTorch"]) == ("pytorch-cuda", "not measured")
    assert "not measured: pytorch-cuda fp32/bf16/fp16, pytorch-graph-cuda fp32: no GPU" in table.notes


def test_a_precision_that_failed_elsewhere_too_stands_apart(bare_run: Path) -> None:
    measure(bare_run, SVM, [refused("onnxruntime-cpu", "too big", name) for name in ("fp32", "int8")])
    measure(bare_run, CNN, [refused("onnxruntime-cpu", "too big"), *engine("onnxruntime-cpu", "int8")])
    frame = tables_of(bare_run)["engines"].frame
    rows = frame.loc[frame["status"] == "refused", ["protocol", "cell", "precision"]]
    assert rows.values.tolist() == [["paper", SVM, "int8"], ["all", "all", "fp32"]]


def test_cells_on_which_no_engine_was_tried_do_not_count_for_all(bare_run: Path) -> None:
    no_gpu = [refused("pytorch-cuda", "no GPU", name, "not measured") for name in ("fp32", "fp16")]
    for cell in (SVM, CNN):
        measure(bare_run, cell, [*network(), *engine("pytorch-cpu"), *no_gpu])
    for cell in (SGDM, MINE):
        measure(bare_run, cell, network())
    table = tables_of(bare_run)["engines"]
    assert shown(table, status="not measured")[["Protocol", "Model", "Engine"]].values.tolist() == [
        ["all", "all", "pytorch-cuda"]
    ]
    assert "not measured: pytorch-cuda fp32/fp16: no GPU" in table.notes
    assert set(table.frame["cell"]) == {SVM, CNN, "all"}


def test_the_brief_engines_say_of_each_row_what_became_of_it(bare_run: Path) -> None:
    measure(
        bare_run,
        SVM,
        [
            *engine("pytorch-cpu", p50={1: 9.0}),
            *engine("onnxruntime-cpu", "int8", {1: 4.0}, ratio=1.94, probability_difference=0.5),
            refused("pytorch-cuda", "no GPU", status="not measured"),
        ],
    )
    table = tables_of(bare_run)["engines"]
    assert table.brief == ("Model", "Batch", "Engine", "p50 ms", "× PyTorch")
    assert table.display[["Engine", "p50 ms", "× PyTorch"]].values.tolist() == [
        ["pytorch-cpu fp32", "9.00", "1.00 (0.90–1.10)"],
        ["onnxruntime-cpu int8", "4.00", "1.94 †"],
        ["pytorch-cuda", "–", "not measured"],
    ]


def test_only_a_gpu_has_the_note_about_tf32(bare_run: Path) -> None:
    measure(bare_run, SVM, [*engine("pytorch-cpu", p50={1: 9.0}), refused("onnxruntime-cuda", "none here")])
    assert not any("TF32" in note for note in tables_of(bare_run)["engines"].notes)
    measure(bare_run, SVM, engine("pytorch-cuda", p50={1: 9.0}), GPU)
    assert (
        "fp32 is fp32: TF32 is off in PyTorch and in ONNX Runtime's CUDA provider; TensorRT decides for itself"
        in tables_of(bare_run)["engines"].notes
    )
