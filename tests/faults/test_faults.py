"""The campaign's short form: one fault of most kinds."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from .kinds import KINDS
from .processes import ROOT

LIMIT_S = 900
"""Only to end a campaign that hangs."""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of the faults of each kind; they are made together, as one import serves them all."""
    folder = tmp_path_factory.mktemp("faults")
    command = [sys.executable, "-m", "tests.faults.campaign", "--short", "--json", "lines.json", "--folder", "."]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    found = folder / "lines.json"
    assert found.exists(), ended.stdout + ended.stderr
    return {line["kind"]: line for line in json.loads(found.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("kind", [kind for kind, row in KINDS.items() if row.short])
def test_nothing_is_lost(kind: str, lines: dict[str, dict[str, Any]]) -> None:
    line = lines[kind]
    if line["skipped"]:
        pytest.skip(line["skipped"])
    assert line["trials"]
    assert line["problems"] == []
    assert all(trial["lost"] == 0 and trial["equal"] for trial in line["trials"])
