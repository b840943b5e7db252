"""One augmented batch in plain PyTorch, on any device: the contract of the fused kernel, and the CPU path.

For row r with image i, the affine map A and the noise level s::

    out[r, c, y, x] = (clip(bilinear(images[i], A (x, y)) / 255 + s * N(0, 1), 0, 1) - mean[c]) / std[c]

Pixels are sampled at their centres; outside the image is 0. A row that is not augmented (copy 0) has the identity as
its map and s = 0, and passes through to float32 rounding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.philox import PARAMETER_POSITION, philox, to_normal, to_unit_interval


@dataclass(frozen=True, kw_only=True)
class AugmentationRange:
    """What an augmented copy may look like (Wang et al. 2024, section 2.2).

    Raises:
        ValueError: a range is empty or outside its bounds.
    """

    rotation_degrees: float = 30.0
    """Rotation is uniform in plus or minus this."""
    zoom_low: float = 0.8
    zoom_high: float = 1.2
    """Zoom is uniform between the two; above 1 enlarges."""
    horizontal_flip: bool = True
    vertical_flip: bool = True
    """Each flip happens with probability 1/2."""
    noise_sigma: float = 0.1
    """Standard deviation of the Gaussian noise, in units of the grey range. The paper does not state it; 0.1 is the
    default of the authors' toolbox (variance 0.01)."""

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_degrees <= 180:
            raise ValueError(f"rotation_degrees {self.rotation_degrees} is outside 0..180")
        if not 0.01 <= self.zoom_low <= self.zoom_high <= 100:
            raise ValueError(f"zoom {self.zoom_low}..{self.zoom_high}: 0.01 <= zoom_low <= zoom_high <= 100 is needed")
        if not 0 <= self.noise_sigma <= 1:
            raise ValueError(f"noise_sigma {self.noise_sigma} is outside 0..1")


@dataclass(frozen=True, kw_only=True)
class RowParameters:
    """The random choices of R rows; those of copy 0 are neutral: no turn, zoom 1, no flip, no noise."""

    angle_degrees: Tensor
    """[R] float32, counter-clockwise on screen."""
    zoom: Tensor
    """[R] float32."""
    flip_x: Tensor
    """[R] bool, left and right exchanged, before the rotation."""
    flip_y: Tensor
    """[R] bool, top and bottom exchanged, before the rotation."""
    noise_sigma: Tensor
    """[R] float32."""

    def inverse_affine(self) -> Tensor:
        """Return [R, 2, 2] float32: the offset from the centre in the image, in pixels, of an output offset (x, y).

        The output is the image flipped, then turned, then zoomed; the inverse undoes it in reverse order.
        """
        angle = torch.deg2rad(self.angle_degrees)
        cos, sin = torch.cos(angle) / self.zoom, torch.sin(angle) / self.zoom
        sign_x = 1.0 - 2.0 * self.flip_x.float()
        sign_y = 1.0 - 2.0 * self.flip_y.float()
        # The y axis points down, so a counter-clockwise turn on screen maps (x, y) back by (cos, -sin; sin, cos).
        rows = [torch.stack([sign_x * cos, -sign_x * sin], -1), torch.stack([sign_y * sin, sign_y * cos], -1)]
        return torch.stack(rows, -2)


def draw_parameters(
    ranges: AugmentationRange, seed: int, image: Tensor, copy: Tensor, epoch: int | Tensor
) -> RowParameters:
    """Return the parameters of each row, a function of ``(seed, image, copy, epoch)`` alone.

    Args:
        ranges: what may be drawn.
        seed: 0 <= seed < 2**64.
        image: [R] int64, row of the image in the prepared array.
        copy: [R] int64; copy 0 is the image itself.
        epoch: 0 for ever under the paper's protocol, the number of the epoch under ``clean``.
    """
    words = philox(seed, torch.full_like(image, PARAMETER_POSITION), image, copy, epoch)
    augmented = copy > 0
    angle, zoom = to_unit_interval(words[0]), to_unit_interval(words[1])
    zoom = ranges.zoom_low + (ranges.zoom_high - ranges.zoom_low) * zoom
    return RowParameters(
        angle_degrees=torch.where(augmented, (2.0 * angle - 1.0) * ranges.rotation_degrees, 0.0),
        zoom=torch.where(augmented, zoom, 1.0),
        flip_x=augmented & ((words[2] & 1) == 1) & ranges.horizontal_flip,
        flip_y=augmented & ((words[3] & 1) == 1) & ranges.vertical_flip,
        noise_sigma=torch.where(augmented, ranges.noise_sigma, 0.0),
    )


def standard_normal(seed: int, image: Tensor, copy: Tensor, epoch: int | Tensor, height: int, width: int) -> Tensor:
    """Return [R, height, width] float32 of standard normal values, a function of ``(seed, image, copy, epoch, pixel)``.

    Pixels are counted along rows; four neighbours share one call of Philox.
    """
    pixels = height * width
    position = torch.arange((pixels + 3) // 4, device=image.device)
    a, b, c, d = philox(seed, position[None, :], image[:, None], copy[:, None], epoch)
    values = torch.stack([*to_normal(a, b), *to_normal(c, d)], dim=-1)
    return values.flatten(1)[:, :pixels].reshape(-1, height, width)


def augment(
    images_u8: Tensor,
    image: Tensor,
    copy: Tensor,
    *,
    seed: int,
    epoch: int | Tensor,
    ranges: AugmentationRange,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype = torch.float32,
    position: Tensor | None = None,
) -> Tensor:
    """Gather, map, add noise, normalise and cast one batch.

    Args:
        images_u8: [N, 1, H, W] uint8, the prepared array.
        image: [R] int64, which image each row shows, below 2**32.
        copy: [R] int64, which augmented copy of it, below 2**32; copy 0 is the image itself.
        seed: seed of the run.
        epoch: see ``draw_parameters``.
        ranges: what an augmented copy may look like.
        mean: grey mean of each output channel, in 0..1.
        std: grey standard deviation of each output channel; as many as ``mean``.
        dtype: type of the result.
        position: [R] int64, where each row's image lies in ``images_u8``; None where that is ``image`` itself, as it is
            in the whole prepared array.

    Returns:
        [R, len(mean), H, W], channels-last in memory.
    """
    height, width = images_u8.shape[-2:]
    pixels = images_u8[image if position is None else position].float() / 255.0
    turned = torch.nonzero(copy > 0).flatten()
    if len(turned):
        parameters = draw_parameters(ranges, seed, image[turned], copy[turned], epoch)
        grid = _sampling_grid(parameters, height, width)
        mapped = F.grid_sample(pixels[turned], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if ranges.noise_sigma > 0:
            noise = standard_normal(seed, image[turned], copy[turned], epoch, height, width)
            mapped = mapped.addcmul_(parameters.noise_sigma[:, None, None, None], noise[:, None])
        pixels[turned] = mapped.clamp_(0.0, 1.0)
    shape = (len(image), len(mean), height, width)
    out = torch.empty(shape, dtype=dtype, device=pixels.device, memory_format=torch.channels_last)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        out[:, channel : channel + 1] = (pixels - m) / s
    return out


def _sampling_grid(parameters: RowParameters, height: int, width: int) -> Tensor:
    """Return [R, height, width, 2]: where each pixel is sampled, (x, y) from -1 to 1 over the image.

    It is what ``torch.nn.functional.affine_grid`` returns, without its product of large matrices.
    """
    device = parameters.zoom.device
    half = torch.tensor([width / 2, height / 2], device=device)
    columns = (torch.arange(width, device=device) + 0.5) - width / 2
    rows = (torch.arange(height, device=device) + 0.5) - height / 2
    inverse = parameters.inverse_affine() / half[None, :, None]
    of_rows = inverse[:, None, None, :, 1] * rows[None, :, None, None]
    return torch.addcmul(of_rows, inverse[:, None, None, :, 0], columns[None, None, :, None])
