import math
import time
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest
import torch

import bench.data_path
import fusion.loaders
from bench.cell import Settings
from bench.data_path import Plan, measure_data_path
from bench.kernel_floor import KERNEL_BATCHES, measure_kernel
from bench.loader_bound import StaticLoader, measure_steps
from bench.loader_stages import STAGES, measure_throughput
from bench.measurement import Measurement, augmented_rows, summarised, timed
from bench.report import data_path_tables, terminal_table
from fusion.decode import HAVE_DALI
from fusion.errors import UserError
from fusion.loaders import LOADERS, BatchSpec, ResidentLoader
from fusion.prepared import Prepared

CPU = torch.device("cpu")
SPEC = BatchSpec(seed=0, mean=(0.5,) * 3, std=(0.5,) * 3)
SETTINGS = Settings(weights="random", device="cpu")
STAGE_NAMES = {
    "resident": ["read once", "augment", "hand-over"],
    "dali": ["read", "decode", "resize and hand-over", "augment"],
    "torchvision": ["read", "decode", "resize", "augment", "hand-over"],
}
INSTALLED = [name for name in LOADERS if name != "dali" or HAVE_DALI]


def quiet(*_: object) -> None:
    pass


def test_every_stage_of_every_loader_is_measured(tiny_prepared: Prepared) -> None:
    rows, told = augmented_rows(tiny_prepared, 20), list[tuple[str, float, float]]()
    found = measure_throughput(
        tiny_prepared, SPEC, rows, INSTALLED, batch=8, rounds=2, advance=lambda *heard: told.append(heard)
    )
    assert [(one.loader, one.stage) for one in found] == [(n, stage) for n in INSTALLED for stage in STAGE_NAMES[n]]
    for one in found:
        assert (one.quantity, one.unit, one.batch, one.n) == ("throughput", "images/s", 8, 2)
        assert 0 < one.low <= one.value <= one.high < math.inf
    done = [heard[1] for heard in told]
    assert done == sorted(done)
    assert told[-1] == ("loaders", 3 * len(found), 3 * len(found))


@pytest.mark.parametrize("name", [n for n in INSTALLED if n != "torchvision"])  # its workers take seconds to start
def test_every_stage_goes_over_every_row(tiny_prepared: Prepared, name: str) -> None:
    rows = augmented_rows(tiny_prepared, 21)
    for stage, run in STAGES[name](tiny_prepared, SPEC, rows, 8):
        assert run() == (len(tiny_prepared.images_u8) if stage == "read once" else 21), stage
        assert run() > 0  # a second round works


@pytest.mark.parametrize("count", [1, 60, 150])
def test_the_rows_are_augmented_ones_and_none_is_there_twice(tiny_prepared: Prepared, count: int) -> None:
    rows = augmented_rows(tiny_prepared, count)
    assert (rows.copy > 0).all()
    assert len(set(zip(rows.image.tolist(), rows.copy.tolist(), strict=True))) == count
    assert len(set(rows.image.tolist())) == min(count, 60)


def test_the_floor_is_the_bytes_of_a_batch_at_the_bandwidth_of_copies(tiny_prepared: Prepared) -> None:
    found = measure_kernel(tiny_prepared, SPEC, rounds=1, advance=quiet)
    by = {(one.quantity, one.batch): one for one in found}
    bandwidth = by["copy_bandwidth", 0]
    assert bandwidth.unit == "GB/s"
    for batch in KERNEL_BATCHES:
        moved = batch * 32 * 32 * (1 + 3 * 4)  # one uint8 read, three float32 written
        assert by["kernel_floor", batch].value == pytest.approx(1e6 * moved / (bandwidth.value * 1e9))
        assert by["kernel_time", batch].unit == by["kernel_floor", batch].unit == "us"


def test_a_static_batch_is_always_the_same(tiny_prepared: Prepared) -> None:
    loader, rows = StaticLoader(tiny_prepared, SPEC, 6), augmented_rows(tiny_prepared, 15)
    real = ResidentLoader(tiny_prepared, SPEC)
    batches = list(loader.batches(rows, 6, epoch=0))
    assert [len(batch) for batch in batches] == [6, 6, 3]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], next(real.batches(augmented_rows(tiny_prepared, 6), 6, epoch=0)))


def test_steps_are_timed_with_the_loader_and_without(tiny_prepared: Prepared) -> None:
    found = measure_steps(
        tiny_prepared, ["cnn17"], ["eager"], device=CPU, precision="fp32", batch=8, rounds=1, advance=quiet
    )
    by = {one.quantity: one for one in found}
    assert list(by) == ["step_time", "static_step_time", "static_share"]
    assert by["static_share"].value == pytest.approx(100 * by["static_step_time"].value / by["step_time"].value)
    assert {(one.network, one.step, one.loader, one.batch) for one in found} == {("cnn17", "eager", "resident", 8)}


def test_a_figure_is_the_median_with_the_range_of_its_rounds() -> None:
    one = summarised([3.0, 1.0, 2.0, 10.0], quantity="step_time", batch=4, unit="ms", network="cnn17")
    assert (one.value, one.low, one.high, one.n, one.network) == (2.5, 1.0, 10.0, 4, "cnn17")


def test_time_is_taken_around_the_work() -> None:
    assert 0.02 <= timed(lambda: time.sleep(0.02), CPU) < 20


# -- the plan --------------------------------------------------------------------------------------------------------


def test_all_is_measured_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(settings=SETTINGS)
    assert plan.chosen_loaders() == tuple(INSTALLED)
    assert plan.chosen_steps() == ("eager",)
    monkeypatch.setattr(bench.data_path, "HAVE_DALI", False)
    assert plan.chosen_loaders() == ("resident", "torchvision")
    assert plan.left_out() == ("the loader dali is not measured: DALI is not installed",)
    assert Plan(settings=SETTINGS, loaders=("resident",)).left_out() == ()


def test_what_is_named_twice_is_measured_once() -> None:
    plan = Plan(settings=SETTINGS, loaders=("resident", "resident"), steps=("auto", "eager"))
    assert plan.chosen_loaders() == ("resident",)
    assert plan.chosen_steps() == ("eager",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loaders": ["fast"]}, "loader 'fast' is unknown; choose from resident, dali, torchvision"),
        ({"networks": ["vgg"]}, "network 'vgg' is unknown; choose from efficientnet_b0, .*, cnn17"),
        ({"steps": ["slow"]}, "step 'slow' is unknown; choose from auto, eager, graph, compiled"),
        ({"steps": ["eager", "graph"]}, "step 'graph' is not possible: the device is cpu; choose 'auto' or 'eager'"),
        ({"batch": 1}, "--batch 1 is outside 2..4096"),
        ({"rows": 0}, "--rows 0 is outside 1..1000000"),
        ({"rounds": 0}, "--rounds 0 is outside 1..1000"),
    ],
)
def test_a_faulty_plan_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(settings=SETTINGS, **change)


def test_images_too_small_for_a_network_are_refused_before_anything_is_measured(tiny_prepared: Prepared) -> None:
    told: list[str] = []
    with pytest.raises(UserError, match="inception_v3 needs images of 75 px or more"):
        measure_data_path(tiny_prepared, Plan(settings=SETTINGS), lambda name, *_: told.append(name))
    assert told == []


def test_a_set_larger_than_the_memory_is_refused(tiny_prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion.loaders, "free_bytes", lambda _: tiny_prepared.images_u8.nbytes)
    with pytest.raises(UserError, match=r"more than 50% of the cpu's .*; data-path measures sets that fit"):
        measure_data_path(tiny_prepared, Plan(settings=SETTINGS, networks=()), quiet)


# -- the tables ------------------------------------------------------------------------------------------------------


def frame_of(*rows: dict[str, Any]) -> pd.DataFrame:
    common = {"batch": 30, "low": 1.0, "high": 2.0, "n": 3, "unit": ""}
    return pd.DataFrame([asdict(Measurement(**{**common, **row})) for row in rows])  # type: ignore[arg-type]


def test_throughput_tells_loaders_beside_the_slowest() -> None:
    rows = frame_of(
        {"quantity": "throughput", "loader": "resident", "stage": "read once", "value": 5000.0},
        {"quantity": "throughput", "loader": "resident", "stage": "hand-over", "value": 600.0},
        {"quantity": "throughput", "loader": "dali", "stage": "augment", "value": 200.0},
    )
    tables = data_path_tables(rows, ("made by hand",))
    assert list(tables) == ["throughput"]
    table = tables["throughput"]
    assert table.display.to_numpy().tolist() == [
        ["resident", "read once", "5000 (1–2)", ""],
        ["resident", "hand-over", "600 (1–2)", "3.0 ×"],
        ["dali", "augment", "200 (1–2)", "1.0 ×"],
    ]
    assert "made by hand" in table.notes
    assert terminal_table(table)


@pytest.mark.parametrize(
    ("low", "share", "high", "bound"),
    [
        (90.0, 93.0, 96.9, "yes"),
        (97.0, 98.0, 99.0, "no"),
        (96.9, 98.0, 99.0, "unclear"),
        (90.0, 96.0, 97.0, "unclear"),
    ],
)
def test_steps_say_whether_training_is_loader_bound(low: float, share: float, high: float, bound: str) -> None:
    where = {"network": "cnn17", "step": "eager", "loader": "resident", "low": low, "high": high}
    rows = frame_of(
        {"quantity": "step_time", "value": 12.34, **where, "n": 1},
        {"quantity": "static_step_time", "value": 9.876, **where, "n": 1},
        {"quantity": "static_share", "value": share, **where},
    )
    (table,) = data_path_tables(rows, ()).values()
    shown = f"{share:.1f} ({low:.1f}–{high:.1f})"
    assert table.display.to_numpy().tolist() == [["cnn17", "eager", "12.3", "9.88", shown, bound, "–"]]


def test_the_kernel_stands_beside_its_floor() -> None:
    rows = frame_of(
        {"quantity": "copy_bandwidth", "batch": 0, "value": 4000.0},
        {"quantity": "kernel_time", "batch": 512, "value": 100.0},
        {"quantity": "kernel_floor", "batch": 512, "value": 85.0},
    )
    (table,) = data_path_tables(rows, ()).values()
    assert table.display.to_numpy().tolist() == [["512", "100 (1–2)", "85.0 (1.0–2.0)", "85.0 %"]]
    assert "4000 (1–2) GB/s" in table.notes[0]
