from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench.cell
from bench.cell import Job, Settings, definition
from bench.matrix import load_matrix
from bench.store import definition_hash
from fusion.errors import UserError
from fusion.prepared import Prepared

CELLS = {cell.name: cell for cell in load_matrix("paper").cells}
JOB = Job(cell=CELLS["model2/resnet50+adam"], protocol="paper", seed=0)
SETTINGS = Settings(weights="random", device="cpu")


def test_the_same_job_has_the_same_hash(tiny_prepared: Prepared) -> None:
    assert definition_hash(definition(JOB, tiny_prepared, SETTINGS)) == definition_hash(
        definition(replace(JOB), tiny_prepared, Settings(weights="random", device="cpu"))
    )


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, seed=1),
        replace(JOB, protocol="clean"),
        replace(JOB, cell=CELLS["model2/resnet50+sgdm"]),
        replace(JOB, cell=replace(JOB.cell, augmented=False)),
    ],
)
def test_another_job_has_another_hash(tiny_prepared: Prepared, job: Job) -> None:
    here, there = (definition_hash(definition(one, tiny_prepared, SETTINGS)) for one in (JOB, job))
    assert here != there


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEST_FOLDS", 4),
        ("COPIES", {("ultrasound", 0): 2}),
        ("OPTIMIZERS", {}),
        ("HEADS", {}),
        ("BACKBONES", {}),
    ],
)
def test_what_the_code_decides_is_part_of_the_hash(
    tiny_prepared: Prepared, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    job = replace(JOB, cell=CELLS["model3/cnn17+e25+b32"])
    before = definition_hash(definition(job, tiny_prepared, SETTINGS))
    monkeypatch.setattr(bench.cell, name, value)
    assert definition_hash(definition(job, tiny_prepared, SETTINGS)) != before


@pytest.mark.parametrize("weights", ["", "imagnet", "no/such/folder"])
def test_weights_that_are_nothing_are_refused_at_once(weights: str) -> None:
    with pytest.raises(UserError, match="choose imagenet, random, or an existing folder"):
        Settings(weights=weights)


def test_a_folder_of_weights_is_never_called_random(tmp_path: Path) -> None:
    (tmp_path / "random").mkdir()
    assert Settings(weights=str(tmp_path / "random")).weights_name() == "folder random"
    assert Settings(weights=".").weights_name() == f"folder {Path.cwd().name}"
