"""The judge of the campaign can fail: it tells a crash, a file elsewhere and a program started from an answer."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fusion.errors import UserError
from fusion.images import UnreadableImageError
from tests.fuzz.judge import _outcome, _watch, fingerprint


def _refuse() -> None:
    raise UserError("no")


def _two_lines() -> None:
    raise UnreadableImageError("no\nno")  # a UserError has no second line


def test_the_audit_hook_sees_files_elsewhere_and_programs(tmp_path: Path) -> None:
    inside, seen = tmp_path / "inside", list[str]()
    for event, arguments, bad in (
        ("open", (inside / "a", "w", os.O_WRONLY | os.O_CREAT), False),
        ("open", (tmp_path / "a", "r", os.O_RDONLY), False),
        ("open", (tmp_path / "a", "w", os.O_WRONLY | os.O_CREAT), True),
        ("open", (inside / ".." / "a", "w", os.O_WRONLY | os.O_CREAT), True),
        ("os.mkdir", (inside / "b", 0o777, -1), False),
        ("os.remove", (tmp_path / "b", -1), True),
        ("os.truncate", (tmp_path / "b", 0), True),
        ("os.truncate", (3, 0), False),
        ("subprocess.Popen", ("touch", ["touch"], None, None), True),
        ("pickle.find_class", ("os", "system"), True),
    ):
        seen.clear()
        _watch(event, arguments, [inside], seen)
        assert bool(seen) == bad, (event, arguments)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [(_refuse, "refused"), (_two_lines, "crash"), (lambda: 1 // 0, "crash"), (lambda: 1, "read")],
)
def test_only_a_named_error_of_one_line_is_a_refusal(read: object, outcome: str) -> None:
    assert _outcome(read)[0] == outcome  # type: ignore[arg-type]


def test_what_is_read_is_told_apart() -> None:
    values = [
        *(1, 1.0, "1", None, [], [1], {"a": 1}, {"b": 1}, Path("a"), np.zeros(2), np.zeros(2, np.float32)),
        *(np.zeros((2, 1)), np.array([0.0, 1.0]), pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(np.zeros(2)) == fingerprint(np.zeros(2))
