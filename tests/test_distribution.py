"""The wheel and the source distribution: what is in them, and that an installed wheel does the whole work anywhere."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import EntryPoints
from importlib.metadata import PathDistribution as Metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "fusion", "kernels")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KINDS = {".py", ".toml", ".csv", ".j2", ".css", ".js"}
"""Suffixes of what is installed: no image, no array, no notes."""
FILE_LIMIT, WHEEL_LIMIT, SDIST_LIMIT = 100_000, 1_000_000, 3_000_000
"""Bytes: of one installed file as it is, of the two archives."""
TOP_OF_SDIST = {
    *("bench", "docs", "fusion", "kernels", "results", "tests", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("LICENSE", "Makefile", "PKG-INFO", "README.md", "constraints.txt", "pyproject.toml"),
}
STRAYS = (
    *("OASBUD.mat", "Dataset_BUSI_with_GT/benign/benign (1).png", "data/paper/images.npy", "notes.txt", ".env"),
    *("results/mine/rows.csv", "dist/old.whl", "bench/__pycache__/cli.cpython-311.pyc"),
)
"""What may lie in a checkout and is nobody's business."""
OUTSIDE = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
OUTSIDE |= {"OMP_NUM_THREADS": "1"}  # on a busy machine waiting threads cost more than they give


def build(source: Path, out: Path, *kinds: str) -> Path:
    """Build ``source`` into ``out`` with the packages that are here: no network."""
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(out), str(source)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution, and of the wheel made from it."""
    return build(ROOT, tmp_path_factory.mktemp("built") / "dist")


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    (path,) = built.glob("*.tar.gz")
    return path


def files_of(folder: Path) -> set[str]:
    """Return the files of ``folder``, without what Python compiled."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def members(sdist: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2]: member for member in archive.getmembers()}


# -- contents --------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_packages_and_the_printed_tables_and_nothing_else(wheel: Path) -> None:
    expected = {f"{package}/{name}" for package in PACKAGES for name in files_of(ROOT / package)}
    expected |= {f"bench/paper_tables/{name}" for name in files_of(ROOT / "results" / "paper")}
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    about = {name for name in sizes if name.startswith(f"fusebench-{PROJECT['version']}.dist-info/")}
    assert {name.partition("/")[2] for name in about} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert sizes.keys() - about == expected
    assert {PurePosixPath(name).suffix for name in expected} == KINDS
    assert {name: size for name, size in sizes.items() if size > FILE_LIMIT} == {}
    assert wheel.stat().st_size < WHEEL_LIMIT
    assert wheel.name == f"fusebench-{PROJECT['version']}-py3-none-any.whl"


def test_the_source_distribution_holds_the_packages_the_tests_and_no_raw_data(sdist: Path) -> None:
    inside = members(sdist)
    expected = {f"{folder}/{name}" for folder in (*PACKAGES, "tests") for name in files_of(ROOT / folder)}
    assert expected - inside.keys() == set()
    assert {PurePosixPath(name).parts[0] for name in inside} <= TOP_OF_SDIST
    results = {name.split("/")[1] for name in inside if name.startswith("results/")}
    assert results <= {"README.md", "paper", "reference"}
    assert all(member.isfile() for member in inside.values())
    assert not [name for name in inside if "__pycache__" in name]
    assert sdist.stat().st_size < SDIST_LIMIT


def test_strays_of_a_checkout_are_left_out_and_both_are_built_again_byte_for_byte(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for name in STRAYS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"not ours to give")
    again = build(source, tmp_path / "again", "--sdist", "--wheel")  # the wheel from the folder, not from the sdist
    assert (again / wheel.name).read_bytes() == wheel.read_bytes()
    assert (again / sdist.name).read_bytes() == sdist.read_bytes()


# -- metadata --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Metadata:
    return Metadata(zipfile.Path(wheel, f"fusebench-{PROJECT['version']}.dist-info/"))  # type: ignore[arg-type]


def test_the_metadata_say_what_the_project_says(metadata: Metadata) -> None:
    told = metadata.metadata
    assert (told["Name"], told["Version"], told["Summary"]) == ("fusebench", PROJECT["version"], PROJECT["description"])
    assert told["Requires-Python"] == PROJECT["requires-python"]
    assert told["License-Expression"] == PROJECT["license"]
    assert set(told.get_all("Provides-Extra") or ()) == PROJECT["optional-dependencies"].keys()
    assert told["Description-Content-Type"] == "text/markdown"
    assert metadata.read_text("METADATA").partition("\n\n")[2] == (ROOT / "README.md").read_text(encoding="utf-8")  # type: ignore[union-attr]


def test_the_wheel_requires_what_the_project_requires(metadata: Metadata) -> None:
    required = [Requirement(line) for line in metadata.requires or ()]
    plain = {canonicalize_name(one.name) for one in required if one.marker is None or "extra" not in str(one.marker)}
    assert plain == {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for extra in PROJECT["optional-dependencies"]:
        asked = {one.name for one in required if one.marker and one.marker.evaluate({"extra": extra})}
        assert asked >= {Requirement(line).name for line in PROJECT["optional-dependencies"][extra]} - {"fusebench"}


def test_there_is_one_command(metadata: Metadata) -> None:
    points = EntryPoints(metadata.entry_points)
    assert [(point.group, point.name, point.value) for point in points] == [
        ("console_scripts", "fusebench", "bench.cli:main")
    ]


def test_the_authors_of_what_is_not_ours_are_named_in_the_wheel(wheel: Path, metadata: Metadata) -> None:
    description = " ".join(str(metadata.metadata.get_payload()).split())
    for text in ("Pawlowska", "10.17632/k8t3gnx9h6.1", "Wang et al.", "10.3390/tomography10120145", "CC BY 4.0"):
        assert text in description
    with zipfile.ZipFile(wheel) as archive:
        (license_file,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()


# -- installed -------------------------------------------------------------------------------------------------------

MATRIX = """
name = "installed"
weights = "random"
protocols = ["paper"]
seeds = [0]

[model1]
backbones = ["mobilenet_v2"]
classifiers = ["nb"]
"""


@pytest.fixture(scope="session")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment that holds our wheel, and finds all other packages in the one of the tests.

    Folders named in a .pth file join ``sys.path``, but the .pth files in them are not read: the editable install of
    the repository stays out.
    """
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, symlinks=True)
    (python,) = folder.glob("bin/python")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    quiet = "--quiet", "--disable-pip-version-check", "--no-compile"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, env=OUTSIDE)
    return python.parent


def call(scripts: Path, cwd: Path, program: str, *arguments: str) -> str:
    """Run ``program`` of the fresh environment outside the repository; return what it prints."""
    done = subprocess.run(
        [scripts / program, *arguments], cwd=cwd, env=OUTSIDE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_packages_are_those_of_the_wheel(scripts: Path, tmp_path: Path) -> None:
    asked = "import bench, fusion, kernels, sys; from importlib.metadata import distribution as d"
    told = "print(bench.__file__, fusion.__file__, kernels.__file__, d('fusebench').locate_file(''), *sys.path[1:])"
    *ours, place = (lines := call(scripts, tmp_path, "python", "-c", f"{asked}; {told}").split())[:4]
    assert all(Path(file).is_relative_to(scripts.parent) for file in [*ours, place])
    assert str(ROOT) not in lines


def test_an_installed_wheel_goes_from_raw_files_to_the_page(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(MATRIX, encoding="utf-8")
    raw = "--busi", "raw/busi", "--oasbud", "raw/oasbud/OASBUD.mat", "--rsna", "raw/rsna"
    assert "prepare" in call(scripts, tmp_path, "fusebench", "--help")
    call(scripts, tmp_path, "fusebench", "phantom", "raw", "--scale", "0.001", "--workers", "1")
    call(scripts, tmp_path, "fusebench", "prepare", "data", *raw, "--image-size", "32")
    run = "--data", "data", "--out", "out", "--device", "cpu", "--no-measure"
    assert "0 failed" in call(scripts, tmp_path, "fusebench", "run", "one.toml", *run)
    assert (tmp_path / "out" / "tables" / "leaderboard.csv").stat().st_size > 0
    assert "<html" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    call(scripts, tmp_path, "fusebench", "verify", "out")
    assert "Table 6: accuracy 0.943 on fused images" in " ".join(call(scripts, tmp_path, "fusebench", "audit").split())
