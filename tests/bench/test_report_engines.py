"""Table 5, the engines and the costs in the leaderboard, from small measurements made by hand."""

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.engine_rows import (
    ENGINE_COLUMNS,
    ENGINE_METRICS,
    ENVIRONMENT,
    MEASUREMENTS,
    STATUSES,
    Found,
    machine_folder,
    write_found,
)
from bench.paper import paper_costs
from bench.report import Table, build_tables, read_measurements, read_rows, read_run, terminal_table, write_report
from bench.report.measured import NOTHING, three_digits
from bench.store import ROW_COLUMNS
from fusion.errors import UserError
from fusion.files import content_hash

SVM, SGDM, CNN = "model1/resnet50+svm", "model2/efficientnet_b0+sgdm", "model3/cnn17+e25+b64"
MINE = "model2/mine+sgdm"
CELLS = [SVM, SGDM, CNN, MINE]
CPU: dict[str, Any] = {"gpu": None, "cpu": "AMD EPYC", "cpu_cores": 2}
GPU: dict[str, Any] = {"gpu": {"name": "NVIDIA H100"}, "cpu": "AMD EPYC", "cpu_cores": 16}
DATA_HASH = "0123456789abcdef"
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "a | b <script>alert(1)</script>",
    r"\input{x} 100% of $x_1$ & #2 {~^}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07done\nsecond\r\n\tline",
    "[bold]markup[/bold] [/nonsense]",
    "\u202eright to left\u0000nul",
    "long " * 100,
]


def network(layers: float = 177, parameter_mib: float = 90.1, macs: float = 7.7e9) -> list[Found]:
    numbers = {"layers": layers, "parameters": 23.6e6, "parameter_mib": parameter_mib, "macs": macs, "activations": 2e7}
    return [Found(metric=metric, value=value, n=1) for metric, value in numbers.items()]


def file_size(precision: str, mib: float) -> Found:
    return Found(precision=precision, metric="file_mib", value=mib, n=1)


def engine(name: str, precision: str = "fp32", p50: dict[int, float] | None = None, **changes: float) -> list[Found]:
    """Return all rows of one engine; ``p50`` is in ms by batch."""
    of_engine = {
        "probability_difference": 3e-7,
        "probability_tolerance": 1e-4,
        "decision_flips": 0.0,
        "auc_difference": 0.0,
        "accuracy": 0.9,
        "auc": 0.95,
        "end_to_end_s": 12.34,
        "model_only_s": 10.12,
        "cold_start_s": 1.5,
        "peak_memory_mib": 512.0,
    }
    of_batch = {"latency_p90_ms": 20.0, "throughput": 80.0, "ratio": 1.0, "energy_j": 1.0, "gpu_mhz": 1500.0}
    of_batch |= {"gpu_throttled": 0.0, "cpu_stolen": 0.0}
    common = {"engine": name, "precision": precision}
    found = [
        Found(**common, metric=metric, value=changes.get(metric, value), low=0.88, high=0.92, n=1043)
        if metric == "accuracy"
        else Found(**common, metric=metric, value=changes.get(metric, value), n=1043)
        for metric, value in of_engine.items()
    ]
    for batch, median in (p50 or {}).items():
        place = {**common, "batch": batch}
        found.append(
            Found(**place, metric="latency_p50_ms", value=median, low=0.98 * median, high=1.02 * median, n=200)
        )
        found += [
            Found(**place, metric=metric, value=changes.get(metric, value), low=0.9, high=1.1, n=200)
            if metric == "ratio"
            else Found(**place, metric=metric, value=changes.get(metric, value), n=200)
            for metric, value in of_batch.items()
        ]
    return found


def without(found: list[Found], *metrics: str) -> list[Found]:
    return [one for one in found if one.metric not in metrics]


def refused(name: str, reason: str, precision: str = "fp32", status: str = "refused") -> Found:
    return Found(engine=name, precision=precision, status=status, reason=reason)


def measure(
    run_dir: Path,
    cell: str,
    found: list[Found],
    environment: dict[str, Any] = CPU,
    protocol: str = "paper",
    seed: int = 0,
    **changes: object,
) -> Path:
    common = {"cell": cell, "protocol": protocol, "seed": seed, "weights": "imagenet", "synthetic_sources": ""}
    common |= {
        "data_hash": DATA_HASH,
        "config_hash": "c",
        "model_hash": "m",
        "environment_hash": content_hash(environment),
        **changes,
    }
    path = machine_folder(run_dir, environment) / protocol / str(seed) / f"{cell}.csv"
    write_found(path, common, found)
    return path


def run_json(**changes: object) -> dict[str, Any]:
    data = {"data_hash": DATA_HASH, "image_size": 300, "synthetic_sources": [], "counts": []}
    run = {"matrix": {}, "cells": CELLS, "protocols": ["paper"], "seeds": [0], "weights": "imagenet", "data": data}
    return run | changes


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of four cells, of which nothing was measured."""
    (tmp_path / "run.json").write_text(json.dumps(run_json()), encoding="utf-8")
    return tmp_path


def tables_of(run_dir: Path) -> dict[str, Table]:
    return build_tables(read_run(run_dir), read_rows(run_dir), read_measurements(run_dir))


def shown(table: Table, **where: object) -> pd.DataFrame:
    """Return the lines of ``display`` whose row of ``frame`` has these values."""
    chosen = pd.Series(True, index=table.frame.index)
    for column, value in where.items():
        chosen &= table.frame[column] == value
    return table.display[chosen]


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(table))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def two_machines(run_dir: Path) -> None:
    """Two cells on a CPU, one of them on a GPU too; one engine is beyond tolerance, several could not be had."""
    no_gpu = refused("onnxruntime-cuda", "torch sees no NVIDIA GPU here", status="not measured")
    cpu = [
        *engine("pytorch-cpu", p50={1: 30.0, 32: 640.0}),
        *engine("onnxruntime-cpu", p50={1: 15.0, 32: 500.0}, ratio=2.0, end_to_end_s=8.0, model_only_s=6.5),
        *engine("onnxruntime-cpu", "int8", {1: 5.0}, ratio=6.0, probability_difference=0.5, decision_flips=40.0),
        no_gpu,
    ]
    measure(run_dir, SVM, [*network(), file_size("fp32", 90.4), *cpu])
    measure(run_dir, CNN, [*network(17, 678.6), *cpu, refused("onnxruntime-cpu", "this CPU has no fp16", "fp16")])
    gpu = [
        *engine("pytorch-cuda", p50={1: 4.0}, end_to_end_s=0.81, model_only_s=0.123),
        *engine("onnxruntime-cuda", "fp16", {1: 1.25}, probability_tolerance=1e-2, gpu_throttled=0.25),
    ]
    measure(run_dir, SVM, [*network(), *gpu], GPU)


# -- engines ---------------------------------------------------------------------------------------------------------


def test_engines_are_ranked_by_p50_within_machine_cell_and_batch(run_dir: Path) -> None:
    two_machines(run_dir)
    frame = tables_of(run_dir)["engines"].frame
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


def test_a_row_beyond_tolerance_is_kept_marked_and_not_ranked(run_dir: Path) -> None:
    two_machines(run_dir)
    table = tables_of(run_dir)["engines"]
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
    run_dir: Path, difference: float, tolerance: float, status: str
) -> None:
    rows = engine("pytorch-cpu", p50={1: 9.0}, probability_difference=difference, probability_tolerance=tolerance)
    measure(run_dir, SVM, rows)
    (row,) = tables_of(run_dir)["engines"].frame.to_dict("records")
    assert row["status"] == status
    assert math.isnan(row["rank"]) == (status != "done")


def test_an_engine_that_was_never_compared_is_not_ranked(run_dir: Path) -> None:
    measure(run_dir, SVM, without(engine("pytorch-cpu", p50={1: 9.0}), "probability_difference"))
    tables = tables_of(run_dir)
    (row,) = tables["engines"].frame.to_dict("records")
    assert (row["status"], math.isnan(row["rank"])) == ("parity unknown", True)
    assert shown(tables["table5"], cell=SVM)["PyTorch, s"].tolist() == ["parity unknown"]


def test_one_seed_beyond_tolerance_is_not_averaged_away(run_dir: Path) -> None:
    measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 10.0}, cpu_stolen=0.06))
    measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 20.0}, probability_difference=1.5e-4), seed=1)
    (row,) = tables_of(run_dir)["engines"].frame.to_dict("records")
    assert (row["latency_p50_ms"], row["seeds"], row["accuracy"]) == (15.0, 2, 0.9)
    assert (row["probability_difference"], row["status"]) == (1.5e-4, "beyond tolerance")
    assert row["cpu_stolen"] == 0.06


def test_an_engine_without_latency_still_has_its_parity(run_dir: Path) -> None:
    measure(run_dir, SVM, engine("onnxruntime-cpu", "bf16", probability_difference=0.5))
    table = tables_of(run_dir)["engines"]
    (line,) = table.display.to_dict("records")
    assert (line["Batch"], line["p50 ms"], line["Status"]) == ("–", "–", "beyond tolerance")


def test_a_disturbed_measurement_says_so_and_keeps_its_rank(run_dir: Path) -> None:
    measure(
        run_dir,
        SVM,
        [
            *engine("pytorch-cpu", p50={1: 9.0}, cpu_stolen=0.06),
            *engine("pytorch-cuda", p50={1: 8.0}, gpu_throttled=0.1, cpu_stolen=0.2),
            *engine("onnxruntime-cpu", p50={1: 7.0}, cpu_stolen=0.05),
        ],
    )
    display = tables_of(run_dir)["engines"].display
    assert display["Status"].tolist() == ["done", "throttled, CPU shared", "CPU shared"]
    assert display["Rank"].tolist() == ["1", "2", "3"]


def test_a_reason_all_models_share_stands_once_and_others_with_their_model(run_dir: Path) -> None:
    two_machines(run_dir)
    table = tables_of(run_dir)["engines"]
    (everywhere,) = shown(table, cell="all").to_dict("records")
    assert everywhere["Machine"] == "AMD EPYC, 2 cores"
    assert (everywhere["Engine"], everywhere["× PyTorch"]) == ("onnxruntime-cuda", "not measured")
    assert everywhere["Status"] == "not measured (fp32): torch sees no NVIDIA GPU here"
    (alone,) = shown(table, cell=CNN, status="refused").to_dict("records")
    assert alone["Status"] == "refused (fp16): this CPU has no fp16"
    for notes in (table.notes, tables_of(run_dir)["table5"].notes):
        assert "not measured on AMD EPYC, 2 cores: onnxruntime-cuda fp32: torch sees no NVIDIA GPU here" in notes
        assert f"refused on AMD EPYC, 2 cores: onnxruntime-cpu fp16 ({CNN}): this CPU has no fp16" in notes


def test_many_cells_with_one_reason_are_counted(run_dir: Path) -> None:
    for cell in CELLS[:3]:
        measure(run_dir, cell, [refused("onnxruntime-cpu", "too big", name) for name in ("fp32", "fp16")])
    measure(run_dir, MINE, engine("onnxruntime-cpu"))
    table = tables_of(run_dir)["engines"]
    assert "refused: onnxruntime-cpu fp32/fp16 (3 cells): too big" in table.notes
    lines = shown(table, status="refused")
    assert lines["Model"].tolist() == CELLS[:3]  # not all: one each, of both precisions
    assert set(lines["Engine"]) == {"onnxruntime-cpu"}


def test_precisions_of_an_engine_that_failed_alike_are_one_row(run_dir: Path) -> None:
    lacking = [refused("pytorch-cuda", "no GPU", name, "not measured") for name in ("fp32", "bf16", "fp16")]
    others = [refused("pytorch-graph-cuda", "no GPU", "fp32", "not measured")]
    others += [refused("onnxruntime-cuda", f"no {name}", name) for name in ("fp32", "fp16")]
    for cell in (SVM, CNN):
        measure(run_dir, cell, [*engine("pytorch-cpu"), *lacking, *others])
    table = tables_of(run_dir)["engines"]
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


def test_a_precision_that_failed_elsewhere_too_stands_apart(run_dir: Path) -> None:
    measure(run_dir, SVM, [refused("onnxruntime-cpu", "too big", name) for name in ("fp32", "int8")])
    measure(run_dir, CNN, [refused("onnxruntime-cpu", "too big"), *engine("onnxruntime-cpu", "int8")])
    frame = tables_of(run_dir)["engines"].frame
    rows = frame.loc[frame["status"] == "refused", ["protocol", "cell", "precision"]]
    assert rows.values.tolist() == [["paper", SVM, "int8"], ["all", "all", "fp32"]]


def test_cells_on_which_no_engine_was_tried_do_not_count_for_all(run_dir: Path) -> None:
    no_gpu = [refused("pytorch-cuda", "no GPU", name, "not measured") for name in ("fp32", "fp16")]
    for cell in (SVM, CNN):
        measure(run_dir, cell, [*network(), *engine("pytorch-cpu"), *no_gpu])
    for cell in (SGDM, MINE):
        measure(run_dir, cell, network())
    table = tables_of(run_dir)["engines"]
    assert shown(table, status="not measured")[["Protocol", "Model", "Engine"]].values.tolist() == [
        ["all", "all", "pytorch-cuda"]
    ]
    assert "not measured: pytorch-cuda fp32/fp16: no GPU" in table.notes
    assert set(table.frame["cell"]) == {SVM, CNN, "all"}


def test_the_brief_engines_say_of_each_row_what_became_of_it(run_dir: Path) -> None:
    measure(
        run_dir,
        SVM,
        [
            *engine("pytorch-cpu", p50={1: 9.0}),
            *engine("onnxruntime-cpu", "int8", {1: 4.0}, ratio=1.94, probability_difference=0.5),
            refused("pytorch-cuda", "no GPU", status="not measured"),
        ],
    )
    table = tables_of(run_dir)["engines"]
    assert table.brief == ("Model", "Batch", "Engine", "p50 ms", "× PyTorch")
    assert table.display[["Engine", "p50 ms", "× PyTorch"]].values.tolist() == [
        ["pytorch-cpu fp32", "9.00", "1.00 (0.90–1.10)"],
        ["onnxruntime-cpu int8", "4.00", "1.94 †"],
        ["pytorch-cuda", "–", "not measured"],
    ]


def test_only_a_gpu_has_the_note_about_tf32(run_dir: Path) -> None:
    measure(run_dir, SVM, [*engine("pytorch-cpu", p50={1: 9.0}), refused("onnxruntime-cuda", "none here")])
    assert not any("TF32" in note for note in tables_of(run_dir)["engines"].notes)
    measure(run_dir, SVM, engine("pytorch-cuda", p50={1: 9.0}), GPU)
    assert (
        "fp32 is fp32: TF32 is off in PyTorch and in ONNX Runtime's CUDA provider; TensorRT decides for itself"
        in tables_of(run_dir)["engines"].notes
    )


# -- Table 5 ---------------------------------------------------------------------------------------------------------


def test_table5_has_ours_beside_the_papers(run_dir: Path) -> None:
    two_machines(run_dir)
    table = tables_of(run_dir)["table5"]
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


def test_table5_takes_the_fastest_engine_at_parity_of_each_kind_and_precision(run_dir: Path) -> None:
    measure(
        run_dir,
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
    table = tables_of(run_dir)["table5"]
    lines = shown(table, cell=SVM)
    assert lines["Precision"].tolist() == ["fp32", "bf16"]
    assert lines["PyTorch, s"].tolist() == ["2.00 (10.1)", "not measured"]
    assert lines["ORT, s"].tolist() == ["beyond tolerance", "not measured"]
    assert table.frame["pytorch_engine"].tolist()[:2] == ["pytorch-cuda", ""]


def test_table5_averages_seeds_and_has_cells_the_paper_does_not_print(run_dir: Path) -> None:
    for seed, seconds in enumerate((10.0, 11.0)):
        measure(run_dir, MINE, [*network(50, 10.0), *engine("pytorch-cpu", end_to_end_s=seconds)], seed=seed)
    table = tables_of(run_dir)["table5"]
    assert list(table.frame["cell"]) == [SVM, SGDM, CNN, MINE]
    (line,) = shown(table, cell=MINE).to_dict("records")
    assert (line["PyTorch, s"], line["Paper, s"]) == ("10.5 (10.1)", "–")
    assert (line["Parameters, MiB"], line["Layers"]) == ("10.0 / –", "50 / –")
    assert table.frame["seeds"].tolist() == [0, 0, 0, 2]


def test_table5_keeps_the_papers_order_and_only_the_cells_of_the_run(run_dir: Path) -> None:
    printed_cells = list(paper_costs()["cell"])
    table = build_tables(run_json(cells=printed_cells[::-1]), read_rows(run_dir), read_measurements(run_dir))["table5"]
    assert list(table.frame["cell"]) == printed_cells
    other = build_tables(run_json(cells=[MINE]), read_rows(run_dir), read_measurements(run_dir))["table5"]
    assert other.frame.empty
    assert "no cell of this table belongs to this run" in other.notes


def test_sizes_without_an_engine_are_shown(run_dir: Path) -> None:
    measure(run_dir, SVM, [*network(), refused("pytorch-cpu", "out of memory")])
    (line,) = shown(tables_of(run_dir)["table5"], cell=SVM).to_dict("records")
    assert (line["PyTorch, s"], line["Layers"], line["GMACs"]) == ("not measured", "177 / 177 (0)", "7.70")


def test_cells_with_facts_of_their_network_alone_are_not_rows_of_table5(run_dir: Path) -> None:
    measure(run_dir, SVM, [*network(), *engine("pytorch-cpu", p50={1: 9.0})])
    measure(run_dir, SVM, network(), seed=1)
    for cell in (SGDM, MINE):
        for seed in (0, 1):
            measure(run_dir, cell, network(290, 15.5), seed=seed)
    tables = tables_of(run_dir)
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


def test_the_leaderboard_has_the_costs_of_the_machine_with_most_models(run_dir: Path) -> None:
    two_machines(run_dir)
    table = tables_of(run_dir)["leaderboard"]
    row = table.frame.set_index("cell").loc[SVM]
    # int8 is faster, but beyond tolerance; the GPU is faster, but has one model only
    assert (row["latency_p50_ms"], row["latency_engine"], row["latency_precision"]) == (15.0, "onnxruntime-cpu", "fp32")
    assert (row["parameter_mib"], row["layers"]) == (90.1, 177)
    assert shown(table, cell=SVM)[["p50, ms", "MiB", "Layers"]].values.tolist() == [["15.0", "90.1", "177"]]
    assert shown(table, cell=SGDM)[["p50, ms", "MiB", "Layers"]].values.tolist() == [["–", "–", "–"]]
    assert any("one image on AMD EPYC, 2 cores, by the fastest engine at parity" in note for note in table.notes)

    measure(run_dir, CNN, engine("pytorch-cuda", p50={1: 2.0}), GPU)
    measure(run_dir, MINE, engine("pytorch-cuda", p50={1: 2.0}), GPU)
    row = tables_of(run_dir)["leaderboard"].frame.set_index("cell").loc[SVM]
    assert (row["latency_p50_ms"], row["latency_precision"]) == (1.25, "fp16")


def test_the_leaderboard_leaves_int8_out(run_dir: Path) -> None:
    rows = [*engine("pytorch-cpu", p50={1: 9.0}), *engine("onnxruntime-cpu", "int8", {1: 4.0})]
    measure(run_dir, SVM, rows)
    tables = tables_of(run_dir)
    ranks = tables["engines"].frame.set_index("precision")["rank"]
    assert (ranks["int8"], ranks["fp32"]) == (1, 2)  # at parity, and the fastest
    row = tables["leaderboard"].frame.set_index("cell").loc[SVM]
    assert (row["latency_p50_ms"], row["latency_engine"], row["latency_precision"]) == (9.0, "pytorch-cpu", "fp32")
    assert any("int8 left out" in note for note in tables["leaderboard"].notes)


def test_the_leaderboard_never_takes_another_batch_for_one_image(run_dir: Path) -> None:
    measure(run_dir, SVM, engine("pytorch-cpu", p50={32: 1.0}))
    assert shown(tables_of(run_dir)["leaderboard"], cell=SVM)["p50, ms"].tolist() == ["–"]


# -- nothing measured, and other labels ------------------------------------------------------------------------------


def test_without_measurements_the_tables_say_what_to_do(run_dir: Path) -> None:
    tables = write_report(run_dir)
    assert list(tables) == ["table1", "table2", "table3", "table4", "table5", "table6", "engines", "leaderboard"]
    assert tables["engines"].frame.empty
    assert list(tables["table5"].display["PyTorch, s"]) == ["not measured"] * 3
    for name in ("table5", "engines", "leaderboard"):
        assert NOTHING in tables[name].notes
        assert NOTHING in " ".join(printed(tables[name], 80).split())
    assert read_measurements(run_dir).columns.tolist() == [*ENGINE_COLUMNS, "machine"]


def write_results(run_dir: Path, cell: str, config_hash: str, seed: int = 0, **changes: object) -> None:
    """Leave the results of a cell, of which one number is enough here."""
    row = {"cell": cell, "protocol": "paper", "seed": seed, "status": "done", "metric": "accuracy", "value": 0.9}
    row |= {"low": 0.85, "high": 0.95, "n": 1043, "weights": "imagenet", "data_hash": DATA_HASH}
    path = run_dir / "cells" / "paper" / str(seed) / cell / "rows.csv"
    path.parent.mkdir(parents=True)
    rows = [row | {"config_hash": config_hash} | changes]
    pd.DataFrame(rows, columns=list(ROW_COLUMNS)).to_csv(path, index=False)


def outdated_notes(table: Table) -> list[str]:
    return [note for note in table.notes if "run again" in note]


def test_measurements_of_a_cell_that_was_run_again_are_left_out_and_named(run_dir: Path) -> None:
    of_old = {"config_hash": "old", "weights": "random", "data_hash": "f" * 64}
    for environment in (CPU, GPU):
        measure(run_dir, SVM, [*network(), *engine("pytorch-cpu", p50={1: 9.0})], environment, **of_old)
    measure(run_dir, CNN, [*network(), *engine("pytorch-cpu", p50={1: 7.0})])
    measure(run_dir, CNN, engine("pytorch-cpu", p50={1: 1.0}), seed=1, config_hash="old")
    for cell in (SVM, CNN):
        write_results(run_dir, cell, "c")
    write_results(run_dir, CNN, "c", seed=1)
    tables = tables_of(run_dir)
    assert tables["engines"].frame[["machine", "cell", "latency_p50_ms"]].values.tolist() == [
        ["AMD EPYC, 2 cores", CNN, 7.0]
    ]
    assert shown(tables["table5"], cell=SVM)[["PyTorch, s", "Layers"]].values.tolist() == [["not measured", "– / 177"]]
    assert shown(tables["leaderboard"], cell=SVM)[["p50, ms", "MiB"]].values.tolist() == [["–", "–"]]
    for name in ("table5", "engines", "leaderboard"):
        assert outdated_notes(tables[name]) == [
            f"measured before the cell was run again, and left out: {SVM}, {CNN}; run 'fusebench measure'"
        ]
    for name, table in tables.items():  # what is left out gives no marks either
        assert "other data" not in "\n".join(table.notes), name
        assert set(table.frame["weights"]) <= {"imagenet"}, name


def test_when_all_that_was_measured_is_outdated_nothing_else_is_said(run_dir: Path) -> None:
    cells = [f"model2/resnet50+{number}" for number in range(3)]
    for cell in cells:
        measure(run_dir, cell, engine("pytorch-cpu", p50={1: 9.0}))
        write_results(run_dir, cell, "new")
    tables = tables_of(run_dir)
    assert tables["engines"].frame.empty
    for name in ("table5", "engines", "leaderboard"):
        assert NOTHING not in tables[name].notes
        (note,) = outdated_notes(tables[name])
        assert "left out: 3 cells; run" in note


def test_measurements_of_cells_as_they_are_or_without_results_are_shown(run_dir: Path) -> None:
    for cell in (SVM, CNN):
        measure(run_dir, cell, engine("pytorch-cpu", p50={1: 9.0}))
    write_results(run_dir, SVM, "c")
    tables = tables_of(run_dir)
    assert list(tables["engines"].frame["cell"]) == [SVM, CNN]
    assert not any(outdated_notes(table) for table in tables.values())


def test_a_cell_that_failed_when_it_was_run_again_has_no_measurements(run_dir: Path) -> None:
    measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 9.0}))
    nothing = {"status": "failed", "metric": "", "value": "", "low": "", "high": "", "n": 0, "reason": "no luck"}
    write_results(run_dir, SVM, "new", **nothing)
    table = tables_of(run_dir)["engines"]
    assert table.frame.empty
    assert len(outdated_notes(table)) == 1


def test_measurements_on_other_data_or_random_weights_are_named(run_dir: Path) -> None:
    labels = {"weights": "random", "synthetic_sources": "busi", "data_hash": "f" * 64}
    measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 9.0}), **labels)
    for name, table in tables_of(run_dir).items():
        notes = "\n".join(table.notes)
        assert "phantom data: busi" in notes, name
        assert "weights: random" in notes, name
        assert "other data (ffffffffffff)" in notes, name


# -- text from outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_in_every_format(run_dir: Path, text: str) -> None:
    environment = {"gpu": {"name": text}, "cpu": "", "cpu_cores": 1}
    rows = [*engine("pytorch-cuda", p50={1: 9.0}), refused("onnxruntime-cuda", text), refused(text, "no such engine")]
    measure(run_dir, SVM, [*rows, *engine(text, text, {1: 7.0})], environment)
    for name, table in write_report(run_dir).items():
        if name not in ("table5", "engines", "leaderboard"):
            continue
        files = {
            ending: (run_dir / "tables" / f"{name}.{ending}").read_bytes().decode() for ending in ("csv", "md", "tex")
        }
        assert not any(re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", file) for file in files.values())
        kept = pd.read_csv(io.StringIO(files["csv"]), keep_default_na=False, dtype=str)
        assert len(kept) == len(table.frame)
        texts = kept[table.frame.columns[~table.frame.map(lambda cell: isinstance(cell, int | float)).all()]]
        assert not texts.map(lambda cell: cell.startswith(("=", "+", "-", "@"))).any(axis=None)
        lines = [line for line in files["md"].splitlines() if line.startswith("|")]
        assert len(lines) == len(table.display) + 2
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.display.columns) + 1}
        assert "<" not in files["md"]
        body = re.sub(r"\\[&%$#_{}\\]", "", "\n".join(files["tex"].splitlines()[1:]))
        assert body.count("{") == body.count("}")
        assert body.count("$") % 2 == 0
        assert not re.search(r"\\input|[#%Δ×≥]", body)
        assert "\x1b" not in printed(table, 160)


def test_a_cell_whose_name_is_hostile_stays_text(run_dir: Path) -> None:
    cell = "model1/=x|<b>\x1b[31m%+svm"
    measure(run_dir, cell, engine("pytorch-cpu", p50={1: 9.0}))
    tables = write_report(run_dir)
    assert tables["engines"].frame["cell"].tolist() == ["model1/=x|<b>%+svm"]
    for path in (run_dir / "tables").iterdir():
        assert "\x1b" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_shows_every_row_within_its_width(run_dir: Path, width: int) -> None:
    two_machines(run_dir)
    for name in ("table5", "engines", "leaderboard"):
        table = tables_of(run_dir)[name]
        text = printed(table, width)
        lines = [line for line in text.splitlines() if not line.startswith("- ")]
        assert max(map(len, lines)) <= width
        assert len(lines) > len(table.display)
        assert "15.0" in text or name == "table5"


@pytest.mark.parametrize("protocols", [["paper"], ["paper", "clean"]])
def test_the_brief_leaderboard_fits_80_characters(run_dir: Path, protocols: list[str]) -> None:
    cell = "model2/efficientnet_b0+rmsprop"  # the longest of the matrix
    (run_dir / "run.json").write_text(json.dumps(run_json(protocols=protocols, cells=[cell])), encoding="utf-8")
    write_results(run_dir, cell, "c")
    measure(run_dir, cell, engine("pytorch-cpu", p50={1: 1234.0}))
    lines = printed(tables_of(run_dir)["leaderboard"], 80).splitlines()
    # all on one line: nothing had to be broken
    assert any(f"{cell} 0.900 (0.850–0.950)" in line and "0.692    1234" in line for line in lines)


def test_a_table_as_wide_as_the_terminal_is_not_broken() -> None:
    display = pd.DataFrame({"Model": ["model1/resnet50+svm"], "n": ["12"]})
    table = Table(name="t", title="T", notes=(), frame=display, display=display, brief=("n",))
    assert " model1/resnet50+svm 12 " in printed(table, 24)
    assert "model1" not in printed(table, 23)


def test_csv_has_plain_numbers(run_dir: Path) -> None:
    two_machines(run_dir)
    write_report(run_dir)
    for name, numbers in (("engines", ("latency_p50_ms", "ratio_low", "rank")), ("table5", ("layers_ours", "macs"))):
        back = pd.read_csv(run_dir / "tables" / f"{name}.csv")
        assert all(pd.api.types.is_numeric_dtype(back[column]) for column in numbers)


def test_three_digits_are_left() -> None:
    values = (1234.5, 99.94, 9.994, 0.5, 0.01234, 0.0, math.nan, math.inf)
    assert [three_digits(value) for value in values] == [
        "1234",
        "99.9",
        "9.99",
        "0.500",
        "0.0123",
        "0.0000",
        "–",
        "inf",
    ]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_measurements_are_read_with_their_machine(run_dir: Path) -> None:
    two_machines(run_dir)
    rows = read_measurements(run_dir)
    assert set(rows["machine"]) == {"AMD EPYC, 2 cores", "NVIDIA H100"}
    assert set(rows["status"]) <= set(STATUSES)
    value = rows[rows["metric"].eq("latency_p50_ms") & rows["engine"].eq("pytorch-cuda")].iloc[0]
    assert (value["value"], value["n"], value["batch"], value["seed"]) == (4.0, 200, 1, 0)
    assert rows.loc[rows["status"] != "done", "value"].isna().all()


def test_machines_of_one_name_are_told_apart(run_dir: Path) -> None:
    others = [CPU | {"torch_threads": threads} for threads in (1, 2)]
    for environment in others:
        measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 9.0}), environment)
    assert set(tables_of(run_dir)["engines"].frame["machine"]) == {
        f"AMD EPYC, 2 cores [{content_hash(environment)[:6]}]" for environment in others
    }


def test_a_file_that_is_being_written_is_not_read(run_dir: Path) -> None:
    path = measure(run_dir, SVM, engine("pytorch-cpu"))
    path.with_name(f".{path.name}.123.partial").write_text("half")
    path.with_name(".hidden.csv").write_text("half")
    (run_dir / MEASUREMENTS / "empty").mkdir()
    assert set(read_measurements(run_dir)["cell"]) == {SVM}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(",unit,", ",units,"), "lacks unit and has the unknown units"),
        (lambda text: text.replace("metric,value", "value,metric"), "another order"),
        (lambda text: text.replace(",12.34,", ",12.34 s,"), "value '12.34 s' is not a number"),
        (lambda text: text.replace("fp32,1,done", "fp32,1.5,done"), "batch '1.5' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,-1,done"), "batch '-1' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,inf,done"), "batch 'inf' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,,done"), "batch '' is not a whole number"),
        (lambda text: text.replace(",done,", ",failed,", 1), "'failed' is not one of done, refused, not measured"),
        (lambda text: text.replace(",done,", ",refused,", 1), "in a row that is refused; there it is empty"),
        (lambda text: text.replace("end_to_end_s", "speed"), "metric 'speed' is not one of layers, parameters"),
        (lambda text: text.replace(",12.34,s,", ",12.34,min,"), "unit 'min' of end_to_end_s is not 's'"),
        (lambda text: text.replace(",paper,", ",clean,", 1), "protocol 'clean' does not belong here"),
        (lambda text: text.replace(",paper,0,", ",paper,1,", 1), "seed '1' does not belong here"),
        (lambda text: text.replace(SVM, CNN, 1), f"cell '{CNN}' does not belong here"),
        (lambda text: text.replace(content_hash(CPU), content_hash(GPU), 1), "environment_hash '"),
        (lambda text: text + text.splitlines(keepends=True)[1], "metric 'probability_difference' occurs twice"),
        (lambda _: "", "cannot be read as CSV"),
        (lambda text: text + '"', "cannot be read as CSV"),
    ],
)
def test_damaged_rows_are_named(run_dir: Path, damage: Callable[[str], str], message: str) -> None:
    path = measure(run_dir, SVM, engine("pytorch-cpu", p50={1: 9.0}))
    text = path.read_text(encoding="utf-8")
    read_measurements(run_dir)
    assert damage(text) != text
    path.write_text(damage(text), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_measurements(run_dir)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "can't be read as JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "lacks 'gpu'"),
        (json.dumps({"gpu": "H100", "cpu": "a", "cpu_cores": 1}), "gpu: is str, not an object with name"),
        (json.dumps({"gpu": {"name": 5}, "cpu": "a", "cpu_cores": 1}), "gpu: 'name' is int, not str"),
        (json.dumps({"gpu": {}, "cpu": "a", "cpu_cores": 1}), "gpu: lacks 'name'"),
        (json.dumps({"gpu": None, "cpu": ["a"], "cpu_cores": 1}), "'cpu' is list, not str"),
        (json.dumps({"gpu": None, "cpu": "a", "cpu_cores": "two"}), "'cpu_cores' is str, not int"),
        (json.dumps(GPU), "but its folder is named"),
    ],
)
def test_a_damaged_environment_is_named(run_dir: Path, content: str | None, message: str) -> None:
    measure(run_dir, SVM, engine("pytorch-cpu"))
    path = machine_folder(run_dir, CPU) / ENVIRONMENT
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        write_report(run_dir)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_renamed_copy_of_a_machine_is_refused(run_dir: Path) -> None:
    measure(run_dir, SVM, engine("pytorch-cpu"))
    folder = machine_folder(run_dir, CPU)
    folder.rename(folder.with_name("my-laptop"))
    with pytest.raises(UserError, match="its folder is named 'my-laptop'; copy a machine's folder as it is"):
        read_measurements(run_dir)


def test_the_readme_describes_every_column_and_metric() -> None:
    readme = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    section = readme.split("## measurements/")[1].split("\n## ")[0]
    for name in (*ENGINE_COLUMNS, *ENGINE_METRICS, *STATUSES):
        assert f"`{name}`" in section, name
