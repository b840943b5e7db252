"""Texts from outside made safe where they are shown: on a terminal, in a spreadsheet."""

import re
import unicodedata

_ESCAPE_SEQUENCES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]")
_FORMULA = re.compile(r"[\t\r\n\0]|\s*[=+\-@|%＝＋－＠]")
"""How a text begins that a spreadsheet may run (OWASP, "CSV Injection"); some trim blanks or narrow signs first."""


def one_line(text: str, length: int | None = None) -> str:
    """Return ``text`` on one line, without terminal escapes and control characters, cut to ``length`` characters."""
    bare = _ESCAPE_SEQUENCES.sub("", text)
    # the categories C* are control, format (also those that turn the writing direction), surrogate and unassigned
    line = " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in bare).split())
    return line if length is None or len(line) <= length else line[: length - 1].rstrip() + "…"


def no_formula(value: object) -> object:
    """Return ``value``; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
