"""Exporting a finished cell: one ONNX file with weights, preprocessing and, for Model 1, the classifier inside.

Tracing a network takes most of an export. All cells of a network have the same body, so its graph is traced once and
each cell puts its own weights into a copy of it, and its own head behind it.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.compose
import onnx_ir as ir
import onnxscript.optimizer
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file as load_torch
from torch import nn

from bench.extract import BACKBONE, features_folder
from bench.onnx_file import INPUT, OUTPUT, classifier_metadata
from bench.store import DEFINITION, WEIGHTS, require_cell
from fusion.checksums import recording, require_intact
from fusion.errors import UserError
from fusion.files import read_json, regular
from fusion.models.classifier import Classifier, fitted_classifier, trained_classifier

OPSET = 20
FEATURES = "features"
EXAMPLE_BATCH = 2
"""Any batch but 1, which torch.export would take for a constant."""


def load_classifier(run: Path, cell: Path, image_size: int) -> Classifier:
    """Return the whole classifier of a finished cell, with its trained weights, on the CPU.

    Args:
        run: the run's folder.
        cell: the cell's folder in it.
        image_size: S, side of the run's images in pixels.

    Raises:
        UserError: the cell is not finished, or one of its files is damaged.
    """
    require_cell(cell, DEFINITION, WEIGHTS)
    defined = read_json(cell / DEFINITION, "a finished cell")
    try:
        network, head = defined["cell"]["network"], defined["cell"]["head"]
        if head is None:
            return trained_classifier(network, load_torch(regular(cell / WEIGHTS)), image_size)
        folder = features_folder(run, defined)
        require_intact(folder / BACKBONE, way_out=f"delete {folder} and {cell} to run the cell again")
        backbone = load_torch(regular(folder / BACKBONE))
        return fitted_classifier(network, backbone, head, load_numpy(regular(cell / WEIGHTS)))
    except UserError:
        raise
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{cell} can't be exported, a file is missing or damaged: {reason}") from None


class BodyGraph:
    """The traced body of one network, without weights of its own; kept for the cells of this network."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] = ()
        self.graph = b""

    def of(self, classifier: Classifier, network: str, image_size: int) -> onnx.ModelProto:
        """Return a copy of the graph of ``classifier``'s body, traced unless the one before was of the same network."""
        key = (network, str(image_size), str(classifier.body.dtype))
        if key != self.key:
            example = torch.zeros(EXAMPLE_BATCH, 1, image_size, image_size, dtype=torch.uint8)
            self.graph = _traced(classifier.body, example, INPUT, FEATURES).SerializeToString()
            self.key = key
        return onnx.load_from_string(self.graph)


def export_onnx(
    classifier: Classifier, path: Path, network: str, image_size: int, metadata: Mapping[str, Any], graph: BodyGraph
) -> None:
    """Write ``classifier`` as one self-contained ONNX file: uint8 images in, probabilities out, any batch.

    Args:
        classifier: on the CPU.
        path: file to write, through a temporary name.
        network: its network, a key of ``fusion.models.MODELS``.
        image_size: S, side of the images in pixels; the file takes no other.
        metadata: kept in the file beside what ``classifier_metadata`` says, as text, as JSON where it is not text.
        graph: keeps the traced body from one call to the next; calls for one network should follow each other.

    Raises:
        UserError: the file can't be written.
    """
    body = graph.of(classifier, network, image_size)
    with torch.no_grad():
        features = classifier.body(torch.zeros(EXAMPLE_BATCH, 1, image_size, image_size, dtype=torch.uint8))
    head = _traced(classifier.head, features, FEATURES, OUTPUT)
    head = onnx.compose.add_prefix(head, "head.", rename_inputs=False, rename_outputs=False)
    # The head's own edges must not meet names of the body.
    whole = ir.from_proto(onnx.compose.merge_models(body, head, io_map=[(FEATURES, FEATURES)]))
    _put_weights(whole, classifier.body)
    onnxscript.optimizer.optimize(whole)
    model = ir.to_proto(whole)
    _forget_sources(model)
    facts = classifier_metadata(network, image_size, str(classifier.body.dtype)) | {"opset": OPSET} | dict(metadata)
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model)
    with recording(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _traced(module: nn.Module, example: torch.Tensor, name: str, result: str) -> onnx.ModelProto:
    traced = copy.deepcopy(module).eval().requires_grad_(False)
    for part in traced.modules():
        if hasattr(part, "inplace"):  # what is in place has to be undone in the graph, which takes a third of the time
            setattr(part, "inplace", False)  # noqa: B010
    program = torch.onnx.export(
        traced,
        (example,),
        input_names=[name],
        output_names=[result],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        optimize=False,  # it would fold the weights, which are another cell's
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _put_weights(model: ir.Model, body: nn.Module) -> None:
    state, initializers = body.state_dict(), model.graph.initializers
    unused = state.keys() - initializers.keys()
    # Nothing of a body may come from the cell the graph was traced with.
    assert all(key.endswith("num_batches_tracked") for key in unused), f"the graph lacks the weights {sorted(unused)}"
    for key in state.keys() & initializers.keys():
        initializers[key].const_value = ir.tensor(state[key].contiguous().numpy(), name=key)


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drop the source lines the exporter notes at every node, with the paths of the machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
