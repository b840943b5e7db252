"""The whole call of ``doctor``, checks and probes that fail themselves, and the packages."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from doctor_faults import TIMM_NAMES, Judge, needs_gpu_packages, write_metadata, write_module

import bench.doctor
import bench.doctor_probes
from bench.doctor import CHECKS, GPU_PLATFORM, Answer, examine
from bench.doctor_probes import run_child

ON_THE_MACHINE = {"cores", "memory", "shared memory", "disk"}
"""Checks of what the machine has to spare; a small one that runs the tests may well lack some."""
LINE = re.compile(r"(ok|FAULT|absent) +([\w ]+?)  +(\S.*)")
Called = tuple[int, list[dict[str, str]], str]
"""Exit code, the findings of --json, stdout."""


def findings_of(out: str) -> list[dict[str, str]]:
    """Return what ``doctor`` has printed as it writes it to --json."""
    *lines, _summary = out.splitlines()
    found: list[dict[str, str]] = []
    for line in lines:
        if line.startswith("        -> "):
            found[-1]["remedy"] = line.removeprefix("        -> ")
        else:
            match = LINE.fullmatch(line)
            assert match, line
            status, check, text = match.groups()
            found.append({"check": check, "status": status.lower(), "found": text, "remedy": ""})
    return found


@pytest.fixture(scope="module")
def call_really(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Called]:
    """Run ``python -m bench doctor`` without weights in the hub's cache; return exit code, findings and stdout."""

    def start(*arguments: str, **variables: str) -> Called:
        folder = tmp_path_factory.mktemp("doctor")
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "doctor", "--json", str(folder / "found.json"), *arguments],
            env={**os.environ, "HF_HOME": str(folder), "HF_HUB_CACHE": str(folder), "COLUMNS": "80", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr == ""
        return ended.returncode, json.loads((folder / "found.json").read_text())["findings"], ended.stdout

    return start


@pytest.fixture(scope="module")
def healthy(call_really: Callable[..., Called]) -> Called:
    return call_really()


# -- the whole call --------------------------------------------------------------------------------------------------


def test_a_healthy_machine_lacks_nothing_but_the_weights(healthy: Called) -> None:
    code, findings, _ = healthy
    assert [one["check"] for one in findings] == list(CHECKS)
    assert {one["check"] for one in findings if one["status"] == "fault"} - ON_THE_MACHINE == {"weights"}
    assert code == 1


def test_the_missing_weights_are_named_with_where_they_come_from(healthy: Called) -> None:
    (weights,) = [one for one in healthy[1] if one["check"] == "weights"]
    assert all(name in weights["found"] for name in TIMM_NAMES)
    assert all(part in weights["remedy"] for part in ("model.safetensors", "timm/NAME", "--weights FOLDER", "random"))


def test_json_holds_what_is_printed(healthy: Called) -> None:
    _, findings, out = healthy
    assert findings_of(out) == findings
    faults = sum(one["status"] == "fault" for one in findings)
    assert out.splitlines()[-1] == f"{len(findings)} checks, {faults} at fault"


def test_broken_libraries_are_named_and_all_else_is_still_examined(
    call_really: Callable[..., Called], tmp_path: Path
) -> None:
    write_module(tmp_path, "torch", "raise ImportError('libcudart.so.99: cannot open shared object file')")
    write_module(tmp_path, "nvidia.dali", "import os, sys\nsys.stderr.write('no [bold]luck\\n')\nos.abort()")
    write_module(tmp_path, "onnxruntime", "raise ImportError('libonnx.so: cannot open shared object file')")
    code, findings, out = call_really("--weights", "random", PYTHONPATH=str(tmp_path))
    found = {one["check"]: one for one in findings}
    assert code == 1
    assert findings_of(out) == findings
    for name in ("torch", "torchvision", "GPU", "TF32"):
        assert found[name]["status"] == "fault"
        assert "libcudart.so.99" in found[name]["found"]
    assert "pip install" in found["torch"]["remedy"]
    if GPU_PLATFORM:
        assert found["DALI"]["status"] == "fault"
        assert found["DALI"]["found"] == "crashed with SIGABRT: no [bold]luck"
    assert "libonnx.so" in found["onnxruntime CPU"]["found"]
    assert {found[name]["status"] for name in ("packages", "weights", "onnxruntime packages")} == {"ok"}


def test_no_fault_is_exit_code_0(call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.doctor, "CHECKS", {"this": (lambda _: Answer("ok", "[red]well"), "")})
    assert call("doctor") == (0, "ok      this  [red]well\n1 checks, 0 at fault\n", "")


def test_a_json_file_that_cannot_be_written_is_said(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench.doctor, "CHECKS", {})
    line = refusal("doctor", "--json", tmp_path / "nowhere" / "found.json")
    assert f"can't write {tmp_path}/nowhere/found.json" in line


# -- checks and probes that fail themselves --------------------------------------------------------------------------


def test_a_check_that_raises_is_a_fault_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = {"bad": (lambda _: 1 // 0, "mend it"), "good": (lambda _: Answer("ok", "well"), "")}
    monkeypatch.setattr(bench.doctor, "CHECKS", checks)
    bad, good = examine(tmp_path, "random")
    assert (bad.check, bad.status, bad.remedy) == ("bad", "fault", "mend it")
    assert bad.found == "the check itself failed: ZeroDivisionError: integer division or modulo by zero"
    assert good.status == "ok"


def test_a_probe_that_hangs_is_cut_off_with_what_it_has_started(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_another = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    write_module(tmp_path, "triton", f"import subprocess, time\n{start_another}\ntime.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bench.doctor_probes, "LIMIT_S", 1.5)
    start = time.monotonic()
    found = judge("Triton")
    assert time.monotonic() - start < 10
    assert (found.status, found.found) == ("fault", "hung: no answer within 1.5 s")
    grandchild = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_what_a_child_told_before_it_crashed_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, "triton", "import os\nos._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, ended = run_child({"disk": [str(tmp_path)], "triton": []})
    assert set(told) == {"disk"}
    assert ended == "ended with exit code 7"


def test_what_libraries_print_is_kept_from_the_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_module(tmp_path, "triton", "import os\nprint('noise')\nos.system('echo noise')\n__version__ = '1'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, _ = run_child({"triton": []})
    assert set(told) == {"triton"}


# -- packages --------------------------------------------------------------------------------------------------------


def test_a_package_that_is_too_old_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "timm", "0.4.12")))
    found = judge("packages")
    assert (found.status, found.found) == ("fault", "timm 0.4.12")
    assert found.remedy == "pip install --upgrade 'timm>=1.0.20'"


@needs_gpu_packages
def test_a_missing_package_of_an_extra_is_named(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    extra = ["Provides-Extra: cuda", 'Requires-Dist: nvidia-nowhere~=10.0; extra == "cuda"']
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path, "onnxruntime-gpu", "1.99", *extra, module="onnxruntime")))
    found = judge("packages")
    assert (found.status, found.found) == ("fault", "nvidia-nowhere missing")
