"""Class-activation maps: which places of an image speak for malignancy, by Grad-CAM (Selvaraju et al., ICCV 2017).

The channels of the last feature map are weighted by the mean of the gradient of the malignant logit with respect to
each, summed, and negative sums are set to zero; captum computes that. Here stands what it can't know: which feature map
of a network is the last, and where its cells lie in the image.
"""

from dataclasses import dataclass

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from fusion.models.classifier import Classifier

MALIGNANT = 1


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """The last feature map of a network, the one its pooling or its fully connected layers read."""

    layer: str
    """Name of the module in the network whose output it is."""
    stride: int
    """Pixels from one cell to the next."""
    first: float
    """Pixel, from 0, on which the receptive field of the first cell is centred (Araujo et al., Distill 2019)."""


FEATURE_MAPS = {
    "efficientnet_b0": FeatureMap(layer="bn2", stride=32, first=0),
    "inception_v3": FeatureMap(layer="Mixed_7c", stride=32, first=37),
    "mobilenet_v2": FeatureMap(layer="bn2", stride=32, first=0),
    "resnet50": FeatureMap(layer="layer4", stride=32, first=0),
    "resnet101": FeatureMap(layer="layer4", stride=32, first=0),
    "cnn17": FeatureMap(layer="features", stride=4, first=15.5),
}
"""Network -> its last feature map. ``bn2`` ends in its activation, ``features`` in ReLU."""


def class_activation(classifier: Classifier, row: FeatureMap, images_u8: Tensor) -> tuple[Tensor, Tensor]:
    """Return Grad-CAM of the malignant logit, [B, S, S] float32 on the CPU, zero or more, and ``even_map``, [S, S].

    Args:
        classifier: of Model 2 or 3 in evaluation mode, on the same device; which of its weights have gradients changes.
        row: of its network.
        images_u8: [B, 1, S, S] uint8 prepared images.
    """
    layer = classifier.body.network.get_submodule(row.layer)
    classifier.requires_grad_(False)  # so that no activation before the layer is kept for a gradient
    layer.requires_grad_(True)
    cells = LayerGradCam(_logits(classifier), layer).attribute(images_u8, target=MALIGNANT, relu_attributions=True)
    maps = placed(cells.detach().cpu(), row, images_u8.shape[-1])
    return maps, even_map(row, (cells.shape[2], cells.shape[3]), images_u8.shape[-1])


def placed(cells: Tensor, row: FeatureMap, image_size: int) -> Tensor:
    """Return a map of cells, [B, 1, h, w], as [B, S, S]: bilinear between the cells, each where its network centres it.

    Stretching the map to the image, as is often done, would move the cells of the 17-layer CNN by up to 14 pixels,
    since its convolutions are not padded. Pixels further than half a stride from the outermost cells belong to no cell
    and are zero.
    """
    pixel = torch.arange(image_size, device=cells.device, dtype=cells.dtype)
    (y, in_y), (x, in_x) = (_grid((pixel - row.first) / row.stride, side) for side in cells.shape[2:])
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(cells), -1, -1, -1)
    inside = in_y[:, None] & in_x[None, :]
    return nn.functional.grid_sample(cells, grid, padding_mode="border", align_corners=True)[:, 0] * inside


def even_map(row: FeatureMap, cells: tuple[int, int], image_size: int) -> Tensor:
    """Return the map [S, S] that tells nothing: all its cells [h, w] are one."""
    return placed(torch.ones(1, 1, *cells), row, image_size)[0]


def _grid(cell: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return positions in cells as ``grid_sample`` wants them, -1 the first cell, 1 the last, and which are in one."""
    return 2 * cell / (side - 1) - 1 if side > 1 else torch.zeros_like(cell), (cell >= -0.5) & (cell <= side - 0.5)


def _logits(classifier: Classifier) -> nn.Module:
    """Return the classifier without its softmax: [B, 2]."""
    if isinstance(classifier.head, nn.Sequential):  # a backbone's last layer, and the softmax
        return nn.Sequential(classifier.body, classifier.head[0])
    return classifier.body
