"""Inputs made by hand for each reader: bombs, loops, code that would like to run, and things that are no files."""

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.fuzz.seeds_images import grey
from tests.fuzz.seeds_runs import SIZE, small_onnx

BIG = 65535


class Payload:
    """Unpickled, it would start a program, which an audit hook would see."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """Return a grey PNG; ``pixels`` are its compressed lines."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), *more, _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _jpeg_of_scans(count: int) -> bytes:
    """Return a progressive JPEG of 4000 x 4000 pixels whose last scan comes ``count`` times."""
    content = _saved(Image.new("L", (4000, 4000), 9), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * count + content[-2:]


def _jpeg_of_segments() -> bytes:
    content = _saved(Image.fromarray(grey()), "JPEG")
    return content[:2] + b"\xff\xe9\x00\x02" * 500_000 + content[2:]


def _jpeg_giant() -> bytes:
    content = bytearray(_saved(Image.fromarray(grey()), "JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", BIG, BIG)
    return bytes(content)


def _tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + fields + struct.pack("<I", following) + bytes(64)


def _tiff_tile() -> bytes:
    sizes = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1))
    return _tiff(*sizes, (322, 4, 1, BIG * 16), (323, 4, 1, BIG * 16), (324, 4, 1, 8), (325, 4, 1, 64))


def _element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def mat(*variables: bytes) -> bytes:
    """Return a .mat file of compressed variables."""
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")
    return header + b"".join(struct.pack("<II", 15, len(one)) + one for one in variables)


def numbers(count: int) -> bytes:
    """Return a compressed variable of ``count`` numbers of eight bytes, stored as one byte each."""
    parts = _element(6, struct.pack("<II", 6, 0)) + _element(5, struct.pack("<ii", count, 1)) + _element(1, b"x")
    squeeze = zlib.compressobj(1)
    size = len(parts) + 8 + count
    content = squeeze.compress(struct.pack("<II", 14, size) + parts + struct.pack("<II", 2, count))
    return content + b"".join(squeeze.compress(bytes(2**20)) for _ in range(count // 2**20)) + squeeze.flush()


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def _objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def parquet_bomb() -> bytes:
    """Return predictions of half a million rows, each of which names the same image of a megabyte of letters."""
    stream, rows = io.BytesIO(), 500_000
    frame = pd.DataFrame({"image_id": pd.Categorical.from_codes(np.zeros(rows, np.int8), ["x" * 2**20]), "copy": 0})
    frame = frame.assign(source="rsna", modality="mammography", group_id="g", label=0, probability=0.5, decision=1)
    frame.to_parquet(stream, index=False)
    return stream.getvalue()


NUMBERS = {
    "giant": np.array([2**20, 2**14]),
    "trips": np.array(2**62),
    "go": np.array(True),
    "pads": np.array([0, 2**33]),
    "size": np.array(2**36),
    "factor": np.array([2.0**30], dtype=np.float32),
    "kernel": np.ones((1, 1, 3, 3), dtype=np.float32),
}


def with_node(kind: str, inputs: list[str], outputs: list[str], /, **attributes: object) -> Callable[[], bytes]:
    """Return a model with one more operator, whose answer its own is added to."""

    def content() -> bytes:
        model = small_onnx(SIZE)
        for name, value in NUMBERS.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        del model.graph.node[-1]
        model.graph.node.append(helper.make_node(kind, inputs, outputs, **attributes))
        model.graph.node.append(helper.make_node("ReduceMax", [outputs[-1]], ["extra"], keepdims=0))
        model.graph.node.append(helper.make_node("Add", ["mean", "extra"], ["sum"]))
        model.graph.node.append(helper.make_node("Div", ["sum", "scale"], ["probability"]))
        return model.SerializeToString()

    return content


def endless_loop() -> onnx.GraphProto:
    """Return a body that does nothing and asks to go on."""
    number, flag = (lambda n: helper.make_tensor_value_info(n, TensorProto.INT64, [])), TensorProto.BOOL
    go, gone = (helper.make_tensor_value_info(name, flag, []) for name in ("go_in", "go_out"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b"]) for name in ("v_in", "v_out")]
    nodes = [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])]
    return helper.make_graph(nodes, "body", [number("i"), go, value[0]], [gone, value[1]])


ONE_LINE = zlib.compress(bytes(100_001))
NASTIES: dict[str, dict[str, Callable[[], bytes]]] = {
    "PNG": {
        "65535 x 65535": lambda: png(BIG, BIG, ONE_LINE),
        "0 x 0": lambda: png(0, 0, ONE_LINE),
        "100000 x 1": lambda: png(100_000, 1, ONE_LINE),
        "64 million pixels": lambda: png(8000, 8000, zlib.compress(bytes(8000 * 8001), 1)),
        "bomb of text": lambda: png(8, 8, ONE_LINE, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24), 1))),
        "bomb of a profile": lambda: png(8, 8, ONE_LINE, _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24), 1))),
        "200000 chunks": lambda: png(8, 8, zlib.compress(bytes(72)), _chunk(b"vpAg", b"") * 200_000),
        "a GIF": lambda: _saved(Image.fromarray(grey()), "GIF"),
    },
    "JPEG": {
        "65535 x 65535": _jpeg_giant,
        "20000 scans": lambda: _jpeg_of_scans(20_000),
        "500000 segments": _jpeg_of_segments,
    },
    "TIFF": {
        "loop of pages": lambda: _tiff((256, 4, 1, 8), following=8),
        "giant tile": _tiff_tile,
        "4 billion pixels": lambda: _tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1)),
    },
    "PGM": {
        "giant": lambda: b"P5 999999999 999999999 255\n",
        "0 x 0": lambda: b"P5 0 0 255\n",
        "endless number": lambda: b"P2 1 1 255 " + b"1" * 10**7,
        "9 million numbers as text": lambda: b"P2 3000 3000 255 " + b"0 " * 9_000_000,
        "comment without end": lambda: b"P5 #" + b"x" * 10**7,
        "not a number": lambda: b"Pf 1 1 nan\n" + bytes(4),
    },
    "OASBUD": {
        "2 GiB of numbers": lambda: mat(numbers(300 * 2**20)),
        "3 GiB in parts": lambda: mat(*[numbers(2**27)] * 3),
        "HDF5": lambda: b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n",
    },
    "folder": {
        "out of the root": lambda: b"path,label\n../0.png,benign\n/etc/passwd.png,benign\n",
        "quote without end": lambda: b'path,label\n"' + b"x" * 10**7,
        "a million columns": lambda: b"path,label" + b",a" * 10**6 + b"\n",
    },
    "matrix": {
        "a billion cells": lambda: _matrix(range(1, 1_500)),
        "deep": lambda: b"a = " + b"[" * 16_000,
        "endless number": lambda: b"seeds = [" + b"9" * 16_000 + b"]",
        "dotted": lambda: b".".join([b"a"] * 8_000) + b" = 1",
    },
    "prepared": {
        "images_u8.npy: code": _objects,
        "images_u8.npy: deep": lambda: _npy("(" * 9000),
        "images_u8.npy: giant": lambda: _npy(
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62}, 1, 16, 16)}}\n"
        ),
        "manifest.json: endless number": lambda: b'{"format": ' + b"9" * 10**5 + b"}",
        "manifest.json: deep": lambda: b"[" * 10**6,
    },
    "run.json": {"endless number": lambda: b'{"a": ' + b"9" * 10**5 + b"}", "deep": lambda: b"[" * 10**6},
    "measurements": {"environment.json: endless number": lambda: b'{"a": ' + b"9" * 10**5 + b"}"},
    "predictions": {"half a terabyte": parquet_bomb},
    "cell, trained": {
        "model.safetensors: code": lambda: pickle.dumps(Payload()),
        "model.safetensors: giant header": lambda: struct.pack("<Q", 2**63) + b"{}",
        "model.safetensors: deep": lambda: struct.pack("<Q", 50_000) + b"[" * 50_000,
    },
    "weights": {"code": lambda: pickle.dumps(Payload()), "giant header": lambda: struct.pack("<Q", 2**40) + b"{}"},
    "ONNX": {
        "code": lambda: pickle.dumps(Payload()),
        "endless loop": with_node("Loop", ["trips", "go", "mean"], ["looped"], body=endless_loop()),
        "64 GiB": with_node("ConstantOfShape", ["giant"], ["filled"]),
        "64 GiB, expanded": with_node("Expand", ["scale", "giant"], ["filled"]),
        "32 GiB, padded": with_node("Pad", ["mean", "pads"], ["padded"]),
        "4 GiB, resized": with_node("Resize", ["mean", "", "factor"], ["resized"], mode="nearest"),
        "256 GiB, a window": with_node("HannWindow", ["size"], ["window"]),
        "4 TiB, pads of a convolution": with_node("Conv", ["grey", "kernel"], ["padded"], pads=[2**19] * 4),
        "window of 2^62": with_node("AveragePool", ["grey"], ["p"], kernel_shape=[2**31] * 2, auto_pad="SAME_UPPER"),
        "from outside": with_node("Evil", ["mean"], ["done"], domain="evil.example"),
        "random": with_node("RandomUniform", [], ["noise"], shape=[2**20, 2**14]),
    },
}
"""Reader -> what it is -> the bytes of its first file, or of the one that is named before a colon."""


def _matrix(values: range) -> bytes:
    numbers = ", ".join(map(str, values)).encode()
    text = (
        b'name="a"\nweights="random"\nprotocols=["paper"]\nseeds=[0]\n[model3]\noptimizer="sgdm"\nlearning_rate=0.1\n'
    )
    return text + b"patience=5\nepochs=[" + numbers + b"]\nbatch_sizes=[" + numbers + b"]\n"


def _link(path: Path, target: str | Path) -> None:
    path.symlink_to(target)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link in a circle": lambda path: _link(path, path),
    "a link to nothing": lambda path: _link(path, "nothing"),
    "an endless device": lambda path: _link(path, "/dev/zero"),
    "nothing": lambda _: None,
}
"""What may lie where a file should; the path is free."""
