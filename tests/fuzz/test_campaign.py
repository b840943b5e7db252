"""A short campaign over every reader: no crash, no hang, no file elsewhere, no code run, no damage taken in silence."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_damaged_and_hostile_files_end_in_named_errors() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.campaign", "--inputs", "52", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, total, _, last = done.stdout.splitlines()
    name, inputs, refused = (cell.strip() for cell in total.split("|")[1:4])
    assert (name, last) == ("all", "0 findings")
    assert int(inputs) > int(refused) > 200
