"""What lies where a file should: pipes, devices, folders, links, endless numbers, and little files that want much."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fusion.errors import UserError
from fusion.files import file_hash, read_json, regular
from fusion.sources import matfile
from fusion.sources.inputs import read_table
from fusion.sources.matfile import read_mat

PLACES: dict[str, Callable[[Path], None]] = {
    "not a regular file": lambda path: os.mkfifo(path),
    "not a regular file ": lambda path: path.symlink_to("/dev/zero"),
    "Is a directory": lambda path: path.mkdir(),
    "No such file": lambda path: path.symlink_to("nothing"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("reason", PLACES)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "a"
    PLACES[reason](path)
    for read in (regular, file_hash):
        with pytest.raises(OSError, match=reason.strip()):
            read(path)
    with pytest.raises(UserError, match=reason.strip()):
        read_table(path, ("path",))
    with pytest.raises(UserError, match=reason.strip()):
        read_mat(path)
    with pytest.raises(UserError, match=rf"{reason.strip()}|is missing"):
        read_json(path, "a folder")


def test_a_file_above_its_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert regular(path, 5) == path
    with pytest.raises(OSError, match="5 bytes; the limit is 4"):
        regular(path, 4)


@pytest.mark.parametrize("text", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000, '{"a": NaN', "\ufeff{}", "", "[]"])
def test_json_that_can_not_be_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is not a folder of mine, or is damaged"):
        read_json(path, "a folder of mine")


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def zeros(count: int) -> bytes:
    """Return a compressed variable of ``count`` numbers of eight bytes, stored as one byte each."""
    parts = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", count, 1)) + element(1, b"x")
    content = zlib.compress(element(14, parts + element(2, bytes(count))))
    return struct.pack("<II", 15, len(content)) + content


@pytest.mark.parametrize(("count", "variables"), [(2_000, 1), (400, 4)])
def test_all_variables_of_a_mat_file_share_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, variables: int
) -> None:
    path = tmp_path / "a.mat"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")
    path.write_bytes(header + zeros(count) * variables)
    assert read_mat(path)["x"].shape == (count, 1)  # type: ignore[union-attr]
    monkeypatch.setattr(matfile, "MAX_INFLATED_BYTES", 10_000)
    with pytest.raises(UserError, match="its variables take more than 10000 bytes"):
        read_mat(path)


def test_what_an_error_quotes_stays_on_one_short_line() -> None:
    error = UserError("a.csv: 'x\x1b[2J\n\u202ey" + "a" * 70_000 + "' is unknown")
    assert str(error).startswith("a.csv: 'x y")
    assert len(str(error)) == 1000


def test_a_table_of_a_great_many_columns_is_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,label" + ",a" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="column 'a' occurs twice"):
        read_table(path, ("path", "label"))
