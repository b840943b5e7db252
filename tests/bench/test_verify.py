"""``fusebench verify``: what is wrong with a folder, and the way out."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from run_folders import SMALL, cell_folder

from bench.runner import Summary
from bench.verify import WAYS_OUT, Finding, verify
from fusion.checksums import SUMS, record
from fusion.errors import UserError
from fusion.files import sole_writer

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def kept(run_tiny: Callable[..., Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verified") / "run"
    run_tiny(out, SMALL)
    return out


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    """A copy of a run of two cells."""
    return Path(shutil.copytree(kept, tmp_path / "run"))


def found(folder: Path) -> list[tuple[str, str]]:
    return [(finding.place, finding.kind) for finding in verify(folder).findings]


def only(folder: Path) -> Finding:
    (finding,) = verify(folder).findings
    return finding


def test_a_whole_run_is_well(out: Path, tiny_data: Path, call: Call) -> None:
    for args in (("verify", out), ("report", out), ("verify", out), ("verify", tiny_data)):
        code, text, _ = call(*args)
        assert code == 0
    assert "checked: all is as it was written" in text
    verified = verify(out)
    assert verified.cells == len(SMALL)
    assert verified.files > 50


@pytest.mark.parametrize("name", ["model.safetensors", "predictions.parquet", "rows.csv", "history.csv", "cell.json"])
def test_a_flipped_bit_is_found(out: Path, name: str, call: Call) -> None:
    file = cell_folder(out, SMALL[0]) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    finding = only(out)
    assert (finding.place, finding.kind) == (file.relative_to(out).as_posix(), "damaged")
    assert finding.way_out == "delete the cell's folder, then call the same 'fusebench run' again"
    code, text, _ = call("verify", out)
    assert code == 1
    assert text.splitlines()[-1].endswith("checked: 1 damaged")


def test_every_kind_of_finding_is_told_with_its_way_out(out: Path, tmp_path: Path) -> None:
    first, second = (cell_folder(out, cell) for cell in SMALL)
    (first / "history.csv").unlink()
    shutil.rmtree(second)
    (out / "notes.txt").write_text("mine")
    (out / ".run.json.1.partial").write_text("half")
    (out / "away").symlink_to(tmp_path)
    os.mkfifo(out / "images" / "pipe")
    ways_out = {(finding.place, finding.kind): finding.way_out for finding in verify(out).findings}
    assert ways_out == {
        (
            f"cells/paper/0/{SMALL[0]}/history.csv",
            "missing",
        ): WAYS_OUT["cells"],
        (f"cells/paper/0/{SMALL[1]}", "not run"): "call the same 'fusebench run' again",
        ("notes.txt", "foreign"): "fusebench did not write it: move it elsewhere",
        (".run.json.1.partial", "unfinished"): "left by a killed call: the next one removes it",
        ("away", "not a file"): "fusebench did not write it: move it elsewhere",
        ("images/pipe", "not a file"): "fusebench did not write it: move it elsewhere",
    }


@pytest.mark.parametrize("metric", ["accuracy", "auc", "kappa", "tp"])
def test_rows_edited_together_with_their_checksum_are_found(out: Path, metric: str) -> None:
    path = cell_folder(out, SMALL[0]) / "rows.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[(rows["metric"] == metric) & (rows["subset"] == "all"), "value"] = "0.987"
    rows.to_csv(path, index=False)
    record(path)
    finding = only(out)
    assert (finding.place, finding.kind) == (f"cells/paper/0/{SMALL[0]}", "contradiction")
    assert finding.why.startswith(f"rows.csv says {metric} 0.987 (all), predictions.parquet gives ")


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("rows.csv", ",kappa,", ",brier2,", "lacks kappa of all"),
        ("cell.json", '"seed": 0', '"seed": 1', "another config_hash than cell.json"),
    ],
)
def test_files_that_contradict_each_other_are_found(out: Path, name: str, old: str, new: str, why: str) -> None:
    path = cell_folder(out, SMALL[0]) / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    record(path)
    assert why in only(out).why


def test_a_name_in_run_json_leads_nowhere_else(out: Path) -> None:
    path = out / "run.json"
    path.write_text(path.read_text().replace(f'"{SMALL[0]}"', '"../../../../../../etc"'))
    record(path)
    assert ("run.json", "contradiction") in found(out)


def test_a_damaged_run_json_is_found_and_written_anew(out: Path, run_tiny: Callable[..., Summary]) -> None:
    path = out / "run.json"
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    assert only(out).way_out == "delete it, then call the same 'fusebench run' again"
    with pytest.raises(UserError, match=r"run\.json is damaged: it was changed .*; delete run\.json and call the same"):
        run_tiny(out, SMALL)
    path.unlink()
    assert run_tiny(out, SMALL) == Summary(done=0, found=2, failed=())
    assert path.read_bytes() == content
    assert found(out) == []


def test_a_lost_or_damaged_checksum_file_costs_no_cell(out: Path, run_tiny: Callable[..., Summary], call: Call) -> None:
    content = (out / SUMS).read_bytes()
    (out / SUMS).write_bytes(content[:-3])
    finding = only(out)
    assert (finding.place, finding.kind) == (SUMS, "damaged")
    assert finding.way_out == "delete it and run.json, then call the same 'fusebench run' again"
    with pytest.raises(UserError, match=r"its last line is cut off; delete it and run\.json, then call"):
        run_tiny(out, SMALL)
    (out / SUMS).unlink()
    with pytest.raises(UserError, match=r"has lost its SHA256SUMS; delete run\.json, too, then call"):
        run_tiny(out, SMALL)
    (out / "run.json").unlink()
    assert run_tiny(out, SMALL) == Summary(done=0, found=2, failed=())
    assert call("report", out)[0] == 0
    assert found(out) == []


def test_a_cell_or_tables_without_checksums_are_named_once_with_what_works(
    out: Path, run_tiny: Callable[..., Summary], call: Call
) -> None:
    cell = cell_folder(out, SMALL[0])
    (cell / SUMS).unlink()
    finding = only(out)
    assert (finding.place, finding.kind) == (f"cells/paper/0/{SMALL[0]}/{SUMS}", "missing")
    assert finding.way_out == WAYS_OUT["cells"]
    shutil.rmtree(cell)
    assert run_tiny(out, SMALL).done == 1
    assert call("report", out)[0] == 0
    (out / "tables" / SUMS).write_text("no checksum\n")
    finding = only(out)
    assert (finding.place, finding.kind) == (f"tables/{SUMS}", "damaged")
    assert finding.way_out == "delete its folder, then call fusebench report"
    assert "tables/SHA256SUMS is damaged: line 1" in call("report", out)[2]
    shutil.rmtree(out / "tables")
    assert call("report", out)[0] == 0
    assert found(out) == []


def test_tables_of_a_killed_report_are_not_called_foreign_alone(out: Path, call: Call) -> None:
    (out / "tables").mkdir()
    (out / "tables" / "table1.csv").write_text("half a report")
    finding = only(out)
    assert (finding.kind, finding.why) == ("foreign", "or left by a killed report")
    assert finding.way_out.startswith("fusebench report writes it anew; ")
    assert call("report", out)[0] == 0
    assert found(out) == []


def test_a_cell_of_another_run_or_place_is_found(out: Path) -> None:
    shutil.copytree(cell_folder(out, SMALL[0]), out / "cells" / "paper" / "7" / SMALL[0])
    assert found(out) == [(f"cells/paper/7/{SMALL[0]}", "foreign")]
    shutil.rmtree(out / "cells" / "paper" / "7")
    shutil.rmtree(cell_folder(out, SMALL[1]))
    shutil.copytree(cell_folder(out, SMALL[0]), cell_folder(out, SMALL[1]))
    finding = only(out)
    assert (finding.place, finding.kind) == (f"cells/paper/0/{SMALL[1]}", "contradiction")
    assert "does not belong here" in finding.why


def test_the_folder_may_be_named_in_any_way(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for here, name in ((out, "."), (out / "cells", ".."), (out / "cells", "../../run")):
        monkeypatch.chdir(here)
        assert verify(Path(name)).findings == ()


def test_a_report_under_way_does_not_hide_how_a_run_ended(
    out: Path, tiny_toml: Path, tiny_data: Path, call: Call
) -> None:
    command = ["run", tiny_toml, "--data", tiny_data, "--out", out, "--device", "cpu", "--no-measure", "--no-explain"]
    only_these = [option for cell in SMALL for option in ("--only", cell)]
    partial = out / "tables" / ".table1.csv.1.partial"
    with sole_writer(out / "tables"):
        partial.touch()
        code, text, _ = call(*command, *only_these, "--weights", "random")
        assert partial.exists()
    assert code == 1
    assert "cells done, 2 found finished, 0 failed" in text
    assert "failed: report: another process is writing to" in text


def test_a_folder_that_is_written_or_of_an_earlier_version_or_no_run_is_refused(
    out: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    with sole_writer(out):
        assert "another process is writing to" in refusal("verify", out)
    for sums in out.rglob(SUMS):
        sums.unlink()
    assert "has no SHA256SUMS: an earlier version made it" in refusal("verify", out)
    (tmp_path / "data" / "partial").mkdir(parents=True)
    assert "is not finished: call the same 'fusebench prepare' again" in refusal("verify", tmp_path / "data")
    assert "was written neither by 'fusebench run' nor by" in refusal("verify", tmp_path / "nothing")
