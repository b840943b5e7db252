"""Checksums of a folder: as coreutils reads them, renewed file by file, and right whenever a call is killed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fusion.checksums import SUMS, forget, problems, read_checksums, record, recording, require_intact, write_checksums
from fusion.errors import UserError
from fusion.files import replacing_folder, write_text

HASH = "0" * 64
ODD = ("back\\slash", "back\\nslash", "two\nlines", " blank ", "*star", "#next", os.fsdecode(b"no text \xff"))


def found(folder: Path) -> dict[str, str]:
    return {problem.path.relative_to(folder).as_posix(): problem.kind for problem in problems(folder)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in small: files written one by one, and below them a folder put in place as a whole."""
    root = tmp_path / "run"
    root.mkdir()
    write_text(root / "run.json", "{}", recorded=True)
    with replacing_folder(root / "cells" / "one") as partial:
        (partial / "deep").mkdir()
        (partial / "rows.csv").write_text("1")
        (partial / "deep" / "ä b.png").write_bytes(b"\x89PNG")
        for name in ODD:
            (partial / name).write_bytes(b"1")
    return root


def test_coreutils_reads_them(folder: Path) -> None:
    tool = shutil.which("sha256sum")
    if not tool:
        pytest.skip("sha256sum is not installed")
    for place in (folder, folder / "cells" / "one"):
        subprocess.run([tool, "--check", "--strict", "--quiet", SUMS], cwd=place, check=True)
    assert found(folder) == {}


def test_every_kind_of_problem_is_told(folder: Path, tmp_path: Path) -> None:
    one = folder / "cells" / "one"
    (one / "rows.csv").write_text("2")
    (one / "deep" / "ä b.png").unlink()
    (one / "notes.txt").write_text("mine")
    (folder / ".run.json.77.partial").write_text("half")
    (folder / "cells" / ".two.partial").mkdir()
    (folder / "outside").symlink_to(tmp_path)
    os.mkfifo(one / "pipe")
    assert found(folder) == {
        "cells/one/rows.csv": "damaged",
        "cells/one/deep/ä b.png": "missing",
        "cells/one/notes.txt": "foreign",
        ".run.json.77.partial": "unfinished",
        "cells/.two.partial": "unfinished",
        "outside": "not a file",
        "cells/one/pipe": "not a file",
    }


def test_a_recorded_name_that_is_a_link_or_a_pipe_is_neither_followed_nor_opened(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "same").write_text("{}")
    (folder / "run.json").unlink()
    (folder / "run.json").symlink_to(tmp_path / "same")
    rows = folder / "cells" / "one" / "rows.csv"
    rows.unlink()
    os.mkfifo(rows)
    assert found(folder) == {"run.json": "not a file", "cells/one/rows.csv": "not a file"}
    with pytest.raises(UserError, match="is missing; wait"):
        require_intact(rows, way_out="wait")


@pytest.mark.parametrize("kill_at", ["before", "after"])
def test_whenever_the_writer_is_killed_the_file_in_place_is_a_known_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kill_at: str
) -> None:
    """Killed with its new checksum announced: before the rename, or after it and before the line is renewed."""

    class KilledError(BaseException):
        pass

    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if target.name == SUMS or kill_at == "after":
            replace(source, target)
        if target.name != SUMS:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KilledError):
            write_text(folder / "run.json", '{"new": 1}', recorded=True)
    assert (folder / "run.json").read_text() == ("{}" if kill_at == "before" else '{"new": 1}')
    assert "# next" in (folder / SUMS).read_text()
    require_intact(folder / "run.json", way_out="")
    assert found(folder) == {}
    write_text(folder / "run.json", "third", recorded=True)
    assert "# next" not in (folder / SUMS).read_text()
    assert found(folder) == {}


def test_a_file_that_was_only_announced_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text(f"# next {HASH}  model.onnx\n")
    assert found(tmp_path) == {}
    (tmp_path / "model.onnx").write_text("other")
    assert found(tmp_path) == {"model.onnx": "damaged"}


def test_lines_are_added_renewed_and_taken_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    record(tmp_path / "a", tmp_path / "b")
    before = read_checksums(tmp_path)
    (tmp_path / "a").write_text("other")
    record(tmp_path / "a")
    after = read_checksums(tmp_path)
    assert before is not None
    assert after is not None
    assert after.now["b"] == before.now["b"]
    assert after.now["a"] != before.now["a"]
    forget(tmp_path / "a")
    (tmp_path / "a").unlink()
    assert found(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing\n", "line 1 is no checksum of a file"),
        (f"{HASH}  ../outside\n", "line 1 is no checksum of a file"),
        (f"{HASH}  /etc/passwd\n", "line 1 is no checksum of a file"),
        (f"\\{HASH}  ..\\nx/../a\n", "line 1 is no checksum of a file"),
        (f"{HASH}  a\n{HASH}  a\n", "line 2 names 'a' once more"),
        (f"{HASH}  a", "its last line is cut off"),
        ("\x00\n", "line 1 is no checksum of a file"),
    ],
)
def test_damaged_checksums_are_refused_on_one_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / SUMS).write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        read_checksums(tmp_path)
    assert str(tmp_path / SUMS) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert found(tmp_path) == {SUMS: "damaged"}


def test_odd_checksums_neither_hang_nor_fill_the_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SUMS)
    with pytest.raises(UserError, match="it is not a file"):
        read_checksums(tmp_path)
    (tmp_path / SUMS).unlink()
    with (tmp_path / SUMS).open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UserError, match="it is larger than 64 MiB"):
        read_checksums(tmp_path)


def test_what_is_not_recorded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(UserError, match=f"has no checksum: there is no {SUMS}, as of an earlier version; run it again"):
        require_intact(tmp_path / "file", way_out="run it again")
    write_checksums(tmp_path)
    require_intact(tmp_path / "file", way_out="")
    (tmp_path / "more").write_text("1")
    with pytest.raises(UserError, match="more is not recorded"):
        require_intact(tmp_path / "more", way_out="")


def test_what_fails_is_not_announced(tmp_path: Path) -> None:
    def fail() -> None:
        with recording(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
