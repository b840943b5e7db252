"""What an exported file promises, and whether a file that is given keeps it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fusion.catalog import LABEL_NAMES
from fusion.errors import UserError
from fusion.models import MODELS, normalisation

INPUT, OUTPUT = "images_u8", "probability"
FORMAT = "fusebench 1"
CLASSES = list(LABEL_NAMES.values())
MAX_FILE_BYTES = 2 * 2**30
"""Limit of the format, protobuf."""
MAX_IMAGE_SIZE = 4096
KINDS = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
PRECISIONS = {"torch.float32": "fp32", "torch.float16": "fp16"}
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operators of ONNX and of ONNX Runtime itself; any other would have to be loaded from somewhere."""

OPERATORS = frozenset(
    (
        # Those of our own files: all of MODELS, in fp32, fp16 and int8, and the heads of Model 1, exported and counted.
        *("Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DequantizeLinear", "Div", "Exp", "Gather", "Gemm"),
        *("MatMul", "Max", "MaxPool", "Mul", "Neg", "Pow", "QuantizeLinear", "ReduceMean", "ReduceSum", "Relu"),
        *("Reshape", "Sigmoid", "Softmax", "Sub", "Unsqueeze"),
        # Other spellings of the same: of another version of the exporter, another optimizer or another quantizer.
        *("BatchNormalization", "Constant", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
        *("LayerNormalization", "InstanceNormalization", "LogSoftmax", "ReduceMax", "ReduceMin", "Shape", "Slice"),
        *("Split", "Squeeze", "Sum", "Transpose"),
        *("Abs", "Erf", "Log", "Mean", "Min", "Reciprocal", "Sqrt", "Tanh"),
        *("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Softplus", "Softsign"),
        *("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
        *("QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu"),
        *("QLinearMul", "QLinearSigmoid", "QLinearSoftmax"),
    )
)
"""Operators whose arrays are bounded by their inputs, and do not go on or grow by a number in the file."""
WINDOWS = ("kernel_shape", "pads")
MAX_WINDOW, MAX_WINDOW_NUMBERS = 128, 4
"""Of a convolution or pooling, in pixels; and how many such numbers it has: two for each of two sides. Pads make arrays
larger, and an average goes over its whole window, also where there is no image."""


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An exported classifier whose promises have been checked."""

    path: Path
    network: str
    image_size: int
    """S: it takes [batch, 1, S, S] uint8."""
    precision: str
    """fp32, fp16 or int8."""
    facts: dict[str, str]
    """All of its metadata."""


def classifier_metadata(network: str, image_size: int, precision: str) -> dict[str, Any]:
    """Return what every exported file says of itself.

    Args:
        network: a key of ``fusion.models.MODELS``.
        image_size: S, side of its images in pixels.
        precision: of the network inside.
    """
    return {
        "format": FORMAT,
        "network": network,
        "input": "uint8 grey [batch, 1, S, S], decoded and resized by fusebench",
        "output": "probability of malignancy",
        "classes": CLASSES,
        "image_size": image_size,
        "preprocessing": preprocessing(network),
        "precision": PRECISIONS.get(precision, precision),
    }


def preprocessing(network: str) -> dict[str, Any]:
    """Return how a file's grey values become what its network takes."""
    mean, std = normalisation(network)
    return {"inside": "grey / 255, minus mean, by std", "mean": list(mean), "std": list(std)}


def read_onnx(path: Path) -> OnnxFile:
    """Return the checked promises of an exported file; no code of it is run and no other file is opened.

    Raises:
        UserError: the file can't be read, is not a whole ONNX model, or breaks one of the promises.
    """
    model = _parse(path)
    _require_self_contained(model, path)
    facts = {one.key: one.value for one in model.metadata_props}
    if facts.get("format") != FORMAT:
        raise UserError(f"{path}: its metadata do not say {FORMAT!r}: it was not exported by this version of fusebench")
    network = facts.get("network", "")
    if network not in MODELS:
        raise UserError(f"{path}: its network {network[:40]!r} is unknown; known are {', '.join(MODELS)}")
    size = _image_size(model, path)
    if facts.get("image_size") != str(size):
        raise UserError(f"{path}: takes images of {size} px, but says {facts.get('image_size', '')[:40]!r} of itself")
    if facts.get("preprocessing") != json.dumps(preprocessing(network)):
        raise UserError(
            f"{path}: its preprocessing ({facts.get('preprocessing', 'not stated')[:200]}) is not that of {network}, "
            f"{json.dumps(preprocessing(network))}"
        )
    if facts.get("classes") != json.dumps(CLASSES):
        raise UserError(f"{path}: its classes are {facts.get('classes', 'not stated')[:80]}, not {json.dumps(CLASSES)}")
    return OnnxFile(path=path, network=network, image_size=size, precision=facts.get("precision", "")[:10], facts=facts)


def require_size(file: OnnxFile, image_size: int) -> None:
    """Check that a file takes images of ``image_size`` pixels.

    Raises:
        UserError: it takes others.
    """
    if file.image_size != image_size:
        raise UserError(f"{file.path}: takes images of {file.image_size} px, the images have {image_size}")


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path}: is larger than 2 GiB, which no ONNX file can be")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except Exception as error:  # of protobuf, which names no class that onnx would pass on
        raise UserError(f"{path}: is not an ONNX file, or is damaged ({' '.join(str(error).split())[:80]})") from None
    if not model.graph.node:
        raise UserError(f"{path}: is not an ONNX file, or is damaged (no operator in it)")
    return model


def _require_self_contained(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            where = next((one.value for one in tensor.external_data if one.key == "location"), "")
            try:
                there = "which may be any" if (path.parent / where).is_file() else "which is not there"
            except (OSError, ValueError):  # no name of a file
                there = "which is not there"
            raise UserError(
                f"{path}: keeps its weights in another file, {where[:80]!r}, {there}; a file of fusebench has its "
                "weights inside"
            )
    if any(graph.sparse_initializer for graph in _graphs(model.graph)) or any(
        one.HasField("sparse_tensor") or one.sparse_tensors for node in _nodes(model.graph) for one in node.attribute
    ):
        raise UserError(f"{path}: has sparse weights, which no file of fusebench has")
    for node in _nodes(model.graph):
        if node.domain not in DOMAINS:
            raise UserError(f"{path}: has an operator from outside, {node.domain[:40]}.{node.op_type[:40]}")
        _require_bounded(node, path)
    if model.functions:
        raise UserError(f"{path}: defines operators of its own, which no file of fusebench does")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's own, or what comes of a message that is no text
        raise UserError(f"{path}: is damaged ({' '.join(str(error).split())[:120]})") from None


def _require_bounded(node: onnx.NodeProto, path: Path) -> None:
    if node.op_type not in OPERATORS:
        raise UserError(
            f"{path}: has an operator {node.op_type[:40]!r}; allowed are those of a CNN whose arrays are bounded by "
            "their inputs"
        )
    for one in node.attribute:
        numbers = list(one.ints) if one.name in WINDOWS else []
        if len(numbers) > MAX_WINDOW_NUMBERS or not all(0 <= number <= MAX_WINDOW for number in numbers):
            raise UserError(
                f"{path}: its operator {node.op_type} has {one.name} {str(numbers[:8])[:80]}; allowed are "
                f"{MAX_WINDOW_NUMBERS} numbers from 0 to {MAX_WINDOW}"
            )


def _image_size(model: onnx.ModelProto, path: Path) -> int:
    graph = model.graph
    fixed = {one.name for one in graph.initializer}
    inputs, outputs = [one for one in graph.input if one.name not in fixed], list(graph.output)
    if [one.name for one in inputs] != [INPUT] or [one.name for one in outputs] != [OUTPUT]:
        names = ", ".join(one.name[:40] for one in (*inputs, *outputs))
        raise UserError(f"{path}: takes and gives {names}; a file of fusebench takes {INPUT} and gives {OUTPUT}")
    taken = inputs[0].type.tensor_type
    if taken.elem_type != onnx.TensorProto.UINT8:
        kind = KINDS.get(taken.elem_type, "unknown")
        raise UserError(f"{path}: takes {kind} images, already normalised perhaps; a file of fusebench takes uint8")
    given = outputs[0].type.tensor_type
    if given.elem_type != onnx.TensorProto.FLOAT or len(given.shape.dim) != 1:
        raise UserError(f"{path}: does not give one float32 probability for each image")
    if len(taken.shape.dim) != 4:
        raise UserError(f"{path}: takes images of {len(taken.shape.dim)} dimensions, not [batch, 1, S, S]")
    batch, *image = taken.shape.dim
    if batch.HasField("dim_value"):
        raise UserError(f"{path}: its batch is frozen at {batch.dim_value}; a file of fusebench takes any")
    sides = [one.dim_value for one in image]
    if sides[0] != 1 or sides[1] != sides[2] or not 1 <= sides[1] <= MAX_IMAGE_SIZE:
        raise UserError(
            f"{path}: takes images of shape {sides}; a file of fusebench takes [1, S, S], S at most {MAX_IMAGE_SIZE}"
        )
    return sides[1]


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """Return a graph and all graphs inside its operators."""
    inner = [g for node in graph.node for one in node.attribute for g in ([one.g] if one.HasField("g") else one.graphs)]
    return [graph, *(one for g in inner for one in _graphs(g))]


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for one in _graphs(graph) for node in one.node]


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    attributes = [one for node in _nodes(graph) for one in node.attribute]
    return [
        *(tensor for one in _graphs(graph) for tensor in one.initializer),
        *(one.t for one in attributes if one.HasField("t")),
        *(tensor for one in attributes for tensor in one.tensors),
    ]
