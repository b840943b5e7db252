"""The fused kernel: one augmented batch in one pass over GPU memory, by Triton.

It computes what ``kernels.augment_reference.augment`` computes (its formula is the contract) from the same counters.
One program makes ``PIXELS`` neighbouring pixels of one row: it draws the row's parameters, gathers the four grey values
around each mapped point, adds noise, normalises, and writes all channels. A row that is not augmented has the identity
as its map and skips the noise. What changes from batch to batch is read from device memory, the epoch too, so that a
launch can be captured in a CUDA graph. All arithmetic is float32; only the write is narrower.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.augment_reference import AugmentationRange
from kernels.philox import PARAMETER_POSITION, ROUNDS, check_counters

PIXELS = 1024
"""Pixels of one program: a power of two, at least 4."""
WARPS = 4
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAXIMUM_CHANNELS = 3

PARAMETERS_AT = tl.constexpr(PARAMETER_POSITION)
PHILOX_ROUNDS = tl.constexpr(ROUNDS)
TURN = tl.constexpr(2 * torch.pi)


@triton.jit
def _to_unit_interval(words: tl.tensor) -> tl.tensor:
    return ((words >> 9).to(tl.float32) + 0.5) * (1.0 / 8388608.0)


@triton.jit
def _cos_sin(turns: tl.tensor) -> tl.tensor:
    """Return cosine and sine of a fraction of a turn, -1..1, to float32 rounding.

    ``tl.cos`` reduces arguments of any size, with tables in memory; a fraction of a turn is reduced exactly by a
    quarter. The polynomials are those of Cephes (S. L. Moshier, single precision, for -pi/4..pi/4).
    """
    quarter = tl.floor(4.0 * turns + 0.5)
    angle = TURN * (turns - 0.25 * quarter)
    square = angle * angle
    sin = angle + angle * square * (-1.6666654611e-1 + square * (8.3321608736e-3 - 1.9515295891e-4 * square))
    cos = 4.166664568298827e-2 + square * (-1.388731625493765e-3 + 2.443315711809948e-5 * square)
    cos = 1.0 - 0.5 * square + square * square * cos
    turned = quarter.to(tl.int32) & 3
    swapped = (turned & 1) == 1
    cos, sin = tl.where(swapped, sin, cos), tl.where(swapped, cos, sin)
    return tl.where((turned == 1) | (turned == 2), -cos, cos), tl.where(turned >= 2, -sin, sin)


@triton.jit
def _to_normal(radius_words: tl.tensor, angle_words: tl.tensor) -> tl.tensor:
    radius = tl.sqrt(-2.0 * tl.log(_to_unit_interval(radius_words)))
    cos, sin = _cos_sin(_to_unit_interval(angle_words))
    return radius * cos, radius * sin


@triton.jit
def _grey_at(image_ptr: tl.tensor, x: tl.tensor, y: tl.tensor, WIDTH: tl.constexpr, HEIGHT: tl.constexpr) -> tl.tensor:
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    return tl.load(image_ptr + y * WIDTH + x, mask=inside, other=0).to(tl.float32)


@triton.jit
def _bilinear(image_ptr: tl.tensor, x: tl.tensor, y: tl.tensor, WIDTH: tl.constexpr, HEIGHT: tl.constexpr) -> tl.tensor:
    """Sample at (x, y), in pixels from the centre of the first, 0 outside the image."""
    left, top = tl.floor(x), tl.floor(y)
    right_share, lower_share = x - left, y - top
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    upper_left = _grey_at(image_ptr, x0, y0, WIDTH, HEIGHT)
    upper_right = _grey_at(image_ptr, x0 + 1, y0, WIDTH, HEIGHT)
    lower_left = _grey_at(image_ptr, x0, y0 + 1, WIDTH, HEIGHT)
    lower_right = _grey_at(image_ptr, x0 + 1, y0 + 1, WIDTH, HEIGHT)
    upper = upper_left + right_share * (upper_right - upper_left)
    lower = lower_left + right_share * (lower_right - lower_left)
    return upper + lower_share * (lower - upper)


# A slice of the rows may begin at any address, and a seed may be any number: neither is worth another compilation.
@triton.jit(do_not_specialize=["seed"], do_not_specialize_on_alignment=["position_ptr", "image_ptr", "copy_ptr"])
def _augment_kernel(
    images_ptr: tl.tensor,
    position_ptr: tl.tensor,
    image_ptr: tl.tensor,
    copy_ptr: tl.tensor,
    epoch_ptr: tl.tensor,
    out_ptr: tl.tensor,
    seed: tl.tensor,
    rotation_turns: tl.tensor,
    zoom_low: tl.tensor,
    zoom_span: tl.tensor,
    noise_sigma: tl.tensor,
    scale_0: tl.tensor,
    scale_1: tl.tensor,
    scale_2: tl.tensor,
    shift_0: tl.tensor,
    shift_1: tl.tensor,
    shift_2: tl.tensor,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    FLIP_X: tl.constexpr,
    FLIP_Y: tl.constexpr,
    NOISE: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHANNEL_LANES: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """Make one block of one row; the grid is rows x blocks, flat, the blocks of a row side by side.

    ``scale`` and ``shift`` are those of each channel: written is ``grey / 255 * scale + shift``.
    """
    pixels: tl.constexpr = HEIGHT * WIDTH
    blocks: tl.constexpr = (pixels + PIXELS - 1) // PIXELS
    row = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    pixel = block * PIXELS + tl.arange(0, PIXELS)
    source_ptr = images_ptr + tl.load(position_ptr + row).to(tl.int64) * pixels
    image = tl.load(image_ptr + row).to(tl.uint32)
    copy = tl.load(copy_ptr + row).to(tl.uint32)
    epoch = tl.load(epoch_ptr).to(tl.uint32)
    augmented = copy > 0
    cos, sin, flipped_x, flipped_y = 1.0, 0.0, False, False
    if augmented:
        first = tl.full((), PARAMETERS_AT, tl.uint32)
        angle_word, zoom_word, flip_x_word, flip_y_word = tl.philox(seed, first, image, copy, epoch, PHILOX_ROUNDS)
        cos, sin = _cos_sin((2.0 * _to_unit_interval(angle_word) - 1.0) * rotation_turns)
        zoom = zoom_low + zoom_span * _to_unit_interval(zoom_word)
        cos, sin = cos / zoom, sin / zoom
        flipped_x, flipped_y = flip_x_word & 1 == 1, flip_y_word & 1 == 1
    x_offset = (pixel % WIDTH) + (0.5 - WIDTH / 2)
    y_offset = (pixel // WIDTH) + (0.5 - HEIGHT / 2)
    # The inverse of flip, turn, zoom; see RowParameters.inverse_affine. The identity meets every pixel exactly.
    x, y = cos * x_offset - sin * y_offset, sin * x_offset + cos * y_offset
    if FLIP_X:
        x = tl.where(flipped_x, -x, x)
    if FLIP_Y:
        y = tl.where(flipped_y, -y, y)
    # Two pixels outside all is black; the limit keeps coordinates far outside within int32.
    x = tl.clamp(x + (WIDTH / 2 - 0.5), -2.0, WIDTH + 1.0)
    y = tl.clamp(y + (HEIGHT / 2 - 0.5), -2.0, HEIGHT + 1.0)
    grey = _bilinear(source_ptr, x, y, WIDTH, HEIGHT) * (1.0 / 255.0)
    if NOISE:  # noqa: SIM102 (a constant: without noise none of this is compiled)
        if augmented:
            group = block * (PIXELS // 4) + tl.arange(0, PIXELS // 4)
            a, b, c, d = tl.philox(
                seed,
                group.to(tl.uint32),
                tl.zeros_like(group).to(tl.uint32) + image,
                tl.zeros_like(group).to(tl.uint32) + copy,
                tl.zeros_like(group).to(tl.uint32) + epoch,
                PHILOX_ROUNDS,
            )
            first_normal, second_normal = _to_normal(a, b)
            third_normal, fourth_normal = _to_normal(c, d)
            noise = tl.interleave(
                tl.interleave(first_normal, third_normal), tl.interleave(second_normal, fourth_normal)
            )
            grey = tl.clamp(grey + noise_sigma * noise, 0.0, 1.0)
    channel = tl.arange(0, CHANNEL_LANES)[None, :]
    scale = tl.where(channel == 0, scale_0, tl.where(channel == 1, scale_1, scale_2))
    shift = tl.where(channel == 0, shift_0, tl.where(channel == 1, shift_1, shift_2))
    values = grey[:, None] * scale + shift
    row_ptr = out_ptr + row.to(tl.int64) * pixels * CHANNELS
    inside = (pixel < pixels)[:, None] & (channel < CHANNELS)
    tl.store(row_ptr + pixel[:, None] * CHANNELS + channel, values.to(out_ptr.dtype.element_ty), mask=inside)


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
    """Gather, map, add noise, normalise and cast one batch in one launch.

    Arguments and result are those of ``kernels.augment_reference.augment``, on one CUDA device, with one to three
    channels; ``image``, ``copy`` and ``position`` are contiguous int64. What they say lies on the device and is not
    looked at: an ``image`` or ``position`` outside the array reads memory that is not an image.

    Raises:
        ValueError: more than three channels, an unknown dtype, tensors that are not as said, or a seed or an epoch
            outside its range.
    """
    channels = len(mean)
    if not 1 <= channels <= MAXIMUM_CHANNELS or len(std) != channels:
        raise ValueError(f"mean {mean} and std {std} need the same length, from 1 to {MAXIMUM_CHANNELS}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype} is not one of {', '.join(map(str, DTYPES))}")
    grey = images_u8.dtype == torch.uint8 and images_u8.dim() == 4 and images_u8.shape[1] == 1
    if not grey or not images_u8.is_contiguous():
        raise ValueError(f"images_u8 is {_told(images_u8)}, not contiguous uint8 [N, 1, H, W]")
    position = image if position is None else position
    for name, keys in (("image", image), ("copy", copy), ("position", position)):
        if keys.dtype != torch.int64 or keys.shape != image.shape or keys.dim() != 1 or not keys.is_contiguous():
            raise ValueError(f"{name} is {_told(keys)}, not contiguous int64 [{image.numel()}]")
    if isinstance(epoch, Tensor) and (epoch.dtype != torch.int64 or epoch.numel() != 1):
        raise ValueError(f"epoch is {_told(epoch)}, not one int64")
    check_counters(seed, epoch)
    height, width = images_u8.shape[-2:]
    device = images_u8.device
    shape = (len(image), channels, height, width)
    out = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
    if out.numel() == 0:
        return out
    scale = [1.0 / s for s in std] + [0.0] * (MAXIMUM_CHANNELS - channels)
    shift = [-m / s for m, s in zip(mean, std, strict=True)] + [0.0] * (MAXIMUM_CHANNELS - channels)
    _augment_kernel[(len(image) * triton.cdiv(height * width, PIXELS),)](
        images_u8,
        position,
        image,
        copy,
        epoch if isinstance(epoch, Tensor) else torch.full((), epoch, dtype=torch.int64, device=device),
        out,
        seed,
        float(ranges.rotation_degrees / 360),
        float(ranges.zoom_low),
        float(ranges.zoom_high - ranges.zoom_low),
        float(ranges.noise_sigma),
        *scale,
        *shift,
        HEIGHT=height,
        WIDTH=width,
        FLIP_X=ranges.horizontal_flip,
        FLIP_Y=ranges.vertical_flip,
        NOISE=ranges.noise_sigma > 0,
        CHANNELS=channels,
        CHANNEL_LANES=triton.next_power_of_2(channels),
        PIXELS=PIXELS,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )
    return out


def _told(tensor: Tensor) -> str:
    order = "" if tensor.is_contiguous() else "non-contiguous "
    return f"{order}{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
