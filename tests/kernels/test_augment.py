import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from scipy import stats
from torch import Tensor

import kernels.augment as fused
from kernels.augment import _cos_sin, augment
from kernels.augment_reference import AugmentationRange, standard_normal
from kernels.augment_reference import augment as reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GEOMETRY_TOLERANCE = 2e-4
"""Grey units of 0..1: float32 coordinates up to 300 px, two orders of rounding."""
NOISE_TOLERANCE = 1e-6
LAST_PLACE = 2.0**-24
"""Of a float32 below 1."""
SIGMAS = 5
DEFAULT = AugmentationRange()
STILL = AugmentationRange(rotation_degrees=0, zoom_low=1, zoom_high=1, horizontal_flip=False, vertical_flip=False)
GEOMETRY = AugmentationRange(noise_sigma=0)
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RANGES = {
    "default": GEOMETRY,
    "identity": replace(STILL, noise_sigma=0),
    "any angle": replace(GEOMETRY, rotation_degrees=180, zoom_low=1, zoom_high=1),
    "any angle, any zoom": replace(GEOMETRY, rotation_degrees=180, zoom_low=0.2, zoom_high=5),
    "tiny to huge": replace(GEOMETRY, rotation_degrees=180, zoom_low=0.01, zoom_high=100),
    "tiny": replace(GEOMETRY, zoom_low=0.01, zoom_high=0.01),
    "huge": replace(GEOMETRY, zoom_low=100, zoom_high=100),
    "flips alone": replace(STILL, horizontal_flip=True, vertical_flip=True, noise_sigma=0),
    "no horizontal flip": replace(GEOMETRY, horizontal_flip=False),
    "no vertical flip": replace(GEOMETRY, vertical_flip=False),
}


def interpret_in_blocks_of(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for each block, whatever its size; a GPU keeps the block it is made for."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(fused, "PIXELS", pixels)


def make_images(height: int, width: int) -> Tensor:
    """Return [3, 1, height, width] uint8: random, smooth, white."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    noisy = torch.randint(0, 256, (height, width), generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = 127.5 + 127.5 * torch.sin(x / 9) * torch.cos(y / 7)
    return torch.stack([noisy, smooth, torch.full((height, width), 255)])[:, None].to(DEVICE, torch.uint8)


def keys(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int64, device=DEVICE)


def run(
    images: Tensor, image: Any, copy: Any, *, augment_fn: Callable[..., Tensor] = augment, **settings: Any
) -> Tensor:
    plain: dict[str, Any] = {"seed": 7, "epoch": 0, "ranges": DEFAULT, "mean": (0.0,), "std": (1.0,)}
    return augment_fn(images, keys(image), keys(copy), **plain | settings)


def difference(augment_fn: Callable[..., Tensor], images: Tensor, image: Any, copy: Any, **settings: Any) -> float:
    result = run(images, image, copy, augment_fn=augment_fn, **settings)
    expected = run(images, image, copy, augment_fn=reference, **settings)
    assert result.shape == expected.shape
    return float((result - expected).abs().max())


@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES.keys())
@pytest.mark.parametrize(("height", "width", "pixels"), [(1, 1, 64), (37, 53, 1024), (53, 37, 1024), (300, 300, 32768)])
def test_geometry_equals_the_reference(
    height: int, width: int, pixels: int, ranges: AugmentationRange, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_in_blocks_of(pixels, monkeypatch)
    images = make_images(height, width)
    assert difference(augment, images, [0, 1, 2], [1, 2, 3], ranges=ranges) < GEOMETRY_TOLERANCE


@pytest.mark.parametrize("rows", [1, 2, 31, 65])
def test_every_batch_size_equals_the_reference(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(64, monkeypatch)
    image, copy = torch.arange(rows) % 3, torch.arange(rows) % 4
    assert difference(augment, make_images(5, 7), image, copy) < GEOMETRY_TOLERANCE


def test_cosine_and_sine_of_a_turn_are_exact_to_float32() -> None:
    quarters = torch.arange(-8, 9) / 8
    turns = torch.cat([torch.linspace(-1, 1, 2**12 - len(quarters)), quarters]).to(DEVICE)
    cos, sin = torch.empty_like(turns), torch.empty_like(turns)
    _cos_sin_kernel[(1,)](turns, cos, sin, COUNT=len(turns), enable_fp_fusion=True)
    angle = 2 * math.pi * turns.double()
    torch.testing.assert_close(cos.double(), torch.cos(angle), rtol=0, atol=1.5e-7)
    torch.testing.assert_close(sin.double(), torch.sin(angle), rtol=0, atol=1.5e-7)


@triton.jit
def _cos_sin_kernel(turns_ptr: tl.tensor, cos_ptr: tl.tensor, sin_ptr: tl.tensor, COUNT: tl.constexpr) -> None:
    offset = tl.arange(0, COUNT)
    cos, sin = _cos_sin(tl.load(turns_ptr + offset))
    tl.store(cos_ptr + offset, cos)
    tl.store(sin_ptr + offset, sin)


@pytest.mark.parametrize(("height", "width", "pixels"), [(1, 1, 64), (37, 53, 1024), (300, 300, 32768)])
def test_noise_equals_the_reference(height: int, width: int, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(pixels, monkeypatch)
    images, image, copy = make_images(height, width), [0, 1, 2], [3, 2, 1]
    noise = standard_normal(7, keys(image), keys(copy), 0, height, width)
    expected = (images[:, 0] / 255 + DEFAULT.noise_sigma * noise).clamp(0, 1)
    result = run(images, image, copy, ranges=STILL)[:, 0]
    torch.testing.assert_close(result, expected, rtol=0, atol=NOISE_TOLERANCE)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """[32, 128, 128] in units of its standard deviation: 4 images x 2 copies of each of 2 epochs and 2 more seeds."""
    sigma, grey = 0.05, 128  # no value comes near the clip
    images = torch.full((4, 1, 128, 128), grey, dtype=torch.uint8, device=DEVICE)
    image, copy = torch.arange(8) // 2, torch.arange(8) % 2 + 1
    ranges = replace(STILL, noise_sigma=sigma)
    with pytest.MonkeyPatch.context() as monkeypatch:
        interpret_in_blocks_of(128 * 128, monkeypatch)
        streams = [
            run(images, image, copy, seed=seed, epoch=epoch, ranges=ranges)
            for seed, epoch in [(5, 0), (5, 1), (6, 0), (5 + 2**32, 0)]
        ]
    return ((torch.cat(streams)[:, 0].double() - grey / 255) / sigma).cpu().numpy()


def test_noise_is_standard_normal(noise: np.ndarray) -> None:
    assert abs(noise.mean()) < SIGMAS / math.sqrt(noise.size)
    assert abs(noise.var() - 1) < SIGMAS * math.sqrt(2 / noise.size)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (0, 3), (0, 4), (2, 0)])
def test_noise_of_neighbours_is_uncorrelated(step: tuple[int, int], noise: np.ndarray) -> None:
    moved = np.roll(noise, step, axis=(1, 2))
    assert abs((noise * moved).mean()) < SIGMAS / math.sqrt(noise.size)


def test_noise_of_images_copies_epochs_and_seeds_is_uncorrelated(noise: np.ndarray) -> None:
    pairs = np.corrcoef(noise.reshape(len(noise), -1))
    assert np.abs(pairs - np.eye(len(noise))).max() < (SIGMAS + 1) / 128  # 496 pairs of 128 x 128


@pytest.mark.parametrize(
    ("mean", "std", "tolerance"),
    [((0.0,), (1.0,), LAST_PLACE), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1e-6)],
)
def test_copy_0_passes_through(
    mean: tuple[float, ...], std: tuple[float, ...], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_in_blocks_of(2048, monkeypatch)
    images, image, copy = make_images(37, 53), [2, 0, 1, 1, 0], [0, 4, 0, 1, 0]
    result = run(images, image, copy, mean=mean, std=std)
    for row in (0, 2, 4):
        for channel in range(len(mean)):
            expected = (images[image[row], 0] / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(result[row, channel], expected, rtol=0, atol=tolerance)
    other = run(images, image, copy, mean=mean, std=std, seed=8, epoch=1)
    assert [torch.equal(*rows) for rows in zip(result, other, strict=True)] == [True, False, True, False, True]


@pytest.mark.parametrize("dtype", fused.DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_result_is_the_float32_result_rounded(
    channels: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_in_blocks_of(2048, monkeypatch)
    images = make_images(37, 53)
    normalisation = {name: values[:channels] for name, values in IMAGENET.items()}
    assert difference(augment, images, [0, 1, 2], [0, 1, 2], **normalisation) < 5 * GEOMETRY_TOLERANCE
    full = run(images, [0, 1, 2], [0, 1, 2], **normalisation)
    result = run(images, [0, 1, 2], [0, 1, 2], dtype=dtype, **normalisation)
    assert result.dtype == dtype
    assert result.device == images.device
    assert result.shape == (3, channels, 37, 53)
    assert result.permute(0, 2, 3, 1).is_contiguous()
    if dtype == torch.bfloat16 and DEVICE.type == "cpu":  # the interpreter cuts the lower half off
        full = (full.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32)
    assert torch.equal(result, full.to(dtype))


def test_a_row_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(512, monkeypatch)
    images, image, copy = make_images(19, 23), keys([0, 1, 2, 0, 1, 2, 0]), keys([0, 1, 2, 3, 0, 4, 1])
    whole = run(images, image, copy)
    order = keys([5, 2, 0, 1, 6, 4, 3])
    assert torch.equal(run(images, image[order], copy[order]), whole[order])
    alone = [run(images, image[row : row + 1], copy[row : row + 1]) for row in range(len(image))]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize("pixels", [4, 64, 512, 4096])
def test_a_row_does_not_depend_on_the_size_of_blocks(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images(9, 13)
    result = run(images, [0, 1], [1, 2])
    monkeypatch.setattr(fused, "PIXELS", pixels)
    torch.testing.assert_close(run(images, [0, 1], [1, 2]), result, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("epoch", [0, 3, 2**31, 2**32 - 1])
def test_an_epoch_may_lie_on_the_device(epoch: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(512, monkeypatch)
    images = make_images(19, 23)
    on_device = torch.full(shape, epoch, dtype=torch.int64, device=DEVICE)
    assert torch.equal(run(images, [0, 1], [1, 2], epoch=on_device), run(images, [0, 1], [1, 2], epoch=epoch))


@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_seed_and_epoch_equals_the_reference(seed: int, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(512, monkeypatch)
    assert difference(augment, make_images(19, 23), [0], [1], seed=seed, epoch=epoch) < GEOMETRY_TOLERANCE


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, {"seed": 7 + 2**32}, {"seed": 7 + 2**63}, {"epoch": 1}, {"copy": [2]}, {"image": [1]}],
    ids=str,
)
def test_seed_epoch_copy_and_image_each_change_the_row(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(512, monkeypatch)
    images = make_images(19, 23)[:1].repeat(2, 1, 1, 1)
    base: dict[str, Any] = {"image": [0], "copy": [1]}
    assert (run(images, **base) - run(images, **base | other)).abs().max() > 0.05


def test_rows_are_keyed_by_image_and_read_at_position(monkeypatch: pytest.MonkeyPatch) -> None:
    interpret_in_blocks_of(512, monkeypatch)
    images, image, copy = make_images(19, 23), [2**32 - 1, 123_456_789, 1, 0], [1, 2, 3, 0]
    position = keys([2, 0, 1, 0])
    assert difference(augment, images, image, copy, position=position) < GEOMETRY_TOLERANCE
    moved = run(images.flip(0), image, copy, position=2 - position)
    assert torch.equal(moved, run(images, image, copy, position=position))
    assert torch.equal(run(images, [1, 0], [3, 1], position=keys([1, 0])), run(images, [1, 0], [3, 1]))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_empty_batch_gives_an_empty_result(channels: int) -> None:
    result = run(make_images(4, 6), [], [], mean=(0.5,) * channels, std=(0.5,) * channels, dtype=torch.bfloat16)
    assert result.shape == (0, channels, 4, 6)
    assert result.dtype == torch.bfloat16


LENGTHS = "need the same length, from 1 to 3"
IMAGES = "not contiguous uint8 [N, 1, H, W]"
KEYS = "not contiguous int64 [2]"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mean": (), "std": ()}, f"mean () and std () {LENGTHS}"),
        (
            {"mean": (0.1, 0.2, 0.3, 0.4), "std": (1.0,) * 4},
            f"mean (0.1, 0.2, 0.3, 0.4) and std (1.0, 1.0, 1.0, 1.0) {LENGTHS}",
        ),
        ({"mean": (0.1, 0.2), "std": (1.0,)}, f"mean (0.1, 0.2) and std (1.0,) {LENGTHS}"),
        (
            {"dtype": torch.float64},
            "dtype torch.float64 is not one of torch.float32, torch.float16, torch.bfloat16",
        ),
        ({"images_u8": torch.zeros(2, 1, 4, 6)}, f"images_u8 is float32 [2, 1, 4, 6], {IMAGES}"),
        ({"images_u8": torch.zeros(2, 4, 6, dtype=torch.uint8)}, f"images_u8 is uint8 [2, 4, 6], {IMAGES}"),
        ({"images_u8": torch.zeros(2, 3, 4, 6, dtype=torch.uint8)}, f"images_u8 is uint8 [2, 3, 4, 6], {IMAGES}"),
        (
            {"images_u8": torch.zeros(2, 1, 6, 4, dtype=torch.uint8).mT},
            f"images_u8 is non-contiguous uint8 [2, 1, 4, 6], {IMAGES}",
        ),
        *[
            ({name: keys_of_wrong_kind}, f"{name} is {text}, {KEYS}")
            for name in ("copy", "position")
            for keys_of_wrong_kind, text in [
                (torch.zeros(2, dtype=torch.int32), "int32 [2]"),
                (torch.zeros(2), "float32 [2]"),
                (torch.zeros(3, dtype=torch.int64), "int64 [3]"),
                (torch.zeros(2, 1, dtype=torch.int64), "int64 [2, 1]"),
                (torch.zeros(4, dtype=torch.int64)[::2], "non-contiguous int64 [2]"),
            ]
        ],
        ({"image": torch.zeros(2, dtype=torch.int32)}, f"image is int32 [2], {KEYS}"),
        ({"image": torch.zeros(2, 2, dtype=torch.int64)}, "image is int64 [2, 2], not contiguous int64 [4]"),
        ({"image": torch.zeros(4, dtype=torch.int64)[::2]}, f"image is non-contiguous int64 [2], {KEYS}"),
        ({"seed": -1}, "seed -1 is outside 0 <= seed < 2**64"),
        ({"seed": 2**64}, "seed 18446744073709551616 is outside 0 <= seed < 2**64"),
        ({"epoch": torch.zeros(2, dtype=torch.int64)}, "epoch is int64 [2], not one int64"),
        ({"epoch": torch.zeros(())}, "epoch is float32 [], not one int64"),
        ({"epoch": -1}, "epoch -1 is outside 0 <= epoch < 2**32"),
        ({"epoch": 2**32}, "epoch 4294967296 is outside 0 <= epoch < 2**32"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name_and_rule(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "images_u8": make_images(4, 6),
        "image": keys([0, 1]),
        "copy": keys([0, 1]),
        "position": keys([0, 1]),
    }
    settings: dict[str, Any] = {"seed": 7, "epoch": 0, "ranges": DEFAULT, "mean": (0.0,), "std": (1.0,)}
    with pytest.raises(ValueError, match=re.escape(message)):
        augment(**right | settings | wrong)


MUTATIONS = {
    "the kernel itself": ("PIXELS = 1024", "PIXELS = 1024"),
    "flips exchanged": ("flip_x_word, flip_y_word = tl.philox", "flip_y_word, flip_x_word = tl.philox"),
    "vertical flip left out": ("y = tl.where(flipped_y, -y, y)", "y = y"),
    "angle sign": (
        "cos * x_offset - sin * y_offset, sin * x_offset + cos * y_offset",
        "cos * x_offset + sin * y_offset, cos * y_offset - sin * x_offset",
    ),
    "zoom inverted": ("cos / zoom, sin / zoom", "cos * zoom, sin * zoom"),
    "half a pixel": ("(pixel % WIDTH) + (0.5 - WIDTH / 2)", "(pixel % WIDTH) - WIDTH / 2"),
    "1/100 pixel": ("(pixel // WIDTH) + (0.5 -", "(pixel // WIDTH) + (0.51 -"),
    "height for width": ("(WIDTH / 2 - 0.5)", "(HEIGHT / 2 - 0.5)"),
    "nearest": (
        "left, top = tl.floor(x), tl.floor(y)",
        "x, y = tl.floor(x + 0.5), tl.floor(y + 0.5)\n    left, top = x, y",
    ),
    "border repeated": (
        "tl.load(image_ptr + y * WIDTH + x, mask=inside, other=0)",
        "tl.load(image_ptr + tl.clamp(y + 0.0, 0.0, HEIGHT - 1.0).to(tl.int32) * WIDTH"
        " + tl.clamp(x + 0.0, 0.0, WIDTH - 1.0).to(tl.int32))",
    ),
    "not clipped after the noise": (
        "grey = tl.clamp(grey + noise_sigma * noise, 0.0, 1.0)",
        "grey = grey + noise_sigma * noise",
    ),
    "noise without copy": ("tl.zeros_like(group).to(tl.uint32) + copy", "tl.zeros_like(group).to(tl.uint32)"),
    "noise without image": ("tl.zeros_like(group).to(tl.uint32) + image", "tl.zeros_like(group).to(tl.uint32)"),
    "noise keyed by block": ("group = block * (PIXELS // 4) + tl.arange", "group = tl.arange"),
    "noise out of order": (
        "tl.interleave(first_normal, third_normal), tl.interleave(second_normal, fourth_normal)",
        "tl.interleave(first_normal, second_normal), tl.interleave(third_normal, fourth_normal)",
    ),
    "epoch ignored": ("tl.load(epoch_ptr).to(tl.uint32)", "(tl.load(epoch_ptr) * 0).to(tl.uint32)"),
    "upper word of the seed ignored": (" seed,\n        float(", " seed & 0xFFFFFFFF,\n        float("),
    "a round too few": ("tl.constexpr(ROUNDS)", "tl.constexpr(ROUNDS - 1)"),
    "copy 0 augmented": ("augmented = copy > 0", "augmented = copy >= 0"),
    "position ignored": ("position,\n        image,\n", "image,\n        image,\n"),
    "channels exchanged": ("tl.where(channel == 1, shift_1, shift_2)", "tl.where(channel == 1, shift_2, shift_1)"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_rejects_wrong_kernels(name: str, tmp_path: Path) -> None:
    right, wrong = MUTATIONS[name]
    source = Path(fused.__file__).read_text(encoding="utf-8")
    assert source.count(right) == 1
    path = tmp_path / "mutant.py"
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"mutant_{list(MUTATIONS).index(name)}", path)
    assert spec is not None
    assert spec.loader is not None
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    error = difference(
        mutant.augment,
        make_images(37, 53),
        [0, 1, 2, 0],
        [1, 2, 3, 0],
        seed=7 + 2**40,
        epoch=5,
        position=keys([1, 0, 2, 1]),
        **IMAGENET,
    )
    tolerance = 5 * GEOMETRY_TOLERANCE  # in units of the standard deviation
    assert error < tolerance if right == wrong else error > 3 * tolerance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_captured_launch_follows_its_buffers() -> None:
    images = make_images(37, 53)
    image, copy, epoch = keys([0, 0, 0]), keys([1, 1, 1]), keys(0)

    def launch() -> Tensor:
        return run(images, image, copy, epoch=epoch)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        launch()  # compiles
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = launch()
    for new_image, new_copy, new_epoch in [([2, 1, 0], [0, 3, 2], 4), ([1, 1, 0], [2, 0, 7], 2**32 - 1)]:
        image.copy_(keys(new_image))
        copy.copy_(keys(new_copy))
        epoch.fill_(new_epoch)
        graph.replay()
        expected = run(images, new_image, new_copy, epoch=new_epoch, augment_fn=reference)
        torch.testing.assert_close(result, expected, rtol=0, atol=GEOMETRY_TOLERANCE)
