"""A cell that fails is a row with its reason, and the others go on."""

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bench.cell
import bench.extract
import bench.worker
from bench.matrix import read_matrix
from bench.runner import Summary
from fusion.errors import UserError
from fusion.prepared import Prepared
from fusion.split import split_rows

EXTRACTED = ["model1/mobilenet_v2+lr", "model1/mobilenet_v2+nb", "model1/mobilenet_v2+svm"]
SMALL = ["model3/cnn17+e1+b8", "model3/cnn17+e2+b8"]


def cell_folder(out: Path, cell: str, protocol: str = "paper", seed: int = 0) -> Path:
    return out / "cells" / protocol / str(seed) / cell


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv", keep_default_na=False, na_values={"value": [""], "low": [""], "high": [""]})


def failure_of(out: Path, cell: str) -> str:
    (row,) = rows_of(cell_folder(out, cell)).to_dict("records")
    assert row["status"] == "failed"
    return str(row["reason"])


def failing(monkeypatch: pytest.MonkeyPatch, cell: str, act: Callable[[], Any]) -> None:
    """Let ``act`` take the place of the computation of one cell."""
    compute = bench.worker.compute
    monkeypatch.setattr(
        bench.worker, "compute", lambda job, *rest: act() if job.cell.name == cell else compute(job, *rest)
    )


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "mobilenetv2_100.ra_in1k.safetensors is missing; a folder of weights holds"),
        (b"garbage", "is not a readable safetensors file"),
    ],
    ids=["missing", "damaged"],
)
def test_without_weights_the_backbones_fail_and_the_others_go_on(
    tmp_path: Path, run_tiny: Callable[..., Summary], content: bytes | None, reason: str
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    if content:
        (weights / "mobilenetv2_100.ra_in1k.safetensors").write_bytes(content)
    told: list[str] = []
    out = tmp_path / "run"
    summary = run_tiny(out, ["model?/*"], weights=str(weights), finished=told.append)
    lost = [*EXTRACTED, "model2/mobilenet_v2+sgdm"]
    assert (summary.done, summary.found) == (2, 0)
    assert [line.partition(":")[0] for line in summary.failed] == [f"paper/0/{cell}" for cell in lost]
    assert all(reason in line for line in summary.failed)
    assert len(told) == 6
    for cell in lost:
        assert reason in failure_of(out, cell)
        assert sorted(path.name for path in cell_folder(out, cell).iterdir()) == ["SHA256SUMS", "cell.json", "rows.csv"]
    for cell in SMALL:
        assert set(rows_of(cell_folder(out, cell))["status"]) == {"done"}


def test_a_folder_of_weights_that_does_not_exist_fails_with_the_choices(
    tmp_path: Path, run_tiny: Callable[..., Summary]
) -> None:
    with pytest.raises(UserError, match="imagenett' are unknown; choose imagenet, random, or an existing folder"):
        run_tiny(tmp_path / "run", ["model2/*"], weights=str(tmp_path / "imagenett"))


def test_a_loss_that_is_not_finite_fails_the_cell_alone(
    tmp_path: Path, tiny_toml: Path, run_tiny: Callable[..., Summary]
) -> None:
    table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
    table["model3"]["learning_rate"] = 1e30
    summary = run_tiny(tmp_path, ["model3/*", "ablation/*+fused"], matrix=read_matrix(table, "wild"))
    assert (summary.done, len(summary.failed)) == (1, 2)
    for cell in SMALL:
        reason = failure_of(tmp_path, cell)
        assert "the loss is not finite in epoch 1" in reason
        assert "a lower learning rate than 1e+30 may help" in reason


@pytest.mark.parametrize(
    ("error", "reason", "traced"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out of memory: CUDA out of memory.", True),
        (MemoryError(), "out of memory: MemoryError", True),
        (RuntimeError("boom\nand more"), "RuntimeError: boom", True),
        (ZeroDivisionError(), "ZeroDivisionError: ZeroDivisionError", True),
        (UserError("the features are empty"), "the features are empty", False),
    ],
)
def test_any_fault_of_a_cell_is_its_row_and_the_run_goes_on(
    tmp_path: Path,
    run_tiny: Callable[..., Summary],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
    traced: bool,
) -> None:
    failing(monkeypatch, SMALL[0], raising(error))
    assert run_tiny(tmp_path, ["model3/*"]) == Summary(done=1, found=0, failed=(f"paper/0/{SMALL[0]}: {reason}",))
    assert failure_of(tmp_path, SMALL[0]) == reason
    trace = cell_folder(tmp_path, SMALL[0]) / "error.txt"
    assert trace.exists() == traced
    if traced:
        assert trace.read_text(encoding="utf-8").startswith("Traceback")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_probability_that_is_not_finite_fails_the_cell(
    tmp_path: Path,
    tiny_prepared: Prepared,
    run_tiny: Callable[..., Summary],
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    split = split_rows(tiny_prepared.catalog, "paper", 0)
    probability = np.full(len(split.test), 0.5)
    probability[3] = value
    outcome = bench.cell.Outcome(
        split=split, probability=probability, tensors={}, history=[], setup_s=0.0, peak_memory_mib=math.nan
    )
    failing(monkeypatch, SMALL[0], lambda: outcome)
    assert len(run_tiny(tmp_path, ["model3/*"]).failed) == 1
    assert failure_of(tmp_path, SMALL[0]) == "the predicted probabilities are not all finite numbers"


def test_a_failed_cell_is_run_again_and_replaced(
    tmp_path: Path, run_tiny: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, SMALL[0], raising(RuntimeError("boom")))
        run_tiny(tmp_path / "run", ["model3/*"])
    assert run_tiny(tmp_path / "run", ["model3/*"]) == Summary(done=1, found=1, failed=())
    folder = cell_folder(tmp_path / "run", SMALL[0])
    assert set(rows_of(folder)["status"]) == {"done"}
    assert not (folder / "error.txt").exists()
    run_tiny(tmp_path / "other", SMALL[:1])
    here, there = (
        pd.read_parquet(one / "predictions.parquet") for one in (folder, cell_folder(tmp_path / "other", SMALL[0]))
    )
    pd.testing.assert_frame_equal(here, there)


def test_images_too_small_for_a_network_fail_its_cells(
    tmp_path: Path, tiny_toml: Path, run_tiny: Callable[..., Summary]
) -> None:
    table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
    table["model1"]["backbones"] = ["inception_v3"]
    summary = run_tiny(tmp_path, ["model1/*+nb", SMALL[0]], matrix=read_matrix(table, "small"))
    assert summary.done == 1
    assert failure_of(tmp_path, "model1/inception_v3+nb") == (
        "inception_v3 needs images of 75 px or more; the data set has 32"
    )


def test_progress_grows_to_the_whole(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    told: list[tuple[str, float, float]] = []
    run_tiny(tmp_path, ["model3/*"], progress=lambda *one: told.append(one))
    assert {total for _, _, total in told} == {told[0][2]}
    parts = [done for _, done, _ in told]
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (0, pytest.approx(told[0][2]))
    assert [name for name, _, _ in told if name.endswith("e2+b8")] == [f"paper/0/{SMALL[1]}"] * 4
