"""A whole classifier in one module: from prepared grey images to the probability of malignancy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fusion.models import normalisation
from fusion.models.head_modules import head_module


class Classifier(nn.Module):
    """[B, 1, S, S] uint8 prepared images to [B] float32 probabilities.

    The normalisation is inside, so whoever runs the module can't get it wrong.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images_u8: Tensor) -> Tensor:
        """Return the probabilities."""
        pixels = (
            images_u8.float() / 255.0 - self.mean
        ) / self.std  # one grey channel becomes as many as there are means
        probability: Tensor = self.head(self.network(pixels))
        return probability


class SoftmaxHead(nn.Module):
    """[B, 2] logits to the probability of the second class."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return the probabilities."""
        return torch.softmax(logits.float(), dim=1)[:, 1]


def make_classifier(
    name: str, network: nn.Module, head: str | None = None, head_arrays: Mapping[str, np.ndarray] | None = None
) -> Classifier:
    """Return the whole classifier around a network, in evaluation mode.

    Args:
        name: name of the network, a key of ``fusion.models.MODELS``.
        network: gives two logits, or pooled features where there is a ``head``.
        head: a key of ``fusion.models.heads.HEADS``, or None.
        head_arrays: what the head has learnt, see ``fusion.models.heads.head_tensors``.

    Raises:
        UserError: the arrays are not those of the head.
    """
    mean, std = normalisation(name)
    last = SoftmaxHead() if head is None else head_module(head, head_arrays or {})
    return Classifier(network, mean, std, last).eval()
