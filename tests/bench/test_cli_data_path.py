"""``fusebench data-path`` and ``fusebench gpu-check`` as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import bench.data_path

Call = Callable[..., tuple[int, str, str]]
Refusal = Callable[..., str]


def test_data_path_prints_its_tables_and_writes_its_figures(call: Call, tiny_data: Path, tmp_path: Path) -> None:
    csv = tmp_path / "figures.csv"
    chosen = ["--loader", "resident", "--network", "cnn17", "--rounds", 1, "--rows", 8, "--batch", 4]
    code, out, _ = call("data-path", "--data", tiny_data, "--csv", csv, *chosen, "--device", "cpu")
    assert code == 0
    for part in ("Images per second", "hand-over", "copies on the device reach", "Is training loader-bound?"):
        assert part in out
    figures = pd.read_csv(csv)
    assert {"throughput", "copy_bandwidth", "kernel_time", "kernel_floor", "step_time", "static_share"} <= set(
        figures["quantity"]
    )
    assert (figures["value"] > 0).all()
    assert set(figures["precision"]) == {"fp32"}
    described = json.loads(csv.with_suffix(".json").read_text(encoding="utf-8"))
    (machine,) = set(figures["machine"])
    assert described["environment"]["cpu"] in machine
    assert machine in out
    assert described["data_hash"]
    assert "| resident | hand-over |" in csv.with_suffix(".md").read_text(encoding="utf-8")
    assert described["measured"]["rows"] == 8
    assert sum(line["images"] for line in described["counts"]) == 60


def test_data_path_may_leave_training_out(call: Call, tiny_data: Path) -> None:
    chosen = ["--loader", "resident", "--network", "none", "--rounds", 1, "--rows", 8]
    code, out, _ = call("data-path", "--data", tiny_data, *chosen, "--device", "cpu")
    assert code == 0
    assert "Images per second" in out
    assert "loader-bound" not in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--data {there}/nowhere", "{there}/nowhere/manifest.json is missing"),
        ("--data {data} --loader fast", "loader 'fast' is unknown; choose from resident, dali, torchvision"),
        ("--data {data} --network vgg", "network 'vgg' is unknown; choose from efficientnet_b0"),
        ("--data {data} --network inception_v3", "inception_v3 needs images of 75 px or more; the data set has 32"),
        ("--data {data} --device cpu --step graph", "step 'graph' is not possible: the device is cpu"),
        ("--data {data} --rounds 0", "--rounds 0 is outside 1..1000"),
        ("--data {data} --csv {there}/a.json", "--csv {there}/a.json: the name must end in .csv"),
        (
            "--data {data} --csv {there}/nowhere/a.csv",
            "--csv {there}/nowhere/a.csv: there is no folder {there}/nowhere",
        ),
    ],
)
def test_data_path_refuses_bad_input_on_one_line(
    refusal: Refusal, tiny_data: Path, tmp_path: Path, arguments: str, part: str
) -> None:
    assert part.format(there=tmp_path) in refusal(
        "data-path", *arguments.format(there=tmp_path, data=tiny_data).split()
    )


@pytest.mark.parametrize("taken", ["a.csv", "a.md", "a.json"])
def test_data_path_sees_at_once_that_its_files_cannot_be_written(
    refusal: Refusal, tiny_data: Path, tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).mkdir()
    line = refusal("data-path", "--data", tiny_data, "--csv", tmp_path / "a.csv")
    assert f"{tmp_path / taken} can't be written" in line
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_data_path_says_that_an_interrupted_call_wrote_nothing(
    call: Call, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.data_path, "measure_data_path", interrupt)
    code, _, err = call("data-path", "--data", tiny_data, "--csv", tmp_path / "a.csv")
    assert code == 130
    assert "interrupted; nothing was written" in err
    assert list(tmp_path.iterdir()) == []


def test_gpu_check_without_a_gpu_measures_nothing(
    refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refusal("gpu-check", "--work", tmp_path / "work", "--reference", tmp_path / "kept")
    assert "torch sees no NVIDIA GPU here; nothing was measured" in line
    assert list(tmp_path.iterdir()) == []
