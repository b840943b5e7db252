"""The picture of a class-activation map: over the grey image, with the lesions outlined."""

import math

import numpy as np
from matplotlib import colormaps
from PIL import Image
from skimage.segmentation import find_boundaries

COLORMAP = "inferno"
"""Even to the eye, and told apart by the colour-blind."""
OUTLINE = (0, 229, 255)
"""Cyan, which the colormap lacks."""
OPACITY = 0.6
"""Of the map where it is largest; where it is zero the image is left as it is."""
SMALLEST_SIDE = 240
"""Pixels; smaller images are enlarged by a whole factor, so that the outline stays thin."""


def overlay(image_u8: np.ndarray, activation: np.ndarray, mask: np.ndarray | None) -> Image.Image:
    """Return the picture, RGB, at least ``SMALLEST_SIDE`` pixels a side.

    Args:
        image_u8: [S, S] uint8.
        activation: [S, S], none negative; drawn relative to its own maximum.
        mask: [S, S] bool, or None for no outline.
    """
    factor = math.ceil(SMALLEST_SIDE / len(image_u8))
    grey, strength = (np.kron(one, np.ones((factor, factor))) for one in (image_u8 / 255, _scaled(activation)))
    opacity = OPACITY * strength[..., None]
    colours = (1 - opacity) * grey[..., None] + opacity * colormaps[COLORMAP](strength)[..., :3]
    pixels = np.rint(colours * 255).astype(np.uint8)
    if mask is not None:
        # an edge of the image is an edge of the lesion, too
        whole = np.pad(np.kron(mask, np.ones((factor, factor), dtype=bool)), 1)
        pixels[find_boundaries(whole, mode="inner")[1:-1, 1:-1]] = OUTLINE
    return Image.fromarray(pixels)


def _scaled(activation: np.ndarray) -> np.ndarray:
    largest = float(activation.max())
    return activation / largest if largest > 0 else np.zeros(activation.shape)
