"""A disk that is full, read-only or not ours: one line, exit code 2, and nothing that was finished is damaged."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import SMALL, cell_folder
from safetensors import SafetensorError

import bench.worker
from bench.runner import Summary
from bench.verify import verify
from fusion.checksums import problems
from fusion.errors import DiskError, UserError
from fusion.files import replacing, replacing_folder, write_text

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
ERRORS: dict[str, Callable[[int], Exception]] = {
    "system": lambda code: OSError(code, os.strerror(code)),
    "safetensors": lambda code: SafetensorError(f"I/O error: {os.strerror(code)} (os error {code})"),
    "torch and onnxruntime": lambda code: RuntimeError(f"[enforce fail] write failed: {os.strerror(code)}"),
}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_a_writer_calls_it_it_is_one_line_with_path_and_cause(tmp_path: Path, kind: str, code: int) -> None:
    def into_file() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ERRORS[kind](code)

    def into_folder() -> None:
        with replacing_folder(tmp_path / "folder") as partial:
            (partial / "file").write_text("half")
            raise ERRORS[kind](code)

    for place, write in (("file", into_file), ("folder", into_folder)):
        with pytest.raises(DiskError) as caught:
            write()
        assert str(caught.value) == f"can't write {tmp_path / place}: {os.strerror(code)}"
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_a_writer_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match="invalid tensor"), replacing(tmp_path / "file"):
        raise SafetensorError("invalid tensor")
    with pytest.raises(UserError, match="a reason") as caught, replacing(tmp_path / "file"):
        raise UserError("a reason")
    assert not isinstance(caught.value, DiskError)
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "deep" / "file"):  # that is read meanwhile
        (tmp_path / "gone").read_bytes()


def test_a_disk_that_gets_full_in_a_cell_ends_the_run_at_once(
    tmp_path: Path, run_tiny: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other cells would fail in the same way; what is finished stays, and the same call goes on."""
    out, save = tmp_path / "run", bench.worker.save_torch
    run_tiny(out, SMALL[:1])
    told: list[str] = []

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(bench.worker, "save_torch", full)
    with pytest.raises(DiskError) as caught:
        run_tiny(out, [*SMALL, "model2/*"], finished=told.append)
    assert "can't write " in str(caught.value)
    assert str(caught.value).endswith(": No space left on device")
    assert told == []
    assert list(out.rglob(".*")) == []
    assert problems(out) == []
    monkeypatch.setattr(bench.worker, "save_torch", save)
    assert run_tiny(out, SMALL) == Summary(done=1, found=1, failed=())
    assert [finding.kind for finding in verify(out).findings if finding.kind != "not run"] == []


# -- real file systems -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [shutil.which("mount") or "", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not mount[0] or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_small_disk_gets_full(
    small_disk: Path, tiny_toml: Path, tiny_data: Path, refusal: Callable[..., str]
) -> None:
    out = small_disk / "run"
    command = ["run", tiny_toml, "--data", tiny_data, "--out", out, "--device", "cpu", "--no-measure"]
    line = refusal(*command, "--only", "model2/*")
    assert line.startswith(f"fusebench: can't write {cell_folder(out, 'model2/mobilenet_v2+sgdm')}")
    assert line.endswith("No space left on device")
    assert problems(out) == []
    assert list(out.rglob(".*")) == []


def test_a_read_only_disk_is_told_by_every_command_that_writes(
    small_disk: Path, tiny_toml: Path, tiny_data: Path, whole_small: Path, refusal: Callable[..., str], call: Any
) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    out = Path(shutil.copytree(whole_small, small_disk / "run"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (
        ["run", tiny_toml, "--data", tiny_data, "--out", out, "--device", "cpu", "--only", SMALL[0]],
        ["measure", out],
        ["explain", out],
        ["report", out],
        ["prepare", small_disk / "data", "--folder", f"tiny={tiny_data.parent / 'raw'}"],
    ):
        assert refusal(*command).endswith("Read-only file system"), command
    assert call("verify", out)[0] == 0  # it writes nothing


@pytest.fixture(scope="module")
def whole_small(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    run_tiny(out, SMALL[:1])
    return out


def test_a_limit_of_the_size_of_a_file_is_one_line(tmp_path: Path) -> None:
    """Needs neither root nor a mount."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fusion.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 10**6)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"can't write {tmp_path / 'file'}: File too large\n"
    assert list(tmp_path.iterdir()) == []


# -- the output of the command itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["full", "closed"])
def test_an_output_that_takes_no_more_is_no_traceback(target: str) -> None:
    if target == "full":
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bench", "--help"], cwd=ROOT, stdout=full, stderr=-1, text=True
            )
        assert done.stderr == "fusebench: can't write the output: No space left on device\n"
        assert done.returncode == 2
    else:
        child = subprocess.Popen([sys.executable, "-m", "bench", "--help"], cwd=ROOT, stdout=-1, stderr=-1, text=True)
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
        child.stderr.close()
        assert child.wait() != 0
        assert "Traceback" not in err
        assert "Exception ignored" not in err


def test_writing_a_text_leaves_the_earlier_one_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "file", "one", recorded=True)

    def refuse(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match="Disk quota exceeded"):
        write_text(tmp_path / "file", "two", recorded=True)
    assert (tmp_path / "file").read_text() == "one"
    assert problems(tmp_path) == []
