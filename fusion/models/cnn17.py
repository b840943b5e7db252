"""The paper's 17-layer CNN (Wang et al. 2024, 2.3.3).

The paper says that padding, stride, filters, pooling and dilation were chosen, and prints the size, 678.9 MB, but the
figure that draws the network (Figure 5) was not available to us. This is one network that meets both printed facts:
input, 2 x (conv, batch norm, ReLU, max-pool), (conv, batch norm, ReLU), fully connected, ReLU, fully connected,
softmax, output are 17 layers, and at 300 x 300 its parameters are within 1 % of 678.9 MiB.
"""

import torch
from torch import Tensor, nn

CHANNELS = (32, 64, 128)
HIDDEN = 300
KERNEL, DILATION, POOL = 3, 2, 2
MINIMUM_SIZE = 32
LAYERS = (
    *("input", "convolution", "batch normalisation", "ReLU", "max-pooling"),
    *("convolution", "batch normalisation", "ReLU", "max-pooling"),
    *("convolution", "batch normalisation", "ReLU"),
    *("fully connected", "ReLU", "fully connected", "softmax", "output"),
)
"""The layers as the paper counts them."""
MEAN, STD = (0.5,), (0.5,)


class Cnn17(nn.Module):
    """[B, 1, S, S] normalised grey images to [B, 2] logits; loss and evaluation apply the softmax."""

    def __init__(self, image_size: int, classes: int = 2) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.features = nn.Sequential(
            *_convolution(1, first),
            nn.MaxPool2d(POOL),
            *_convolution(first, second),
            nn.MaxPool2d(POOL),
            *_convolution(second, third),
        )
        side = feature_side(image_size)
        self.classifier = nn.Sequential(
            nn.Linear(third * side * side, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(torch.flatten(self.features(images), 1))


def feature_side(image_size: int) -> int:
    """Return the side of the last feature map in pixels; 68 for images of 300."""
    lost = DILATION * (KERNEL - 1)
    return ((image_size - lost) // POOL - lost) // POOL - lost


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, KERNEL, dilation=DILATION)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
