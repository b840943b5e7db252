import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import map_coordinates
from torch import Tensor

from kernels.augment_reference import AugmentationRange, RowParameters, augment, draw_parameters, standard_normal

SIZES = [(1, 1), (37, 53), (64, 64)]
TOLERANCE = 1e-3
"""Grey units of 0..1: float32 coordinates against float64."""
SIGMAS = 5
DEFAULT = AugmentationRange()
STILL = AugmentationRange(rotation_degrees=0, zoom_low=1, zoom_high=1, horizontal_flip=False, vertical_flip=False)
GEOMETRY = AugmentationRange(noise_sigma=0)
EXTREMES = [
    GEOMETRY,
    replace(GEOMETRY, rotation_degrees=180, zoom_low=0.2, zoom_high=5),
    replace(GEOMETRY, rotation_degrees=180, zoom_low=0.1, zoom_high=0.1),
    replace(GEOMETRY, rotation_degrees=0, zoom_low=8, zoom_high=8),
]


def random_images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (count, 1, height, width), dtype=torch.uint8, generator=generator)


def run(
    images: Tensor,
    image: list[int] | Tensor,
    copy: list[int] | Tensor,
    *,
    seed: int = 7,
    epoch: int = 0,
    ranges: AugmentationRange = DEFAULT,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    return augment(
        images,
        torch.as_tensor(image),
        torch.as_tensor(copy),
        seed=seed,
        epoch=epoch,
        ranges=ranges,
        mean=mean,
        std=std,
        dtype=dtype,
    )


def turned(
    image: np.ndarray,
    angle: float,
    zoom: float,
    flip_x: bool,
    flip_y: bool,
    *,
    shift: float = 0.0,
    flip_last: bool = False,
    mode: str = "grid-constant",
) -> np.ndarray:
    """Return [H, W] in 0..1: flipped, turned counter-clockwise by ``angle`` degrees, zoomed; points as complex numbers.

    The keywords make it wrong on purpose.
    """
    flip = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
    source = image / 255.0 if flip_last else image[flip] / 255.0
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    offset = (x + 0.5 - width / 2) + 1j * (y + 0.5 - height / 2)  # pixel centres, y down
    point = offset * np.exp(1j * np.deg2rad(angle)) / zoom + (width / 2 + 1j * height / 2) + shift * (1 + 1j)
    result = map_coordinates(source, [point.imag - 0.5, point.real - 0.5], order=1, mode=mode, cval=0.0)
    return result[flip] if flip_last else result


def drawn(
    ranges: AugmentationRange, image: Tensor, copy: Tensor, *, seed: int = 7, epoch: int = 0
) -> list[tuple[float, float, bool, bool]]:
    parameters = draw_parameters(ranges, seed, image, copy, epoch)
    columns = (parameters.angle_degrees, parameters.zoom, parameters.flip_x, parameters.flip_y)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.25,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_copy_0_passes_through_exactly(dtype: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    images = random_images(5, 37, 53)
    result = run(images, [4, 1, 1, 0], [0, 2, 0, 0], mean=mean, std=std, dtype=dtype)
    assert result.dtype == dtype
    assert result.shape == (4, len(mean), 37, 53)
    for row, image in ((0, 4), (2, 1), (3, 0)):
        for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
            expected = (images[image, 0].numpy() / np.float32(255) - np.float32(m)) / np.float32(s)
            assert torch.equal(result[row, channel], torch.from_numpy(expected).to(dtype))
    assert not torch.equal(result[1], result[2])


def test_channels_differ_by_their_normalisation_alone() -> None:
    images = random_images(2, 16, 24)
    plain = run(images, [0, 1, 1], [1, 2, 3])
    result = run(images, [0, 1, 1], [1, 2, 3], mean=(0.4, 0.0, 0.9), std=(0.2, 1.0, 3.0))
    for channel, (mean, std) in enumerate(((0.4, 0.2), (0.0, 1.0), (0.9, 3.0))):
        torch.testing.assert_close(result[:, channel], (plain[:, 0] - mean) / std, rtol=0, atol=1e-6)


def test_the_images_are_left_as_they_were() -> None:
    images = random_images(2, 9, 9)
    before = images.clone()
    run(images, [0, 1], [0, 1])
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_channels_last(channels: int) -> None:
    result = run(random_images(2, 10, 12), [0, 1, 0], [0, 1, 2], mean=(0.5,) * channels, std=(0.5,) * channels)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.permute(0, 2, 3, 1).is_contiguous()


def test_parameters_are_uniform_inside_their_ranges() -> None:
    count = 20_000
    image, copy = torch.arange(count), torch.ones(count, dtype=torch.int64)
    drawn_once = draw_parameters(DEFAULT, 11, image, copy, 0)
    angle, zoom = drawn_once.angle_degrees.numpy(), drawn_once.zoom.numpy()
    assert np.abs(angle).max() < 30
    assert stats.kstest(angle, stats.uniform(-30, 60).cdf).pvalue > 1e-4
    assert 0.8 < zoom.min() < zoom.max() < 1.2
    assert stats.kstest(zoom, stats.uniform(0.8, 0.4).cdf).pvalue > 1e-4
    flips = [drawn_once.flip_x.numpy(), drawn_once.flip_y.numpy()]
    for flip in flips:
        assert abs(flip.mean() - 0.5) < SIGMAS * 0.5 / math.sqrt(count)
    correlation = np.corrcoef(np.stack([angle, zoom, *flips]))
    assert np.abs(correlation - np.eye(4)).max() < SIGMAS / math.sqrt(count)
    assert torch.equal(drawn_once.noise_sigma, torch.full((count,), 0.1))


def test_parameters_of_copy_0_are_neutral() -> None:
    image = torch.arange(50)
    neutral = draw_parameters(DEFAULT, 3, image, torch.zeros_like(image), 9)
    assert not neutral.angle_degrees.any()
    assert (neutral.zoom == 1).all()
    assert not (neutral.flip_x | neutral.flip_y).any()
    assert not neutral.noise_sigma.any()
    assert torch.equal(neutral.inverse_affine(), torch.eye(2).expand(50, 2, 2))


def test_flips_can_be_switched_off_one_by_one() -> None:
    image = torch.arange(100)
    both = draw_parameters(DEFAULT, 3, image, image + 1, 0)
    no_x = draw_parameters(replace(DEFAULT, horizontal_flip=False), 3, image, image + 1, 0)
    no_y = draw_parameters(replace(DEFAULT, vertical_flip=False), 3, image, image + 1, 0)
    assert not no_x.flip_x.any()
    assert not no_y.flip_y.any()
    assert torch.equal(no_x.flip_y, both.flip_y)
    assert torch.equal(no_y.flip_x, both.flip_x)


def test_the_result_does_not_depend_on_the_batch() -> None:
    images = random_images(6, 37, 53)
    image = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    copy = torch.tensor([0, 1, 2, 0, 3, 1, 1, 2])
    whole = run(images, image, copy)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    assert torch.equal(run(images, image[order], copy[order]), whole[order])
    alone = [run(images, image[row : row + 1], copy[row : row + 1]) for row in range(len(image))]
    assert torch.equal(torch.cat(alone), whole)


def test_seed_image_copy_and_epoch_each_change_the_result() -> None:
    images = random_images(1, 12, 12).expand(2, -1, -1, -1)
    base = run(images, [0], [1], seed=1, epoch=0)
    others = [
        run(images, [0], [1], seed=2, epoch=0),
        run(images, [1], [1], seed=1, epoch=0),
        run(images, [0], [2], seed=1, epoch=0),
        run(images, [0], [1], seed=1, epoch=1),
    ]
    assert torch.equal(run(images, [0], [1], seed=1, epoch=0), base)
    for first, second in itertools.combinations([base, *others], 2):
        assert (first - second).abs().max() > 0.05


@pytest.mark.parametrize("ranges", EXTREMES)
@pytest.mark.parametrize("batch", [1, 2, 65])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_geometry_equals_scipy(height: int, width: int, batch: int, ranges: AugmentationRange) -> None:
    images = random_images(7, height, width)
    image, copy = torch.arange(batch) % 7, torch.arange(batch) // 7 + 1
    result = run(images, image, copy, ranges=ranges)[:, 0].numpy()
    for row, choice in enumerate(drawn(ranges, image, copy)):
        expected = turned(images[image[row], 0].numpy(), *choice)
        np.testing.assert_allclose(result[row], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image, angle, zoom, x, y: turned(image, -angle, zoom, x, y),
        lambda image, angle, zoom, x, y: turned(image, angle, 1 / zoom, x, y),
        lambda image, angle, zoom, x, y: turned(image, angle, zoom, y, x),
        lambda image, angle, zoom, x, y: turned(image, angle, zoom, x, y, shift=0.5),
        lambda image, angle, zoom, x, y: turned(image, angle, zoom, x, y, shift=0.01),
        lambda image, angle, zoom, x, y: turned(image, angle, zoom, x, y, flip_last=True),
        lambda image, angle, zoom, x, y: turned(image, angle, zoom, x, y, mode="nearest"),
    ],
    ids=["angle sign", "zoom inverted", "flips exchanged", "half a pixel", "1/100 pixel", "flip last", "border"],
)
def test_the_comparison_rejects_wrong_geometry(wrong: object) -> None:
    images = random_images(7, 37, 53)
    image = torch.arange(20) % 7
    result = run(images, image, image + 1, ranges=GEOMETRY)[:, 0].numpy()
    choices = drawn(GEOMETRY, image, image + 1)
    variants = np.stack([wrong(images[i, 0].numpy(), *c) for i, c in zip(image, choices, strict=True)])  # type: ignore[operator]
    assert np.abs(result - variants).max() > 3 * TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_a_turn_by_180_degrees_reverses_both_axes(size: tuple[int, int]) -> None:
    parameters = RowParameters(
        angle_degrees=torch.tensor([180.0, -180.0]),
        zoom=torch.ones(2),
        flip_x=torch.zeros(2, dtype=torch.bool),
        flip_y=torch.zeros(2, dtype=torch.bool),
        noise_sigma=torch.zeros(2),
    )
    torch.testing.assert_close(parameters.inverse_affine(), -torch.eye(2).expand(2, 2, 2), rtol=0, atol=1e-6)
    image = random_images(1, *size)[0, 0].numpy()
    np.testing.assert_allclose(turned(image, 180.0, 1.0, False, False), image[::-1, ::-1] / 255, rtol=0, atol=1e-9)


def brightest(values: Tensor) -> tuple[float, float]:
    """Return the offset (x, y) of the centre of brightness from the image's centre, y down."""
    height, width = values.shape
    total = values.sum()
    x = (values.sum(0) * (torch.arange(width) + 0.5 - width / 2)).sum() / total
    y = (values.sum(1) * (torch.arange(height) + 0.5 - height / 2)).sum() / total
    return float(x), float(y)


def test_a_positive_angle_turns_counter_clockwise_on_screen() -> None:
    images = torch.zeros(40, 1, 41, 41, dtype=torch.uint8)
    images[:, 0, 20, 36] = 255  # 16 px right of the centre
    ranges = replace(STILL, rotation_degrees=60, noise_sigma=0)
    image = torch.arange(40)
    result = run(images, image, image + 1, ranges=ranges)[:, 0]
    angles = [choice[0] for choice in drawn(ranges, image, image + 1)]
    assert min(angles) < -20
    assert max(angles) > 20
    for row, angle in enumerate(angles):
        x, y = brightest(result[row])
        assert x == pytest.approx(16 * math.cos(math.radians(angle)), abs=0.3)
        assert y == pytest.approx(-16 * math.sin(math.radians(angle)), abs=0.3)


def test_flips_come_before_the_turn() -> None:
    images = torch.zeros(40, 1, 41, 41, dtype=torch.uint8)
    images[:, 0, 12, 34] = 255  # (14, -8) from the centre
    ranges = replace(GEOMETRY, zoom_low=1, zoom_high=1)
    image = torch.arange(40)
    result = run(images, image, image + 1, ranges=ranges)[:, 0]
    seen = set()
    for row, (angle, _, flip_x, flip_y) in enumerate(drawn(ranges, image, image + 1)):
        start = complex(-14 if flip_x else 14, 8 if flip_y else -8)
        end = start * np.exp(-1j * math.radians(angle))  # counter-clockwise where y points down
        assert brightest(result[row]) == pytest.approx((end.real, end.imag), abs=0.3)
        seen.add((flip_x, flip_y))
    assert len(seen) == 4


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom_above_1_enlarges(zoom: float) -> None:
    images = torch.zeros(1, 1, 80, 80, dtype=torch.uint8)
    images[0, 0, 30:50, 30:50] = 255
    result = run(images, [0], [1], ranges=replace(STILL, zoom_low=zoom, zoom_high=zoom, noise_sigma=0))
    assert float(result.sum()) == pytest.approx(400 * zoom**2, rel=0.05)


def noise_of(epoch: int = 0, seed: int = 5, rows: int = 16, grey: int = 128) -> np.ndarray:
    """Return [rows, 128, 128]: the noise of a flat image in units of its standard deviation."""
    images = torch.full((rows, 1, 128, 128), grey, dtype=torch.uint8)
    image = torch.arange(rows) // 2
    copy = torch.arange(rows) % 2 + 1
    result = run(images, image, copy, seed=seed, epoch=epoch, ranges=replace(STILL, noise_sigma=0.05))
    return ((result[:, 0].double() - grey / 255) / 0.05).numpy()


def test_noise_is_standard_normal() -> None:
    noise = noise_of()
    assert abs(noise.mean()) < SIGMAS / math.sqrt(noise.size)
    assert abs(noise.var() - 1) < SIGMAS * math.sqrt(2 / noise.size)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (0, 3), (0, 4), (2, 0)])
def test_noise_of_neighbours_is_uncorrelated(step: tuple[int, int]) -> None:
    noise = noise_of()
    moved = np.roll(noise, step, axis=(1, 2))
    assert abs((noise * moved).mean()) < SIGMAS / math.sqrt(noise.size)


def test_noise_of_rows_copies_epochs_and_seeds_is_uncorrelated() -> None:
    noise = np.concatenate([noise_of(), noise_of(epoch=1), noise_of(seed=6), noise_of(seed=5 + 2**32)])
    pairs = np.corrcoef(noise.reshape(len(noise), -1))
    assert np.abs(pairs - np.eye(len(noise))).max() < (SIGMAS + 1) / 128  # 2016 pairs


def test_noise_does_not_depend_on_the_image() -> None:
    np.testing.assert_allclose(noise_of(grey=120), noise_of(grey=130), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (37, 53)])
def test_noise_of_a_pixel_is_a_function_of_its_number_along_rows(height: int, width: int) -> None:
    image, copy = torch.tensor([0, 3]), torch.tensor([1, 2])
    flat = standard_normal(4, image, copy, 0, 1, height * width)
    shaped = standard_normal(4, image, copy, 0, height, width)
    assert torch.equal(shaped, flat.reshape(2, height, width))


def test_grey_is_clipped_before_it_is_normalised() -> None:
    images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    images[1] = 255
    ranges = replace(STILL, noise_sigma=0.5)
    result = run(images, [0, 1], [1, 1], ranges=ranges, mean=(0.5,), std=(0.25,))
    assert result.min() == -2
    assert result.max() == 2
    for row, end in ((0, -2), (1, 2)):
        share = float((result[row] == end).double().mean())
        assert abs(share - 0.5) < SIGMAS * 0.5 / 64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rotation_degrees": -1}, "rotation_degrees -1 is outside 0..180"),
        ({"rotation_degrees": 180.5}, "rotation_degrees 180.5"),
        ({"rotation_degrees": math.nan}, "rotation_degrees nan"),
        ({"zoom_low": 0}, "zoom 0..1.2: 0.01 <= zoom_low <= zoom_high <= 100 is needed"),
        ({"zoom_low": -0.5}, "zoom -0.5..1.2"),
        ({"zoom_low": 1.3}, "zoom 1.3..1.2"),
        ({"zoom_high": math.nan}, "zoom 0.8..nan"),
        ({"zoom_high": math.inf}, "zoom 0.8..inf"),
        ({"zoom_high": 101}, "zoom 0.8..101"),
        ({"zoom_low": 0.009}, "zoom 0.009..1.2"),
        ({"noise_sigma": -0.1}, "noise_sigma -0.1 is outside 0..1"),
        ({"noise_sigma": 1.1}, "noise_sigma 1.1"),
        ({"noise_sigma": math.nan}, "noise_sigma nan"),
    ],
)
def test_ranges_outside_their_bounds_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationRange(**wrong)  # type: ignore[arg-type]


def test_ranges_at_their_bounds_are_accepted() -> None:
    AugmentationRange(rotation_degrees=180, zoom_low=0.01, zoom_high=100, noise_sigma=1)
    AugmentationRange(rotation_degrees=0, noise_sigma=0)
