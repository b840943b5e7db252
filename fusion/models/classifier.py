"""A whole classifier in one module: from prepared grey images to the probability of malignancy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fusion.models import normalisation
from fusion.models.backbones import build_backbone, classifier_name
from fusion.models.cnn17 import Cnn17
from fusion.models.head_modules import head_module


class Body(nn.Module):
    """[B, 1, S, S] uint8 prepared images to [B, D] float32: pooled features, or the logits of the 17-layer CNN.

    The normalisation is inside, so whoever runs the module can't get it wrong.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.dtype = torch.float32
        self.register_buffer("pixel_mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(std)[:, None, None])
        self.pixel_mean: Tensor
        self.pixel_std: Tensor

    def forward(self, images_u8: Tensor) -> Tensor:
        """Return the features."""
        # one grey channel becomes as many as there are means
        pixels = (images_u8.float() / 255.0 - self.pixel_mean) / self.pixel_std
        features: Tensor = self.network(pixels.to(self.dtype))
        return features.float()

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Let the network compute in ``dtype``; the normalisation stays in float32."""
        self.network.to(dtype)
        self.dtype = dtype


class Classifier(nn.Module):
    """[B, 1, S, S] uint8 prepared images to [B] float32 probabilities of malignancy."""

    def __init__(self, body: Body, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images_u8: Tensor) -> Tensor:
        """Return the probabilities."""
        probability: Tensor = self.head(self.body(images_u8))
        return probability


class SoftmaxHead(nn.Module):
    """[B, 2] logits to the probability of the second class."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return the probabilities."""
        return torch.softmax(logits.float(), dim=1)[:, 1]


def trained_classifier(name: str, state: Mapping[str, Tensor], image_size: int) -> Classifier:
    """Return a trained network of Model 2 or 3 as a whole classifier, in evaluation mode.

    A backbone ends in its pooled features, as it does in Model 1, so that both have the same body; its last layer
    becomes the head.

    Args:
        name: name of the network, a key of ``fusion.models.MODELS``.
        state: its trained weights, as ``state_dict`` gives them.
        image_size: S, side of its images in pixels.

    Raises:
        KeyError, RuntimeError: the weights are not those of the network.
    """
    if name == "cnn17":
        network: nn.Module = Cnn17(image_size)
        network.load_state_dict(dict(state))
        return Classifier(Body(network, *normalisation(name)), SoftmaxHead()).eval()
    last = classifier_name(name)
    weight, bias = state[f"{last}.weight"], state[f"{last}.bias"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    body = {key: value for key, value in state.items() if not key.startswith(f"{last}.")}
    return Classifier(_body(name, body), nn.Sequential(linear, SoftmaxHead())).eval()


def fitted_classifier(
    name: str, state: Mapping[str, Tensor], head: str, head_arrays: Mapping[str, np.ndarray]
) -> Classifier:
    """Return a frozen backbone and a classifier of Model 1 as one, in evaluation mode.

    Args:
        name: name of the backbone.
        state: its weights without a last layer.
        head: a key of ``fusion.models.heads.HEADS``.
        head_arrays: what the head has learnt, see ``fusion.models.heads.head_tensors``.

    Raises:
        UserError: the arrays are not those of the head.
        KeyError, RuntimeError: the weights are not those of the backbone.
    """
    return Classifier(_body(name, state), head_module(head, head_arrays)).eval()


def _body(name: str, state: Mapping[str, Tensor]) -> Body:
    backbone = build_backbone(name, "random", classes=0)
    backbone.load_state_dict(dict(state))
    return Body(backbone, *normalisation(name))
