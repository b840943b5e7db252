"""The models of the paper: five ImageNet backbones, the 17-layer CNN, and three classifiers on pooled features."""

from torch import nn

from fusion.errors import UserError
from fusion.models import backbones, cnn17

MODELS = (*backbones.BACKBONES, "cnn17")

FORWARD_GMACS = {
    "efficientnet_b0": 0.73,
    "inception_v3": 5.7,
    "mobilenet_v2": 0.56,
    "resnet50": 7.6,
    "resnet101": 14.5,
    "cnn17": 0.93,
}
"""Multiply-accumulates of one forward pass at 300 x 300, in 10^9: only to tell how much of a run's work is left."""


def build_model(name: str, weights: str, image_size: int) -> nn.Module:
    """Return the network ``name`` with two outputs, benign and malignant.

    Args:
        name: one of ``MODELS``.
        weights: starting weights of a backbone: ``random``, ``imagenet`` or a folder; the 17-layer CNN starts random.
        image_size: S, side of its images in pixels.

    Raises:
        UserError: unknown model, images too small for it, or weights that can't be had.
    """
    require_size(name, image_size)
    return cnn17.Cnn17(image_size) if name == "cnn17" else backbones.build_backbone(name, weights)


def require_size(name: str, image_size: int) -> None:
    """Check that the network ``name`` exists and can take images of ``image_size``.

    Raises:
        UserError: it does not, or can't.
    """
    if name not in MODELS:
        raise UserError(f"model {name!r} is unknown; choose from {', '.join(MODELS)}")
    minimum = cnn17.MINIMUM_SIZE if name == "cnn17" else backbones.BACKBONES[name].minimum_size
    if image_size < minimum:
        raise UserError(f"{name} needs images of {minimum} px or more; the data set has {image_size}")


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation, one value a channel, of the pixels the network ``name`` takes."""
    if name == "cnn17":
        return cnn17.MEAN, cnn17.STD
    row = backbones.BACKBONES[name]
    return row.mean, row.std
