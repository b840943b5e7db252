"""The smallest model that keeps all promises of an exported file."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.onnx_file import INPUT, OUTPUT, classifier_metadata


def small_onnx(size: int, batch: str | int = "batch") -> onnx.ModelProto:
    """Return a model that answers the mean grey value by 255, of images of ``size`` x ``size`` pixels."""
    scale = numpy_helper.from_array(np.array([255.0], dtype=np.float32), "scale")
    axes = numpy_helper.from_array(np.array([1, 2, 3], dtype=np.int64), "axes")
    nodes = [
        helper.make_node("Cast", [INPUT], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["grey", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "scale"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, 1, size, size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch])],
        [scale, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    facts = classifier_metadata("cnn17", size, "fp32")
    helper.set_model_props(model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()})
    return model
