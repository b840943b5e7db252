"""A run that is started again: what is found, what is continued, what is refused."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from run_folders import CELLS, PROTOCOLS, SMALL, cell_folder, predictions_of, rows_of
from safetensors.torch import save_file as save_torch

import bench.worker
import fusion.loaders
from bench.cell import Job, Outcome
from bench.matrix import read_matrix
from bench.runner import Summary
from fusion.decode import HAVE_DALI
from fusion.errors import UserError
from fusion.models.backbones import build_backbone
from fusion.prepared import Prepared


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a finished cell is computed again")

    monkeypatch.setattr(bench.worker, "compute", refuse)


# -- what is found and continued -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
def test_a_finished_run_is_found_and_nothing_is_touched(whole_run: Path, run_tiny: Callable[..., Summary]) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole_run.rglob("*") if path.is_file()}
    told: list[str] = []
    summary = run_tiny(whole_run, protocols=PROTOCOLS, finished=told.append)
    assert summary == Summary(done=0, found=2 * len(CELLS), failed=())
    assert told == []
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole_run.rglob("*") if path.is_file()}
    for written_anew in ("run.json", "straddling.csv", "SHA256SUMS"):
        assert before.pop(whole_run / written_anew)[1] == after.pop(whole_run / written_anew)[1]
    assert before == after


def test_an_interrupted_run_goes_on_with_the_cells_that_lack(
    tmp_path: Path, whole_run: Path, run_tiny: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, compute = tmp_path / "run", bench.worker.compute

    def interrupted(job: Job, *rest: Any) -> Outcome:
        if job.cell.name == SMALL[1]:
            raise KeyboardInterrupt
        return compute(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(bench.worker, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(out, ["model3/*"])
    assert cell_folder(out, SMALL[0]).is_dir()
    assert not cell_folder(out, SMALL[1]).exists()
    kept = (cell_folder(out, SMALL[0]) / "rows.csv").read_bytes()
    assert run_tiny(out, ["model3/*"]) == Summary(done=1, found=1, failed=())
    assert (cell_folder(out, SMALL[0]) / "rows.csv").read_bytes() == kept
    for cell in SMALL:
        pd.testing.assert_frame_equal(
            predictions_of(cell_folder(out, cell)), predictions_of(cell_folder(whole_run, cell)), check_exact=True
        )


def test_a_run_killed_before_its_first_line_can_be_started_again(
    tmp_path: Path, run_tiny: Callable[..., Summary]
) -> None:
    (tmp_path / ".run.json.4711.partial").write_text("{")
    assert run_tiny(tmp_path, SMALL[:1]).done == 1


def test_a_run_grows_by_seeds_protocols_and_cells(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    run_tiny(tmp_path, SMALL[:1])
    run_tiny(tmp_path, SMALL[1:], seeds=(3,))
    assert run_tiny(tmp_path, SMALL[:1], protocols=("clean", "paper")) == Summary(done=1, found=1, failed=())
    said = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (said["cells"], said["protocols"], said["seeds"]) == (SMALL, ["paper", "clean"], [0, 3])


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_changed_recipe_is_never_taken_for_the_finished_one(
    whole_run: Path, tiny_toml: Path, run_tiny: Callable[..., Summary]
) -> None:
    table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
    table["model2"]["epochs"] = 3
    changed = read_matrix(table, "changed")
    folder = cell_folder(whole_run, "model2/mobilenet_v2+sgdm")
    before = (folder / "rows.csv").read_bytes()
    with pytest.raises(UserError) as caught:
        run_tiny(whole_run, ["model2/*"], matrix=changed)
    assert f"{folder} was made with other settings (cell.recipe.epochs: 1, now 3)" in str(caught.value)
    assert (folder / "rows.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "change"),
    [("weights", {"weights": "imagenet"}), ("data", {}), ("matrix", {})],  # named in the message
)
def test_a_run_of_another_kind_is_refused(
    whole_run: Path,
    run_tiny: Callable[..., Summary],
    tiny_toml: Path,
    other_prepared: Prepared,
    name: str,
    change: dict[str, Any],
) -> None:
    if name == "data":
        change = {"prepared": other_prepared}
    if name == "matrix":
        table = tomllib.loads(tiny_toml.read_text(encoding="utf-8"))
        change = {"matrix": read_matrix({**table, "name": "mine"}, "mine")}
    before = (whole_run / "run.json").read_bytes()
    with pytest.raises(UserError, match=f"holds .* other {name} .*; choose another --out") as caught:
        run_tiny(whole_run, **change)
    assert str(whole_run) in str(caught.value)
    assert (whole_run / "run.json").read_bytes() == before


@pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")
def test_a_run_goes_on_with_the_loader_it_began_with(
    tmp_path: Path, run_tiny: Callable[..., Summary], tiny_prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tiny(tmp_path / "run", SMALL[:1])
    monkeypatch.setattr(fusion.loaders, "free_bytes", lambda _: tiny_prepared.images_u8.nbytes)
    with pytest.raises(
        UserError, match=r"other loader \(resident, now dali\); choose another --out, or --loader resid"
    ):
        run_tiny(tmp_path / "run", SMALL)
    assert run_tiny(tmp_path / "run", SMALL, loader="resident") == Summary(done=1, found=1, failed=())


def test_other_weights_under_the_same_folder_name_are_noticed(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    weights, cell = tmp_path / "weights", "model1/mobilenet_v2+nb"
    weights.mkdir()

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        state = build_backbone("mobilenet_v2", "random").state_dict()
        save_torch(state, weights / "mobilenetv2_100.ra_in1k.safetensors")

    write(seed=1)
    assert run_tiny(tmp_path / "run", [cell], weights=str(weights)).done == 1
    assert set(rows_of(cell_folder(tmp_path / "run", cell))["weights"]) == {"folder weights"}
    write(seed=2)
    with pytest.raises(UserError, match=r"made with other settings \(weights\.start: "):
        run_tiny(tmp_path / "run", [cell], weights=str(weights))


def test_weights_may_change_while_no_backbone_is_done(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    assert run_tiny(tmp_path / "run", ["model3/*"]).done == 2
    assert run_tiny(tmp_path / "run", ["model3/*"], weights="imagenet") == Summary(done=0, found=2, failed=())


def test_a_foreign_folder_is_left_alone(tmp_path: Path, run_tiny: Callable[..., Summary]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run's folder; choose another --out"):
        run_tiny(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
