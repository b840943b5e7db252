"""A small data set of two textures, prepared at 32 px, and the smallest matrix that has a cell of every kind."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_faults import Judge
from measured_rows import FOUR_CELLS
from PIL import Image
from report_rows import PAPER_CELLS, failed, scores, write_cell, write_run
from run_folders import CELLS, PROTOCOLS
from scipy.ndimage import gaussian_filter

import bench.doctor
from bench.cell import Settings
from bench.cli import main
from bench.doctor import CHECKS, Finding, Machine, examine
from bench.executors import Where
from bench.matrix import Matrix, load_matrix
from bench.runner import Summary, run
from fusion.prepare import prepare
from fusion.prepared import Prepared, load_prepared
from fusion.sources.folder import read_folder

PROGRESS = re.compile(r"[\w -]+: \d+ in [\d.]+ s")
"""A finished stage, as it is told where there is no terminal."""
TINY = """
name = "tiny"
weights = "random"
protocols = ["paper"]
seeds = [0]

[model1]
backbones = ["mobilenet_v2"]
classifiers = ["lr", "nb", "svm"]

[model2]
backbones = ["mobilenet_v2"]
optimizers = ["sgdm"]
learning_rate = 0.001
epochs = 1
batch_size = 30
patience = 5

[model3]
optimizer = "sgdm"
learning_rate = 0.001
epochs = [1, 2]
batch_sizes = [8]
patience = 5

[ablation]
modalities = ["ultrasound", "mammography", "fused"]
optimizer = "sgdm"
learning_rate = 0.001
epochs = 1
batch_size = 8
patience = 5

[transfer]
directions = ["mammography-to-ultrasound", "ultrasound-to-mammography"]
optimizer = "sgdm"
learning_rate = 0.001
epochs = 1
batch_size = 8
patience = 5
"""


def write_textures(root: Path, seed: int, per_class: int = 15) -> Path:
    """Write ``root/{ultrasound,mammography}/{benign,malignant}/``: blobs are benign, grains malignant."""
    draw = np.random.default_rng(seed)
    for modality in ("ultrasound", "mammography"):
        for name, blur in (("benign", 4.0), ("malignant", 1.0)):
            folder = root / modality / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                field = gaussian_filter(draw.standard_normal((40, 40)), blur)
                grey = 128 + 40 * field / field.std()
                Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root


def prepare_textures(folder: Path, seed: int) -> Path:
    records, notes = read_folder("tiny", write_textures(folder / "raw", seed))
    prepare(records, folder / "data", image_size=32, decoder="torchvision", notes=notes, progress=lambda *_: None)
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared data set: 60 images, 15 of every modality and class."""
    return prepare_textures(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def tiny_prepared(tiny_data: Path) -> Prepared:
    return load_prepared(tiny_data)


@pytest.fixture(scope="session")
def other_prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A data set of the same counts and other pixels."""
    return load_prepared(prepare_textures(tmp_path_factory.mktemp("other"), seed=1))


@pytest.fixture(scope="session")
def tiny_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of three cells of Model 1, one of Model 2, two of Model 3, the ablation and the transfer."""
    path = tmp_path_factory.mktemp("matrix") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def matrix(tiny_toml: Path) -> Matrix:
    return load_matrix(str(tiny_toml))


@pytest.fixture(scope="session")
def run_tiny(matrix: Matrix, tiny_prepared: Prepared) -> Callable[..., Summary]:
    """Run cells of the tiny matrix on the CPU into a folder; beside those of ``only`` no baselines."""

    def start(out: Path, only: list[str] | None = None, **changes: Any) -> Summary:
        chosen = changes.get("matrix", matrix)
        named = " ".join(only or ["baseline/"])
        return run(
            chosen,
            [cell for cell in chosen.select(only or []) if cell.network or "baseline/" in named],
            changes.get("prepared", tiny_prepared),
            out,
            Settings(weights=changes.get("weights", "random"), device="cpu", loader=changes.get("loader", "auto")),
            protocols=changes.get("protocols", ("paper",)),
            seeds=changes.get("seeds", (0,)),
            where=changes.get("where", Where()),
            progress=changes.get("progress", lambda *_: None),
            finished=changes.get("finished", lambda _: None),
        )

    return start


FINISHED = (
    *(f"model1/mobilenet_v2+{head}" for head in ("lr", "nb", "svm")),
    *("model2/mobilenet_v2+sgdm", "model3/cnn17+e1+b8"),
)
"""The cells of ``finished_run``: one of every kind."""


@pytest.fixture(scope="session")
def finished_run(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run under ``clean``, whose test rows are the images themselves; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run_tiny(out, list(FINISHED), protocols=("clean",)).done == len(FINISHED)
    return out


@pytest.fixture(scope="session")
def whole_run(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of every cell under both protocols; tests only read it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_tiny(out, protocols=PROTOCOLS) == Summary(done=2 * len(CELLS), found=0, failed=())
    return out


@pytest.fixture
def scored_run(tmp_path: Path) -> Path:
    """A run of all cells of the paper with made-up scores, one of which failed and one of which was not run."""
    folder = write_run(tmp_path / "run")
    for place, cell in enumerate(PAPER_CELLS[:-1]):
        write_cell(folder, cell, scores(0.9 - place / 100))
    write_cell(folder, "model2/resnet50+sgdm", failed("out of memory"))
    write_cell(folder, "model1/resnet50+nb", scores(0.6, ppv=math.nan))
    return folder


@pytest.fixture
def bare_run(tmp_path: Path) -> Path:
    """A run of four cells, of which nothing was measured."""
    return write_run(tmp_path, cells=FOUR_CELLS, data={"counts": []})


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judge:
    """Make one check of ``doctor``, with the facts its probe tells, or else with the probe's own."""

    def start(name: str, facts: dict[str, Any] | None = None, *, out: Path = tmp_path, weights: str = "x") -> Finding:
        monkeypatch.setattr(bench.doctor, "CHECKS", {name: CHECKS[name]})
        if facts is not None:
            monkeypatch.setattr(Machine, "ask", lambda *_: facts)
        (found,) = examine(out, weights)
        assert bool(found.remedy) == (found.status == "fault")
        return found

    return start


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line; return exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def start(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert "Traceback" not in written.out + written.err
        code = 0 if caught.value.code is None else int(caught.value.code)
        return code, re.sub(r"\x1b\[[\d;]*m", "", written.out), re.sub(r"\x1b\[[\d;]*m", "", written.err)

    return start


@pytest.fixture
def refusal(call: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Return the one line with which a call is refused; before it there is nothing but finished stages."""

    def start(*arguments: object) -> str:
        code, _, err = call(*arguments)
        *before, line = err.splitlines()
        assert code == 2
        assert line.startswith("fusebench: ")
        assert all(PROGRESS.fullmatch(one) for one in before)
        return line

    return start
