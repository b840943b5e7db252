"""A file that breaks one promise of an exported one is refused, and the message names what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from small_onnx import small_onnx

from bench.onnx_file import read_onnx, require_size
from fusion.errors import UserError

SIZE = 8


def write(path: Path, change: Callable[[onnx.ModelProto], None] = lambda _: None, batch: str | int = "batch") -> Path:
    """Write a tiny file that keeps all promises, the mean grey value by 255, after ``change``."""
    model = small_onnx(SIZE, batch)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def say(key: str, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        next(one for one in model.metadata_props if one.key == key).value = value

    return change


def take_floats(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def take_colour(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


def lose_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="tiny.onnx.data")


def point_outside(model: onnx.ModelProto) -> None:
    lose_weights(model)
    model.graph.initializer[0].external_data[0].value = "../../etc/passwd"


def name_otherwise(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "logits"


def add_foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def operator(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = name

    return change


def pool(**attributes: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].output[0] = "pixels"
        model.graph.node.insert(1, helper.make_node("AveragePool", ["pixels"], ["grey"], **attributes))

    return change


def define_operator(model: onnx.ModelProto) -> None:
    model.functions.add(name="Mine", domain="", input=["a"], output=["b"])


def forget_shape(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[:]


def take_giants(model: onnx.ModelProto) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**40


def take_the_unknown(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 999


def give_doubles(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def hide_weights(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.data_location = TensorProto.EXTERNAL


def name_no_file(model: onnx.ModelProto) -> None:
    lose_weights(model)
    model.graph.initializer[0].external_data[0].value = "é" * 200


def lose_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def test_a_file_that_keeps_its_promises_is_taken(tmp_path: Path) -> None:
    file = read_onnx(write(tmp_path / "tiny.onnx"))
    assert (file.network, file.image_size, file.precision) == ("cnn17", SIZE, "fp32")
    require_size(file, SIZE)


def test_pooling_in_small_windows_is_taken(tmp_path: Path) -> None:
    read_onnx(write(tmp_path / "tiny.onnx", pool(kernel_shape=[3, 3], pads=[1, 1, 1, 1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_weights, "keeps its weights in another file, 'tiny.onnx.data', which is not there"),
        (point_outside, "keeps its weights in another file, '../../etc/passwd'"),
        (take_floats, "takes float images, already normalised perhaps; a file of fusebench takes uint8"),
        (take_colour, r"takes images of shape \[3, 8, 8\]; a file of fusebench takes \[1, S, S\]"),
        (name_otherwise, "takes and gives images_u8, logits; a file of fusebench takes images_u8 and gives"),
        (add_foreign_operator, "has an operator from outside, com.evil.Cast"),
        *(
            (operator(name), f"has an operator '{name}'; allowed are those of a CNN whose arrays are bounded")
            for name in ("ConstantOfShape", "Loop", "Pad", "Resize", "HannWindow", "ConvTranspose", "Unknown")
        ),
        (
            pool(kernel_shape=[2, 2], pads=[0, 0, 2**33, 0]),
            "has pads .*8589934592.*; allowed are 4 numbers from 0 to 128",
        ),
        (pool(kernel_shape=[2, 2], pads=[0, 0, 0, -1]), "AveragePool has pads"),
        (pool(kernel_shape=[2**31, 1]), "AveragePool has kernel_shape"),
        (pool(kernel_shape=[1] * 9), "AveragePool has kernel_shape"),
        (define_operator, "defines operators of its own"),
        (lose_input, "is damaged"),
        (forget_shape, "is damaged|takes images of 0 dimensions"),
        (take_giants, "S at most 4096"),
        (take_the_unknown, "is damaged|takes unknown images"),
        (give_doubles, "does not give one float32 probability for each image"),
        (hide_weights, "has sparse weights"),
        (name_no_file, "keeps its weights in another file"),
        (say("format", "other 1"), "its metadata do not say 'fusebench 1'"),
        (say("network", "vgg16"), "its network 'vgg16' is unknown; known are efficientnet_b0"),
        (say("image_size", "300"), "takes images of 8 px, but says '300' of itself"),
        (say("classes", '["malignant", "benign"]'), r"its classes are \[\"malignant\", \"benign\"\], not"),
        (
            say("preprocessing", json.dumps({"inside": "grey / 255", "mean": [0.5], "std": [0.5]})),
            r"its preprocessing \(.*\"mean\": \[0.5\].*\) is not that of cnn17",
        ),
    ],
)
def test_a_broken_promise_is_named(tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str) -> None:
    path = write(tmp_path / "tiny.onnx", change)
    with pytest.raises(UserError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_frozen_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its batch is frozen at 1; a file of fusebench takes any"):
        read_onnx(write(tmp_path / "tiny.onnx", batch=1))


def test_a_wrong_image_size_is_named(tmp_path: Path) -> None:
    file = read_onnx(write(tmp_path / "tiny.onnx"))
    with pytest.raises(UserError, match="takes images of 8 px, the images have 300"):
        require_size(file, 300)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x08\x07" * 50, b"\x00" * 1000])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is not an ONNX file, or is damaged"):
        read_onnx(tmp_path / "model.onnx")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.onnx").read_bytes()
    for length in range(1, len(content), 37):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        with pytest.raises(UserError):
            read_onnx(tmp_path / "cut.onnx")


def test_what_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.onnx"):
        with pytest.raises(UserError, match="there is no such file"):
            read_onnx(path)


def test_an_operator_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.onnx")
    path.write_bytes(path.read_bytes().replace(b"ReduceMean", b"\xff" * 10))
    with pytest.raises(UserError, match="has an operator b'"):
        read_onnx(path)
