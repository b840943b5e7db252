"""MATLAB v5 to v7 files, the part that OASBUD needs, read from bytes that may be damaged or hostile.

``scipy.io.loadmat`` is not meant for that, as its documentation says: type codes are not range-checked, and a damaged
file can end the process with a segmentation fault. Format: MathWorks, "MAT-File Format", Level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.errors import UserError
from fusion.files import regular

MAX_FILE_BYTES = 2**30
MAX_INFLATED_BYTES = 2**31
"""Of all variables together, as stored and as numbers: eight bytes may be stored as one."""
MAX_ENTRIES = 10_000

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4
_COMPLEX = 0x800

Value = NDArray[np.number] | str | None
"""A number array, text, or None for what is not read (cells, complex or sparse numbers, objects, nested structs)."""


@dataclass(frozen=True)
class Struct:
    """A struct array, flattened in column order."""

    fields: tuple[str, ...]
    entries: list[dict[str, Value]]


class _DamagedError(Exception):
    """The bytes do not follow the format."""


def read_mat(path: Path) -> dict[str, Struct | Value]:
    """Return the variables of a .mat file by name; number arrays have MATLAB's shape and may be read-only.

    Raises:
        UserError: the file cannot be read, is not v5-v7, is HDF5 (v7.3), too large, truncated or damaged.
    """
    try:
        content = regular(path, MAX_FILE_BYTES).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; expected a .mat file") from None
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")) or content[512:516] == b"\x89HDF":
        raise UserError(f"{path} is a MATLAB v7.3 (HDF5) file; re-save it with save -v7")
    if not content.startswith(b"MATLAB 5.0"):
        raise UserError(f"{path} is not a MATLAB v5-v7 .mat file")
    variables: dict[str, Struct | Value] = {}
    try:
        order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
        if order is None:
            raise _DamagedError("no byte order mark in the header")
        memory = _Memory(MAX_INFLATED_BYTES)
        for kind, body in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                kind, body = _only(_elements(_inflate(body, memory), order))
            if kind == _MATRIX:
                name, value = _variable(body, order, memory, nested=False)
                variables[name] = value
    except (_DamagedError, zlib.error, struct.error, ValueError, MemoryError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); download it again") from None
    return variables


def _elements(view: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type code and bytes of each element; every element lies inside ``view``."""
    at = 0
    while at < len(view):
        kind, size = struct.unpack_from(f"{order}II", view, at)
        if kind >> 16:  # up to four bytes, packed into the tag itself
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if size > 4:
                raise _DamagedError(f"a small element of {size} bytes")
        else:
            start, step = at + 8, 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(view):
            raise _DamagedError(f"an element of {size} bytes where {len(view) - start} are left")
        yield kind, view[start : start + size]
        at += step


def _only(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(elements, None)
    if found is None:
        raise _DamagedError("an element is missing")
    return found


class _Memory:
    """What the variables of a file may still take."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> None:
        if size > self.left:
            raise _DamagedError(f"its variables take more than {MAX_INFLATED_BYTES} bytes")
        self.left -= size


def _inflate(body: memoryview, memory: _Memory) -> memoryview:
    stream = zlib.decompressobj()
    content = stream.decompress(body, memory.left + 1)
    memory.take(len(content))
    if not stream.eof:  # also where the checksum has not been reached
        raise _DamagedError("compressed data incomplete")
    return memoryview(content)


def _variable(view: memoryview, order: str, memory: _Memory, *, nested: bool) -> tuple[str, Struct | Value]:
    if len(view) == 0:
        return "", np.zeros((0, 0))
    parts = _elements(view, order)
    flags = struct.unpack_from(f"{order}I", _only(parts)[1])[0]
    kind = flags & 0xFF
    if kind not in (_STRUCT, _CHAR, *_NUMERIC) or flags & _COMPLEX:
        return _skipped_name(parts), None
    shape = tuple(np.frombuffer(_only(parts)[1], f"{order}i4").tolist())
    if len(shape) < 2 or min(shape) < 0:
        raise _DamagedError(f"an array of shape {shape[:8]}")
    name = _text(_only(parts)[1])
    if kind == _STRUCT:
        return name, None if nested else _struct(parts, order, memory, math.prod(shape))
    stored, data = _only(parts) if math.prod(shape) else (2, memoryview(b""))
    if kind == _CHAR:
        if stored not in _TEXT:
            raise _DamagedError(f"text stored as type {stored}")
        encoding = _TEXT[stored] + ("" if stored in (1, 2, 16) else "-le" if order == "<" else "-be")
        return name, str(data, encoding, errors="replace")
    if stored not in _STORED:
        raise _DamagedError(f"numbers stored as type {stored}")
    values = np.frombuffer(data, order + _STORED[stored])
    if values.size != math.prod(shape):
        raise _DamagedError(f"{values.size} numbers for an array of shape {shape[:8]}")
    memory.take(values.size * np.dtype(_NUMERIC[kind]).itemsize)
    with np.errstate(all="ignore"):
        return name, values.astype(_NUMERIC[kind], copy=False).reshape(shape, order="F")


def _skipped_name(parts: Iterator[tuple[int, memoryview]]) -> str:
    """Return the name of a variable that is not read: the first element of type int8 or UTF-8."""
    return next((_text(body) for kind, body in parts if kind in (1, 16)), "")


def _struct(parts: Iterator[tuple[int, memoryview]], order: str, memory: _Memory, count: int) -> Struct:
    width = struct.unpack_from(f"{order}i", _only(parts)[1])[0]
    names = bytes(_only(parts)[1])
    if width <= 0 or len(names) % width:
        raise _DamagedError(f"field names of {width} letters in {len(names)} bytes")
    fields = tuple(_text(memoryview(names)[at : at + width]) for at in range(0, len(names), width))
    if count > MAX_ENTRIES:
        raise _DamagedError(f"a struct array of {count} entries; the limit is {MAX_ENTRIES}")
    entries: list[dict[str, Value]] = []
    for _ in range(count):
        entry: dict[str, Value] = {}
        for field in fields:
            kind, body = _only(parts)
            if kind != _MATRIX:
                raise _DamagedError(f"field {field[:40]!r} is of type {kind}, not a matrix")
            value = _variable(body, order, memory, nested=True)[1]
            entry[field] = None if isinstance(value, Struct) else value
        entries.append(entry)
    return Struct(fields, entries)


def _text(body: memoryview) -> str:
    return bytes(body).split(b"\0")[0].decode("latin-1")
