"""All that needs a GPU in one command, ``fusebench gpu-check``: tests, data path, the matrix at full length, engines.

The work lies in a folder that git ignores and goes on where it was when called again. What is kept goes to
``results/reference/<gpu>/``: result rows, measurements, environments, tables, the data path's figures, and a summary
that says what was measured and what could not be run.
"""

import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from bench.engine_rows import ENVIRONMENT, MEASUREMENTS, read_environment
from bench.environment import describe_environment, machine_name
from bench.matrix import MATRICES, read_matrix
from bench.metrics import ALL
from bench.paper import paper_costs
from bench.report import build_tables, write_table
from bench.report.read import read_results, read_rows
from bench.store import ROW_COLUMNS, RUN
from fusion.errors import UserError
from fusion.files import content_hash, make_folder, write_json, write_text
from fusion.split import PROTOCOLS

NEEDED = (
    *("timm", "triton", "pandas", "pyarrow", "sklearn", "scipy", "skimage", "PIL", "safetensors", "huggingface_hub"),
    *("typer", "rich", "psutil", "threadpoolctl", "torchvision"),
)
"""Modules without which nothing can be measured; their packages are those of pyproject.toml."""
ENGINE_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Modules without which no cell is exported and no engine measured."""
OPTIONAL = {
    "nvidia.dali": "DALI: the loader dali is not measured, torchvision decodes",
    "pytest": "pytest: the tests that need a GPU",
    **{name: f"{name}: the engines, PyTorch's too" for name in ENGINE_PACKAGES},
}
"""What is left out without them."""
SUMMARY = "summary.md"
DATA_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"data_path.csv": ()},
    # Compiling six networks takes minutes; it is not to keep the other figures waiting.
    "cuda": {"data_path.csv": (), "compiled_steps.csv": ("--loader", "resident", "--step", "compiled")},
}
"""The calls of ``data-path`` and where their figures go."""


PYTEST_OPTIONS = ("--override-ini", "addopts=-q --strict-markers")
"""Instead of the project's, which need plug-ins."""
TESTS = Path(__file__).parents[1] / "tests"


@dataclass(frozen=True, kw_only=True)
class Check:
    """How one call went."""

    kept: Path
    """The folder of the results."""
    failures: tuple[str, ...]
    """A sentence for each part that failed."""


def check(
    work: Path,
    reference: Path,
    *,
    protocol: str = "paper",
    scale: float = 1.0,
    image_size: int = 300,
    only: Sequence[str] = (),
) -> Check:
    """Run every part on the GPU, or on the CPU where there is none, and keep the results.

    Args:
        work: folder for phantoms and the run; made if missing.
        reference: the results go to a folder in it, named by the machine.
        protocol: ``paper``, ``clean`` or ``both``.
        scale: share of the paper's counts of images.
        image_size: side of the images in pixels.
        only: patterns of the cells to run; empty for all.

    Raises:
        UserError: a package is missing, or there are no images or no cells to go on with.
    """
    if missing := [name for name in NEEDED if not _is_there(name)]:
        raise UserError(f"{', '.join(missing)} can't be imported; install the packages of pyproject.toml first")
    if protocol not in (*PROTOCOLS, "both"):
        raise UserError(f"--protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}, both")
    full = read_matrix(tomllib.loads(full_length_matrix()), "the full matrix")
    chosen = {cell.name for cell in full.select(list(only))}  # refuses what matches none
    left_out = [text for name, text in OPTIONAL.items() if not _is_there(name)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = machine_name(describe_environment(device))
    kept = make_folder(reference / re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-"))
    make_folder(work)
    seconds: dict[str, float] = {}
    failures: list[str] = []
    notices: list[str] = []

    def part(name: str, module: str, *arguments: object) -> bool:
        print(f"== {name}", flush=True)  # noqa: T201
        started = time.perf_counter()
        code = run_module(module, [str(argument) for argument in arguments])
        seconds[name] = time.perf_counter() - started
        if code:
            failures.append(f"{name} ended with exit code {code}")
        return code == 0

    if not gpu_tests():
        left_out.append("the repository: the tests that need a GPU")
    elif _is_there("pytest"):
        part("gpu tests", "pytest", *gpu_tests(), *PYTEST_OPTIONS)
    raw, prepared, run = work / f"phantom-{scale}", work / f"prepared-{scale}-{image_size}", work / f"run-{image_size}"
    if not (prepared / "manifest.json").exists():
        sources = "--busi", raw / "busi", "--oasbud", raw / "oasbud" / "OASBUD.mat", "--rsna", raw / "rsna"
        written = part("phantoms", "bench", "phantom", raw, "--scale", scale)
        if not (written and part("prepare", "bench", "prepare", prepared, *sources, "--image-size", image_size)):
            raise UserError(f"{failures[-1]}; nothing was measured")
    matrix = work / "full.toml"
    write_text(matrix, full_length_matrix())
    cells = "--data", prepared, "--out", run, "--protocol", protocol, "--weights", "random", *_selection(only)
    part("matrix", "bench", "run", matrix, *cells, "--no-measure")
    if (run / RUN).exists():
        keep_run(run, kept)  # measuring takes long, and may be stopped
        printed = [cell for cell in paper_costs()["cell"] if cell in chosen]
        if not printed:
            notices.append("engines were not measured: none of the cells chosen is in the paper's Table 5")
        elif all(map(_is_there, ENGINE_PACKAGES)):
            part("measure", "bench", "measure", run, *_selection(printed))
            keep_run(run, kept)
    for file, kinds in DATA_PATHS[device.type].items():
        if (kept / file).exists():
            notices.append(f"{file} is of an earlier call; delete it to measure again")
        else:
            part(file.removesuffix(".csv"), "bench", "data-path", "--data", prepared, "--csv", kept / file, *kinds)
    rows = read_rows(run) if (run / RUN).exists() else pd.DataFrame(columns=list(ROW_COLUMNS))
    write_text(kept / SUMMARY, summary(machine, rows, seconds, [*failures, *notices], left_out))
    print((kept / SUMMARY).read_text(encoding="utf-8"))  # noqa: T201
    return Check(kept=kept, failures=tuple(failures))


def gpu_tests() -> list[Path]:
    """Return the files of tests that run on a GPU; others may need packages that such a machine lacks.

    There are none where the packages are installed from a wheel: a folder ``tests`` beside them is another package's.
    """
    if not (TESTS.parent / "pyproject.toml").is_file():
        return []
    files = [path for path in TESTS.rglob("test_*.py") if TESTS / "benchmarks" not in path.parents]
    return sorted(path for path in files if "mark.gpu" in path.read_text(encoding="utf-8"))


def run_module(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module`` in a process of its own and return its exit code."""
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


def full_length_matrix() -> str:
    """Return the paper's matrix as TOML with early stopping off, so that every cell trains all its epochs."""
    text = (MATRICES / "paper.toml").read_text(encoding="utf-8")
    text = re.sub(r"^patience = .*$", "patience = 0", text, flags=re.M)
    return re.sub(r'^name = "paper"$', 'name = "full"', text, flags=re.M)


def keep_run(run: Path, kept: Path) -> None:
    """Keep what a run says, not its weights and predictions: rows, measurements, run.json, machines and tables."""
    results = read_results(run)
    rows, measurements = results.rows, results.measurements
    write_text(kept / "rows.csv", rows.to_csv(index=False))
    write_json(kept / RUN, results.run)
    if len(measurements):
        write_text(kept / "measurements.csv", measurements.to_csv(index=False))
        machines = [read_environment(path.parent) for path in (run / MEASUREMENTS).glob(f"[!.]*/{ENVIRONMENT}")]
        write_json(kept / "environments.json", {content_hash(machine): machine for machine in machines})
    for table in build_tables(results).values():
        write_table(table, kept / "tables")


def summary(
    machine: str, rows: pd.DataFrame, seconds: dict[str, float], failures: Sequence[str], left_out: Sequence[str]
) -> str:
    """Return the page that says what was measured, how long it took, and what was left out.

    Args:
        machine: name of the GPU.
        rows: the run's result rows.
        seconds: of each part of this call.
        failures: parts that failed, were not needed or are of an earlier call, a sentence each.
        left_out: what could not be run, a sentence each.
    """
    done = rows[(rows["status"] == "done") & (rows["subset"] == ALL)]
    wide = done.set_index(["protocol", "seed", "cell", "metric"])["value"].unstack("metric")
    wide = wide.reindex(columns=["wall_s", "setup_s", "peak_memory_mib"])
    failed = rows[rows["status"] == "failed"]
    lines = [
        f"# {machine}",
        "",
        "Phantom data and random weights: the scores say nothing, the times do. Every cell trained all its epochs.",
        "",
        f"- {len(wide)} cells done, {len(failed)} failed; `wall_s` of all cells together: {wide['wall_s'].sum():.0f} s",
        f"- of that, warm-up, compilation and capture (`setup_s`): {wide['setup_s'].sum():.0f} s",
        *(
            [f"- most memory of a cell: {wide['peak_memory_mib'].max():.0f} MiB"]
            if wide["peak_memory_mib"].any()
            else []
        ),
        *(f"- {name}: {value:.0f} s in the last call" for name, value in seconds.items()),
        *(f"- failed: {line.cell}: {line.reason}" for line in failed.itertuples()),
        *(f"- {text}" for text in failures),
        *(f"- not run, for lack of {text}" for text in left_out),
        "",
        "| cell | protocol | wall_s | setup_s | peak_memory_mib |",
        "| :--- | :--- | ---: | ---: | ---: |",
        *(
            f"| {line.cell} | {line.protocol} | {line.wall_s:.1f} | {line.setup_s:.1f} | {line.peak_memory_mib:.0f} |"
            for line in wide.reset_index().itertuples()
        ),
    ]
    return "\n".join(lines) + "\n"


def _selection(patterns: Sequence[str]) -> list[str]:
    return [argument for pattern in patterns for argument in ("--only", pattern)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
