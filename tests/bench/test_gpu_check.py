"""The check is followed on the CPU: its parts are called in this process, and the longest are shortened."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main
from run_folders import BASELINES

import bench.gpu_check
from bench.cli import app, main
from bench.engine_rows import Found, machine_folder, write_found
from bench.gpu_check import PYTEST_OPTIONS, TESTS, check, full_length_matrix, gpu_tests, summary
from bench.matrix import load_matrix, read_matrix
from bench.measure import COMMON
from bench.paper import paper_costs
from bench.report import read_rows
from fusion.errors import UserError
from fusion.files import content_hash

CELL = "model3/cnn17+e25+b64"
MACHINE: dict[str, Any] = {"gpu": {"name": "card"}, "cpu": "", "cpu_cores": 2}
Calls = list[list[str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tiny_data: Path) -> Calls:
    """Note the commands; the matrix is run, the other parts only leave what is asked of them."""
    noted: Calls = []

    def act(module: str, arguments: list[str]) -> int:
        noted.append([module, *arguments])
        if module == "bench":
            name, *rest = arguments
            group = typer.main.get_command(app)
            group.commands[name].make_context(name, list(rest))  # type: ignore[attr-defined]
            if name == "prepare":
                Path(rest[0]).symlink_to(tiny_data)
            if name == "measure":
                note_measurement(Path(rest[0]))
            if name == "data-path":
                Path(rest[rest.index("--csv") + 1]).touch()
            if name == "run":
                with pytest.raises(SystemExit) as caught:
                    main(arguments)
                return int(caught.value.code or 0)
        return 0

    monkeypatch.setattr(bench.gpu_check, "run_module", act)
    return noted


def note_measurement(run: Path) -> None:
    """Leave what ``fusebench measure`` leaves, without its minutes of exporting."""
    row = read_rows(run).query("cell == @CELL").to_dict("records")[0]
    common = {key: row[key] for key in COMMON} | {"environment_hash": content_hash(MACHINE)}
    found = [Found(engine="pytorch-cuda", precision="fp32", metric="cold_start_s", value=1.5, n=1)]
    write_found(machine_folder(run, MACHINE) / row["protocol"] / str(row["seed"]) / f"{row['cell']}.csv", common, found)


def test_everything_is_run_and_kept(calls: Calls, tmp_path: Path) -> None:
    went = check(tmp_path / "work", tmp_path / "kept", scale=0.5, image_size=32, only=[CELL])
    assert went.failures == ()
    assert went.kept.parent == tmp_path / "kept"
    assert [command[:2] if command[0] == "bench" else command[:1] for command in calls] == [
        ["pytest"],
        *(["bench", name] for name in ("phantom", "prepare", "run", "measure", "data-path")),
    ]
    assert calls[1][-2:] == ["--scale", "0.5"]
    assert "--no-measure" in calls[3]
    assert calls[4][2:] == [str(tmp_path / "work" / "run-32"), "--only", CELL]
    assert str(went.kept / "data_path.csv") in calls[5]
    rows = pd.read_csv(went.kept / "rows.csv")
    assert set(rows["cell"]) == {CELL, *BASELINES}
    assert rows[rows["cell"] == CELL].set_index("metric")["value"]["epochs"] == 25  # early stopping is off
    assert json.loads((went.kept / "run.json").read_text(encoding="utf-8"))["environments"]
    measured = pd.read_csv(went.kept / "measurements.csv")
    assert measured[["cell", "engine", "value", "machine"]].values.tolist() == [[CELL, "pytorch-cuda", 1.5, "card"]]
    assert json.loads((went.kept / "environments.json").read_text(encoding="utf-8")) == {
        measured["environment_hash"][0]: MACHINE
    }
    assert (went.kept / "tables" / "leaderboard.md").is_file()
    for table in ("engines", "table5"):
        assert "measured on: card" in (went.kept / "tables" / f"{table}.md").read_text(encoding="utf-8")
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert "5 cells done, 0 failed" in told
    assert f"| {CELL} | paper |" in told


def test_a_second_call_goes_on(calls: Calls, tmp_path: Path) -> None:
    for _ in range(2):
        check(tmp_path / "work", tmp_path / "kept", image_size=32, only=[CELL])
    assert [command[1] for command in calls if command[0] == "bench"] == [
        *("phantom", "prepare", "run", "measure", "data-path"),
        *("run", "measure"),
    ]


@pytest.fixture
def quick_calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Note the commands; of the matrix, no cell is run."""
    noted: Calls = []

    def act(module: str, arguments: list[str]) -> int:
        noted.append([module, *arguments])
        if arguments[0] == "run":
            out = Path(arguments[arguments.index("--out") + 1])
            out.mkdir()
            (out / "run.json").touch()
        return 0

    monkeypatch.setattr(bench.gpu_check, "run_module", act)
    monkeypatch.setattr(bench.gpu_check, "keep_run", lambda *_: None)
    return noted


@pytest.mark.parametrize(
    ("only", "measured"),
    [
        ([], list(paper_costs()["cell"])),
        (["ablation/*", "model2/resnet50+*", CELL], ["model2/resnet50+rmsprop", CELL]),
        (["ablation/*"], None),
    ],
)
def test_the_cells_of_table_5_among_those_chosen_are_measured(
    quick_calls: Calls, tmp_path: Path, only: list[str], measured: list[str] | None
) -> None:
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32, only=only)
    asked = [command[3:] for command in quick_calls if command[1] == "measure"]
    assert asked == ([[text for cell in measured for text in ("--only", cell)]] if measured else [])
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert ("engines were not measured: none of the cells chosen" in told) == (measured is None)


def test_a_part_that_fails_is_told_and_the_others_go_on(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = bench.gpu_check.run_module

    def act(module: str, arguments: list[str]) -> int:
        return inner(module, arguments) or int(module == "pytest" or arguments[0] in ("measure", "data-path"))

    monkeypatch.setattr(bench.gpu_check, "run_module", act)
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32, only=[CELL])
    parts = ("gpu tests", "measure", "data_path")
    assert went.failures == tuple(f"{part} ended with exit code 1" for part in parts)
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert all(f"- {failure}" in told for failure in went.failures)
    assert len(calls) == 6


@pytest.mark.usefixtures("calls")
def test_a_matrix_that_fails_at_once_still_leaves_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = bench.gpu_check.run_module
    act = lambda module, arguments: 2 if "run" in arguments else inner(module, arguments)  # noqa: E731
    monkeypatch.setattr(bench.gpu_check, "run_module", act)
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32)
    assert went.failures == ("matrix ended with exit code 2",)
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert "0 cells done, 0 failed" in told
    assert "- matrix ended with exit code 2" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ["model9/*"]}, r"--only 'model9/\*' matches none"),
        ({"protocol": "dirty"}, "--protocol 'dirty' is unknown; choose from paper, clean, both"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_run(
    calls: Calls, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path / "work", tmp_path / "kept", **change)
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_tests_of_the_repository_the_summary_says_so(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.gpu_check, "TESTS", tmp_path / "nowhere")
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32, only=[CELL])
    assert "not run, for lack of the repository" in (went.kept / "summary.md").read_text(encoding="utf-8")
    assert "pytest" not in {command[0] for command in calls}


def test_a_folder_of_tests_beside_an_installed_wheel_is_another_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_theirs.py").write_text("pytestmark = pytest.mark.gpu", encoding="utf-8")
    monkeypatch.setattr(bench.gpu_check, "TESTS", tmp_path / "tests")
    assert gpu_tests() == []
    (tmp_path / "pyproject.toml").touch()
    assert [path.name for path in gpu_tests()] == ["test_theirs.py"]


def test_failed_cells_and_cells_of_one_protocol_alone_are_told_as_they_are() -> None:
    row = {"seed": 0, "status": "done", "subset": "all", "reason": "", "value": 2.0}
    rows = pd.DataFrame(
        [
            {**row, "cell": "model3/a", "protocol": "paper", "metric": "wall_s"},
            {**row, "cell": "model3/b", "protocol": "clean", "metric": "wall_s"},
            {**row, "cell": "model3/b", "protocol": "clean", "metric": "wall_s", "subset": "source=busi", "value": 9.0},
            {**row, "cell": "model3/b", "protocol": "clean", "metric": "peak_memory_mib", "value": 1234.0},
            {**row, "cell": "model3/c", "protocol": "clean", "metric": "", "status": "failed", "reason": "no luck"},
        ]
    )
    text = summary("card", rows, {}, [], [])
    assert "2 cells done, 1 failed; `wall_s` of all cells together: 4 s" in text
    assert "most memory of a cell: 1234 MiB" in text
    assert "failed: model3/c: no luck" in text


def test_the_gpu_tests_can_be_collected_together() -> None:
    files = gpu_tests()
    assert {path.name for path in files} >= {"test_augment.py", "test_step.py", "test_loaders.py"}
    command = [sys.executable, "-m", "pytest", *files, *PYTEST_OPTIONS, "--collect-only"]
    collected = subprocess.run(list(map(str, command)), cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert collected.returncode == 0, collected.stdout + collected.stderr


def test_without_optional_packages_the_summary_says_so(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = bench.gpu_check._is_there
    monkeypatch.setattr(bench.gpu_check, "_is_there", lambda name: name not in bench.gpu_check.OPTIONAL and there(name))
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32, only=[CELL])
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert "- not run, for lack of DALI: the loader dali is not measured" in told
    assert "- not run, for lack of pytest: the tests that need a GPU" in told
    assert "- not run, for lack of onnxruntime: the engines, PyTorch's too" in told
    assert "pytest" not in {command[0] for command in calls}
    assert [command[1] for command in calls] == ["phantom", "prepare", "run", "data-path"]
    assert not (went.kept / "measurements.csv").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_one_of_its_packages_nothing_is_measured(
    quick_calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    there = bench.gpu_check._is_there
    monkeypatch.setattr(bench.gpu_check, "_is_there", lambda name: name != package and there(name))
    went = check(tmp_path / "work", tmp_path / "kept", image_size=32, only=[CELL])
    told = (went.kept / "summary.md").read_text(encoding="utf-8")
    assert f"- not run, for lack of {package}: the engines" in told
    assert "measure" not in {command[1] for command in quick_calls}


def test_a_package_that_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.gpu_check, "NEEDED", ("timm", "no_such_package"))
    with pytest.raises(UserError, match="no_such_package can't be imported; install the packages of pyproject"):
        check(tmp_path / "work", tmp_path / "kept")


def test_the_full_matrix_is_the_papers_without_early_stopping() -> None:
    full, paper = read_matrix(tomllib.loads(full_length_matrix()), "full"), load_matrix("paper")
    assert full.name == "full"
    assert [cell.name for cell in full.cells] == [cell.name for cell in paper.cells]
    for one, other in zip(full.cells, paper.cells, strict=True):
        if one.recipe and other.recipe:
            assert one.recipe.patience == 0
            assert (one.recipe.epochs, one.recipe.batch_size) == (other.recipe.epochs, other.recipe.batch_size)
