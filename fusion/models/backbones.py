"""The five ImageNet networks of the paper, from timm, and where their weights come from."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import nn

from fusion.errors import UserError
from fusion.files import file_hash

CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One row of ``BACKBONES``."""

    timm_name: str
    """Architecture and weights tag of timm: the plain ImageNet-1k recipe nearest to the paper's toolbox."""
    mean: tuple[float, float, float]
    """Mean of each channel the weights were trained with, in 0..1."""
    std: tuple[float, float, float]
    minimum_size: int
    """Smallest image side, in pixels, the network can take."""


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

BACKBONES = {
    "efficientnet_b0": Backbone(timm_name="efficientnet_b0.ra_in1k", minimum_size=32, **IMAGENET),
    "inception_v3": Backbone(timm_name="inception_v3.tv_in1k", minimum_size=75, **HALF),
    "mobilenet_v2": Backbone(timm_name="mobilenetv2_100.ra_in1k", minimum_size=32, **IMAGENET),
    "resnet50": Backbone(timm_name="resnet50.tv_in1k", minimum_size=32, **IMAGENET),
    "resnet101": Backbone(timm_name="resnet101.tv_in1k", minimum_size=32, **IMAGENET),
}


def weights_identity(name: str, weights: str) -> str:
    """Return what the starting weights of a backbone are, for the hash of a cell.

    ``random``, ``imagenet:<tag>``, or the SHA-256 of the file in a folder of weights.

    Raises:
        UserError: the file is missing.
    """
    if weights == "random":
        return "random"
    if weights == "imagenet":
        return f"imagenet:{BACKBONES[name].timm_name}"
    return file_hash(_weights_file(name, Path(weights)))


def build_backbone(name: str, weights: str, *, classes: int = CLASSES) -> nn.Module:
    """Return a backbone with ``classes`` outputs; 0 gives pooled features instead of a classifier.

    Args:
        name: a key of ``BACKBONES``.
        weights: ``random``, ``imagenet`` (timm's hub cache, filled from the network where there is one), or a folder
            that holds ``<timm name>.safetensors``.
        classes: outputs of the new, randomly initialised classifier.

    Raises:
        UserError: the weights can't be had, or do not fit the architecture.
    """
    model: nn.Module = timm.create_model(BACKBONES[name].timm_name, pretrained=False, num_classes=classes)
    if weights != "random":
        _load_weights(model, name, weights)
    return model


def classifier_name(name: str) -> str:
    """Return the name of a backbone's last layer, its classifier: ``fc`` or ``classifier``."""
    row = timm.get_pretrained_cfg(BACKBONES[name].timm_name)
    assert row is not None
    return str(row.classifier)


def _load_weights(model: nn.Module, name: str, weights: str) -> None:
    path = _cached_file(name) if weights == "imagenet" else _weights_file(name, Path(weights))
    try:
        loaded = load_file(path)
    except Exception as error:  # safetensors has no public exception class
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
    classifier = classifier_name(name)
    body = {key: value for key, value in loaded.items() if not key.startswith((f"{classifier}.", "AuxLogits."))}
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{classifier}.")}
    # Torchvision's files count batches, timm's need not.
    missing = {key for key in wanted.keys() - body.keys() if not key.endswith("num_batches_tracked")}
    wrong = sorted(missing | {key for key in wanted.keys() & body.keys() if body[key].shape != wanted[key].shape})
    strange = sorted(body.keys() - wanted.keys())
    if wrong or strange:
        raise UserError(
            f"{path} does not fit {BACKBONES[name].timm_name}: {len(wrong)} tensors missing or of another shape, "
            f"{len(strange)} unknown, e.g. {(wrong + strange)[0]!r}"
        )
    model.load_state_dict(body, strict=False)


def _weights_file(name: str, folder: Path) -> Path:
    path = folder / f"{BACKBONES[name].timm_name}.safetensors"
    if path.is_file():
        return path
    if not folder.is_dir():
        raise UserError(
            f"weights {str(folder)!r} is no folder; choose imagenet, random or a folder of safetensors files"
        )
    expected = ", ".join(f"{row.timm_name}.safetensors" for row in BACKBONES.values())
    raise UserError(f"{path} is missing; a folder of weights holds {expected}")


def _cached_file(name: str) -> Path:
    repository = f"timm/{BACKBONES[name].timm_name}"
    found = _hub_file(repository)
    if isinstance(found, Path):
        return found
    raise UserError(
        f"ImageNet weights of {name} can't be had ({found}): on a machine with network download model.safetensors of "
        f"the hub repository {repository}, save it as {BACKBONES[name].timm_name}.safetensors in one folder with the "
        "others, and pass --weights FOLDER; or choose --weights random by name"
    )


@cache
def _hub_file(repository: str) -> Path | str:
    """Return the file, or why it can't be had; asked once, as without network the hub tries for half a minute."""
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # no network, a proxy's page, a full disk: all end the same way for the user
        return type(error).__name__
