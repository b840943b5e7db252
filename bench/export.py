"""Exporting a finished cell: one ONNX file with weights, preprocessing and, for Model 1, the classifier inside."""

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file as load_torch
from torch import nn

from bench.extract import features_folder
from fusion.errors import UserError
from fusion.files import read_json, replacing
from fusion.models import build_model
from fusion.models.backbones import build_backbone
from fusion.models.classifier import Classifier, make_classifier

OPSET = 20
INPUT, OUTPUT = "images_u8", "probability"
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
    defined = read_json(cell / "cell.json", "a finished cell")
    try:
        network, head = defined["cell"]["network"], defined["cell"]["head"]
        if head is None:
            model = build_model(network, "random", image_size)
            _load(model, cell / "model.safetensors")
            return make_classifier(network, model)
        backbone = build_backbone(network, "random", classes=0)
        _load(backbone, features_folder(run, defined) / "backbone.safetensors")
        return make_classifier(network, backbone, head, load_numpy(cell / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{cell} can't be exported, a file is missing or damaged: {reason}") from None


def export_onnx(classifier: Classifier, path: Path, image_size: int, metadata: dict[str, Any]) -> None:
    """Write ``classifier`` as one self-contained ONNX file: uint8 images in, probabilities out, any batch.

    Args:
        classifier: on the CPU.
        path: file to write, through a temporary name.
        image_size: S, side of the images in pixels; the file takes no other.
        metadata: kept in the file as text, values as JSON where they are not text.

    Raises:
        UserError: the file can't be written.
    """
    example = torch.zeros(EXAMPLE_BATCH, 1, image_size, image_size, dtype=torch.uint8)
    program = torch.onnx.export(
        classifier.eval(),
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    # The exporter notes the source lines of every node, with the paths of the machine.
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    facts: dict[str, Any] = {
        "input": "uint8 grey [batch, 1, S, S], prepared by fusebench",
        "output": "probability of malignancy",
    }
    facts |= {"image_size": image_size, "opset": OPSET, "classes": ["benign", "malignant"], **metadata}
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _load(model: nn.Module, path: Path) -> None:
    model.load_state_dict(load_torch(path))
