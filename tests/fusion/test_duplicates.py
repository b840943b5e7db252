import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fusion import duplicates
from fusion.duplicates import Duplicate, duplicate_pairs, perceptual_hashes, thumbnails

SIZE = 120


def echoes(seed: int) -> np.ndarray:
    """Return an ultrasound-like [SIZE, SIZE] image: soft structures under speckle, darker with depth."""
    rng = np.random.default_rng(seed)
    structure = np.exp(gaussian_filter(rng.standard_normal((SIZE, SIZE)), 8) * 14)
    speckle = gaussian_filter(rng.rayleigh(1, (SIZE, SIZE)), 1)
    return np.clip(90 * structure * speckle * np.linspace(1.2, 0.5, SIZE)[:, None], 0, 255).astype(np.uint8)


def breast(seed: int, scale: float = 1.0) -> np.ndarray:
    """Return a mammogram-like [SIZE, SIZE] image: half an oval of random texture at the left edge, the rest black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    width, half_height = scale * rng.uniform(0.35, 0.6), scale * rng.uniform(0.35, 0.5)
    radius = (x / width) ** 2 + ((y - 0.5 - rng.uniform(-0.1, 0.1)) / half_height) ** 2
    texture = sum(gaussian_filter(rng.standard_normal((SIZE, SIZE)), s) * s for s in (10, 5, 2.5))
    tissue = 110 + 40 * np.asarray(texture) / np.std(np.asarray(texture))
    return np.clip(np.clip((1 - radius) * 8, 0, 1) * tissue, 0, 255).astype(np.uint8)


def stack(*images: np.ndarray) -> np.ndarray:
    return np.stack(images)[:, None]


def pairs_of(images: np.ndarray, modality: list[str] | None = None) -> list[tuple[int, int]]:
    found = duplicate_pairs(images, np.array(modality or ["ultrasound"] * len(images)))
    return [(one.first, one.second) for one in found]


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def cropped(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).crop((1, 1, SIZE - 1, SIZE - 1)).resize((SIZE, SIZE)))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one pixel": lambda image: np.where(np.arange(SIZE * SIZE).reshape(SIZE, SIZE) == 7000, 255 - image, image),
    "brighter": lambda image: np.clip(image * 1.06, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.92).astype(np.uint8),
    "blurred": lambda image: gaussian_filter(image, 0.8),
    "cropped": cropped,
    "JPEG": jpeg,
}


def test_identical_pixels_are_duplicates() -> None:
    images = stack(echoes(0), echoes(1), echoes(0), echoes(2), echoes(0))
    assert pairs_of(images) == [(0, 2), (0, 4)]


def test_a_pair_says_how_it_was_found() -> None:
    images = stack(echoes(0), echoes(1), echoes(0), CHANGES["brighter"](echoes(1)))
    same, near = duplicate_pairs(images, np.array(["ultrasound"] * 4))
    assert same == Duplicate(first=0, second=2, kind="identical", hash_distance=0, similarity=1.0)
    assert near[:3] == (1, 3, "similar")
    first, second = perceptual_hashes(thumbnails(images[[1, 3]]))
    assert near.hash_distance == (first != second).sum() <= 8
    assert 0.95 <= near.similarity < 1


def test_identical_pixels_are_duplicates_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 3)
    images = stack(*(echoes(seed) for seed in range(8)), echoes(1), CHANGES["blurred"](echoes(0)))
    assert pairs_of(images) == [(0, 9), (1, 8)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [echoes, breast])
def test_near_duplicates_are_found(kind: Callable[[int], np.ndarray], change: str) -> None:
    originals = [kind(seed) for seed in range(5)]
    changed = [CHANGES[change](image) for image in originals]
    assert all((a != b).any() for a, b in zip(originals, changed, strict=True))
    assert pairs_of(stack(*originals, *changed)) == [(i, i + 5) for i in range(5)]


def test_different_ultrasound_images_are_not_linked() -> None:
    assert pairs_of(stack(*(echoes(seed) for seed in range(60)))) == []


def test_different_mammograms_are_not_linked() -> None:
    images = stack(*(breast(seed) for seed in range(60)))
    assert (images == 0).mean() > 0.6
    assert pairs_of(images) == []


@pytest.mark.parametrize("scale", [0.5, 0.35])
def test_different_mammograms_of_small_breasts_are_not_linked(scale: float) -> None:
    images = stack(*(breast(seed, scale) for seed in range(60)))
    assert (images == 0).mean() > 0.9
    assert pairs_of(images) == []


def test_images_of_different_modality_are_never_linked() -> None:
    images = stack(echoes(0), CHANGES["blurred"](echoes(0)), CHANGES["brighter"](echoes(0)), CHANGES["JPEG"](echoes(0)))
    modality = ["ultrasound", "mammography", "ultrasound", "other"]
    assert pairs_of(images, modality) == [(0, 2)]


def test_no_image_and_one_image_have_no_duplicates() -> None:
    assert pairs_of(np.zeros((0, 1, 16, 16), np.uint8)) == []
    assert pairs_of(np.zeros((1, 1, 16, 16), np.uint8)) == []


def test_progress_is_told_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    told: list[tuple[int, int]] = []
    images = stack(*(echoes(seed) for seed in range(5)))
    duplicate_pairs(images, np.array(["other"] * 5), progress=lambda *step: told.append(step))
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("size", [8, 64, 77, 300])
def test_thumbnails_are_means_in_0_to_1(size: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (2, 1, size, size), dtype=np.uint8)
    small = thumbnails(image)
    assert small.shape == (2, 64, 64)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small.mean(axis=(1, 2)), image.mean(axis=(1, 2, 3)) / 255, atol=0.02)
    if size == 64:
        np.testing.assert_allclose(small, image[:, 0] / np.float32(255), atol=1e-6)


def test_perceptual_hash_ignores_brightness_and_contrast() -> None:
    small = thumbnails(stack(echoes(4)))
    first = perceptual_hashes(small)
    second = perceptual_hashes(small * np.float32(0.5) + np.float32(0.2))
    assert first.shape == (1, 64)
    assert (first != second).sum() <= 1  # the mean itself is one of the frequencies
    assert 25 < first.sum() < 39
