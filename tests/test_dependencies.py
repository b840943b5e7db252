"""Every package that is imported is declared, every declared one is used, pinned and explained in CONTRIBUTING.md."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "fusion", "kernels")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = {
    name: [one for one in map(Requirement, lines) if one.name != PROJECT["project"]["name"]]
    for name, lines in PROJECT["project"]["optional-dependencies"].items()
}
RUN_TIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
BUILD = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
DECLARED = [*RUN_TIME, *(one for extra in EXTRAS.values() for one in extra)]

NAMESPACES = {"nvidia": "nvidia-dali-cuda130"}
"""A folder that many packages share -> the one that is imported from it."""
SAME_IMPORT = {"onnxruntime": "onnxruntime-gpu"}
"""Packages of one import name: the one for other platforms -> the one for Linux on x86-64."""
NEVER_IMPORTED = {
    "build": "make wheel",
    "hatchling": "the build backend, so that the tests build without the network",
    "mypy": "make types",
    "pandas-stubs": "read by mypy",
    "pylibjpeg": "read by pydicom",
    "pylibjpeg-openjpeg": "read by pylibjpeg",
    "pytest-benchmark": "a plug-in of pytest: the fixture benchmark",
    "ruff": "make lint",
}
"""Declared packages that no file imports -> who uses them."""


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


def imported_modules(folder: Path) -> set[str]:
    """Return the top names of all absolute imports of ``folder``, wherever they stand in a file."""
    modules = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    return {module.partition(".")[0] for module in modules}


def imported(*folders: str) -> set[str]:
    """Return the distributions that the files of ``folders`` import, as declared for Linux on x86-64."""
    ours = {*PACKAGES, "tests", *(file.stem for file in (ROOT / "tests").rglob("*.py"))}
    modules = set().union(*(imported_modules(ROOT / folder) for folder in folders)) - ours - sys.stdlib_module_names
    installed = packages_distributions()
    found = set()
    for module in modules:
        candidates = [NAMESPACES[module]] if module in NAMESPACES else installed.get(module, [module])
        found |= {canonicalize_name(SAME_IMPORT.get(name, name)) for name in candidates}
    return found


def test_what_the_packages_import_is_declared() -> None:
    allowed = names(RUN_TIME) | {name for extra in EXTRAS.keys() - {"dev"} for name in names(EXTRAS[extra])}
    found = imported(*PACKAGES)
    assert {"torch", "scikit-learn", "pillow", "nvidia-ml-py", "pydicom"} <= found
    assert found - allowed == set()


def test_what_the_tests_import_is_declared() -> None:
    assert imported("tests") - names(DECLARED) == set()


def test_what_is_declared_is_imported_or_used_by_something_named() -> None:
    replaced = {canonicalize_name(name) for name in SAME_IMPORT}
    beyond = names(RUN_TIME) | {name for extra in EXTRAS.keys() - {"dev"} for name in names(EXTRAS[extra])}
    assert beyond - imported(*PACKAGES) - replaced - NEVER_IMPORTED.keys() == set()
    assert names(EXTRAS["dev"]) - imported("tests") - NEVER_IMPORTED.keys() == set()


def test_the_exceptions_are_declared_and_true() -> None:
    assert NEVER_IMPORTED.keys() - names(DECLARED) == set()
    assert NEVER_IMPORTED.keys() & imported(*PACKAGES, "tests") == set()
    assert {*NAMESPACES.values(), *SAME_IMPORT, *SAME_IMPORT.values()} <= names(DECLARED)


def test_what_builds_the_packages_is_there_for_the_tests() -> None:
    assert names(BUILD) <= names(EXTRAS["dev"])


def test_contributing_explains_every_dependency_and_no_other() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("\n## Dependencies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.M)[2:]  # the head and the line under it
    explained = [canonicalize_name(name) for packages, _ in rows for name in packages.split(", ")]
    assert all(reason.strip() for _, reason in rows)
    assert sorted(explained) == sorted(set(explained))
    assert set(explained) == names(DECLARED)


# -- pins ------------------------------------------------------------------------------------------------------------

LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_constraints_are_names_and_versions_only() -> None:
    assert "torch==2.15.0" in LINES
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in LINES)


def test_every_package_is_pinned_once() -> None:
    pinned = [canonicalize_name(line.partition("==")[0]) for line in LINES]
    assert sorted(pinned) == sorted(set(pinned))


LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_a_declared_package_is_pinned_in_a_version_it_may_have(requirement: Requirement) -> None:
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}
    version = pins.get(canonicalize_name(requirement.name))
    if requirement.marker and not requirement.marker.evaluate(LINUX):
        assert version is None  # the pins are of Linux on x86-64, where it is not installed
    else:
        assert version is not None
        assert requirement.specifier.contains(Version(version))
