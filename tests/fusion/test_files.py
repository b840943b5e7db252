"""A folder is put in place as a whole, or not at all."""

from pathlib import Path

import pytest

from fusion.errors import UserError
from fusion.files import clear_leftovers, replacing_folder


def fill(folder: Path, text: str) -> None:
    with replacing_folder(folder) as partial:
        assert not folder.exists() or (folder / "sub" / "file").read_text() != text
        (partial / "sub").mkdir()
        (partial / "sub" / "file").write_text(text)


def test_a_folder_is_written_and_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    for text in ("one", "two"):
        fill(folder, text)
        assert (folder / "sub" / "file").read_text() == text
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_what_fails_leaves_the_earlier_folder(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "one")

    def fail() -> None:
        with replacing_folder(tmp_path / "folder") as partial:
            (partial / "file").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "folder" / "sub" / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't create the folder"), replacing_folder(tmp_path / "file" / "folder"):
        raise AssertionError("the block must not be reached")


def test_leftovers_are_removed_but_those_of_another_writer(tmp_path: Path) -> None:
    mine = [".run.json.1.partial", "cells/.a.partial", "cells/.b.replaced", ".figures.partial"]
    theirs = [".index.html.2.partial", "tables/.table1.csv.2.partial", "tables/deep/.x.replaced"]
    for name in (*mine, *theirs):
        (tmp_path / name).mkdir(parents=True)
    clear_leftovers(tmp_path, but=("tables", "index.html"))
    assert not any((tmp_path / name).exists() for name in mine)
    assert (tmp_path / "cells" / "b").is_dir()  # it had been set aside
    assert all((tmp_path / name).exists() for name in theirs)
    clear_leftovers(tmp_path)
    assert not any((tmp_path / name).exists() for name in theirs)
