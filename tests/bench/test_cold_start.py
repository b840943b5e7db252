"""A fresh process for each engine: what it tells, and what is said of one that does not survive."""

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.cold_start
from bench.cold_start import Target, measure_cold_start
from bench.sessions import NotHereError, RefusedError
from fusion.errors import UserError


@pytest.fixture(scope="module")
def target(finished_run: Path) -> Target:
    cell = finished_run / "cells" / "clean" / "0" / "model3" / "cnn17+e1+b8"
    return Target(run=finished_run, cell=cell, image_size=32, file=None)


class Deadly:
    """Ends the process that unpickles it, as a crash of a runtime would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.kill, (_Self(), signal.SIGKILL)


class _Self:
    """The number of the process it is unpickled in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getpid, ()


@dataclass(frozen=True, kw_only=True)
class DeadlyTarget(Target):
    last_words: Deadly = field(default_factory=Deadly)


def test_time_and_memory_of_a_fresh_process(target: Target) -> None:
    found = {one.metric: one.value for one in measure_cold_start("pytorch-cpu", "fp32", target, 32)}
    assert found.keys() == {"cold_start_s", "peak_memory_mib"}
    assert 0.001 < found["cold_start_s"] < 60
    assert 1 < found["peak_memory_mib"] < 2000


def test_a_process_that_crashes_is_a_reason(target: Target) -> None:
    with pytest.raises(RefusedError, match="its process was ended by SIGKILL"):
        measure_cold_start("pytorch-cpu", "fp32", DeadlyTarget(**vars(target)), 1)


def test_a_process_that_hangs_is_cut_off(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.cold_start, "LIMIT_S", 0.01)
    with pytest.raises(RefusedError, match=r"no answer within 0\.01 s"):
        measure_cold_start("pytorch-cpu", "fp32", target, 1)


def test_what_goes_wrong_in_the_process_is_told_here(target: Target, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not an ONNX file"):
        measure_cold_start("onnxruntime-cpu", "fp32", replace(target, file=tmp_path / "model.onnx"), 1)
    with pytest.raises(UserError, match=r"cell\.json has no checksum"):
        measure_cold_start("pytorch-cpu", "fp32", replace(target, cell=tmp_path), 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_engine_this_machine_has_not_is_not_here(target: Target) -> None:
    with pytest.raises(NotHereError, match="torch sees no NVIDIA GPU here"):
        measure_cold_start("pytorch-cuda", "fp32", target, 1)
