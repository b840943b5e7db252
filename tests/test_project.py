"""What the project says of itself: the direction of its imports, and the commands in its documents."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from bench.cli import app
from bench.environment import machine_name
from bench.report import data_path_tables
from bench.report.formats import to_markdown

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"kernels": {"fusion", "bench"}, "fusion": {"bench"}}
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "results/README.md",
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
)
COMMANDS = [
    command
    for document in ("README.md", "docs/cluster.md")
    for command in re.findall(
        r"^    (?:\.venv/bin/|.* )?fusebench ([a-z-]+ .+)$",
        (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " "),
        re.M,
    )
]


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_never_imports_the_one_that_uses_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported_packages(file) & FORBIDDEN[package], file


def test_the_report_imports_no_model_code() -> None:
    for file in (ROOT / "bench" / "report").rglob("*.py"):
        assert not imported_packages(file) & {"torch", "timm", "torchvision", "nvidia"}, file


def test_documents_show_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_documents_are_understood(line: str) -> None:
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line)
    assert name in group.commands  # type: ignore[attr-defined]
    group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_that_documents_name_exist(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", (ROOT / document).read_text(encoding="utf-8"), re.M))
    assert named <= targets


# -- figures ---------------------------------------------------------------------------------------------------------

REFERENCE = ROOT / "results" / "reference"
FIGURE = re.compile(r"\d[\d.,]*\s*(?:images/s|ms|µs|GB/s|MiB|%|×|times|min|s)\b")


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_readme_quotes_only_figures_of_the_reference_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Performance\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and re.search(r"\d", line)]
    known = {line for link in re.findall(r"\((results/reference/\S+\.md)\)", section) for line in lines_of(ROOT / link)}
    assert len(rows) >= 3
    assert [row for row in rows if row not in known] == []
    assert FIGURE.findall("\n".join(line for line in section.splitlines() if not line.startswith("|"))) == []


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*/data_path.csv")), ids=lambda path: path.parent.name)
def test_reference_tables_are_those_of_their_figures(path: Path) -> None:
    figures = pd.read_csv(path, keep_default_na=False)
    written = path.with_suffix(".md").read_text(encoding="utf-8")
    for table in data_path_tables(figures, ()).values():
        rows = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
        assert all(row in written.splitlines() for row in rows)
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["environment"]
    assert set(figures["machine"]) == {machine_name(described)}
    assert str(Path.home()) not in json.dumps(described)


def test_readme_quotes_only_engines_of_the_reference_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## What a model costs\n")[2].partition("\n## ")[0]
    (link,) = re.findall(r"\((results/reference/\S+\.md)\)", section)
    known = [[cell.strip() for cell in line.split("|")] for line in lines_of(ROOT / link) if line.startswith("|")]
    quoted = re.findall(r"^     (\w+/\S+) +(\d+) (\S+ \S+) +(\S+) +(\S.*)$", section, re.M)
    assert len(quoted) >= 6
    for line in quoted:
        assert any(set(line) <= set(row) for row in known), line


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*/measurements.csv")), ids=lambda path: path.parent.name)
def test_reference_engines_are_those_of_their_measurements(path: Path) -> None:
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""]).query("metric == 'latency_p50_ms'")
    table = pd.read_csv(path.with_name("engines.csv")).query("batch > 0")
    keys = ["protocol", "cell", "engine", "precision", "batch"]
    both = rows.set_index(keys)["value"].sort_index(), table.set_index(keys)["latency_p50_ms"].sort_index()
    assert len(both[0]) > 0
    assert both[0].tolist() == pytest.approx(both[1].tolist())
    written = path.with_name("engines.md").read_text(encoding="utf-8")
    assert all(name in written for name in table["cell"])
    described = json.loads(path.with_name("environments.json").read_text(encoding="utf-8"))
    assert set(rows["environment_hash"]) <= described.keys()
    assert str(Path.home()) not in json.dumps(described)


def test_importing_the_main_module_runs_nothing() -> None:
    sys.modules.pop("bench.__main__", None)
    assert importlib.import_module("bench.__main__").main  # a worker process does this


def test_the_command_line_is_imported_without_warnings_and_without_what_is_slow() -> None:
    slow = {"torch", "numpy", "pandas", "sklearn", "matplotlib", "plotly", "PIL", "onnxruntime", "ray"}
    listed = f"import sys, bench.cli; print(*(sys.modules.keys() & {slow!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", listed], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
