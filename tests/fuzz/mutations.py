"""Ways to damage a file, each a function of its bytes and a random generator; a table for bytes and one for texts."""

import random
import re
import struct
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
NUMBERS = (
    *("NaN", "nan", "inf", "-inf", "Infinity", "-Infinity", "1e400", "-1e400", "-0", "-1", "2", "0.5", "1e-400"),
    *("9007199254740993", "9" * 30, "9" * 5000, "0x10", "1_000", "١", "1e5", "true", "null", '""', "[]", "{}"),
)
TEXTS = (
    *('"', '""', "'", ",", ";", "\n", "\r", "\r\n", "\0", "\t", "\\", "\\ud800", "\x1b[2J", "\x1b]0;x\x07", "\u202e"),
    *("=1+1", "=cmd|'/c calc'!A1", "@SUM(1)", "＝1", "../../../etc/passwd", "/etc/passwd", "C:\\x", "~", "{{ 7 * 7 }}"),
    *(
        "<script>alert(1)</script>",
        "{",
        "}",
        "[",
        "]",
        "#",
        "\ufeff",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ),
    *("a" * 70_000, "[" * 3000, '{"a":' * 3000, "é", "\x85", "\u2028"),
)


def flip_bit(content: bytes, draw: random.Random) -> bytes:
    """Turn one bit."""
    place = draw.randrange(len(content))
    return _put(content, place, bytes([content[place] ^ 1 << draw.randrange(8)]))


def flip_bits(content: bytes, draw: random.Random) -> bytes:
    """Turn up to 32 bits."""
    for _ in range(draw.randint(2, 32)):
        content = flip_bit(content, draw)
    return content


def truncate(content: bytes, draw: random.Random) -> bytes:
    """Cut the end off; more often near either end than in the middle."""
    return content[
        : draw.choice((draw.randrange(len(content)), draw.randrange(min(64, len(content))), -draw.randint(1, 8)))
    ]


def extend(content: bytes, draw: random.Random) -> bytes:
    """Append noise, blanks, zeros or the file itself."""
    return content + draw.choice((draw.randbytes(40), b" " * 9, bytes(4096), b"\n", content))


def splice(content: bytes, draw: random.Random) -> bytes:
    """Put a piece of the file over another place of it."""
    start, size = draw.randrange(len(content)), draw.randint(1, 64)
    return _put(content, draw.randrange(len(content)), content[start : start + size])


def duplicate_block(content: bytes, draw: random.Random) -> bytes:
    """Insert a piece of the file once more."""
    start, size = draw.randrange(len(content)), draw.choice((1, 4, 16, 256, 4096))
    return content[:start] + content[start : start + size] + content[start:]


def delete_block(content: bytes, draw: random.Random) -> bytes:
    """Leave a piece out."""
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.choice((1, 2, 4, 16, 256)) :]


def zero_block(content: bytes, draw: random.Random) -> bytes:
    """Write zeros over a piece, as a lost sector does."""
    return _put(content, draw.randrange(len(content)), bytes(draw.choice((1, 4, 16, 512))))


def change_length(content: bytes, draw: random.Random) -> bytes:
    """Put an extreme number in the place of a field of 1 to 8 bytes, most often near the start, where headers are."""
    size, order = draw.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q"))), draw.choice("<>")
    near = draw.choice((64, 256, len(content)))
    value = draw.choice(EXTREMES) & (1 << 8 * size[0]) - 1
    return _put(content, draw.randrange(min(near, len(content))), struct.pack(order + size[1], value))


def nudge_length(content: bytes, draw: random.Random) -> bytes:
    """Make a byte a little larger or smaller."""
    place = draw.randrange(len(content))
    return _put(content, place, bytes([(content[place] + draw.choice((-2, -1, 1, 2))) % 256]))


def recode(content: bytes, draw: random.Random) -> bytes:
    """Write the text in another encoding, or with a byte order mark."""
    text = content.decode("utf-8", "replace")
    encoding = draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252"))
    return text.encode(encoding, "replace")


def change_number(content: bytes, draw: random.Random) -> bytes:
    """Put a number that can't be in the place of one."""
    return _replace(content, rb"-?\d+(\.\d+)?(e-?\d+)?", draw.choice(NUMBERS), draw)


def change_text(content: bytes, draw: random.Random) -> bytes:
    """Put a hostile text in the place of a word, or into it."""
    found = _replace(content, rb"[A-Za-z_]{2,}", draw.choice(TEXTS), draw)
    return found if draw.random() < 0.5 else insert_text(content, draw)


def insert_text(content: bytes, draw: random.Random) -> bytes:
    """Insert a hostile text anywhere."""
    place = draw.randrange(len(content) + 1)
    return content[:place] + _bytes(draw.choice(TEXTS)) + content[place:]


def swap_lines(content: bytes, draw: random.Random) -> bytes:
    """Change the order of two lines, double one, or leave one out."""
    lines = content.splitlines(keepends=True)
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(3)
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(other, lines[one])
    else:
        del lines[one]
    return b"".join(lines)


def empty(_content: bytes, _draw: random.Random) -> bytes:
    """Leave nothing."""
    return b""


BINARY: tuple[Mutation, ...] = (
    *(flip_bit, flip_bit, flip_bits, truncate, extend, splice, duplicate_block, delete_block, zero_block),
    *(change_length, change_length, nudge_length, empty),
)
TEXT: tuple[Mutation, ...] = (
    *(flip_bit, truncate, extend, splice, duplicate_block, delete_block, zero_block, recode, change_number),
    *(change_number, change_text, insert_text, swap_lines, empty),
)


def _put(content: bytes, place: int, piece: bytes) -> bytes:
    return content[:place] + piece[: len(content) - place] + content[place + len(piece) :]


def _replace(content: bytes, pattern: bytes, by: str, draw: random.Random) -> bytes:
    places = list(re.finditer(pattern, content))
    if not places:
        return insert_text(content, draw)
    place = draw.choice(places)
    return content[: place.start()] + _bytes(by) + content[place.end() :]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
