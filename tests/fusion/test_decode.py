"""DALI and torchvision must give the same pixels.

They differ at the border where an image is made smaller: DALI's filter repeats the edge pixel, torchvision's drops the
taps outside and divides by the weights left. FRAME pixels are left out of the comparison.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from fusion import decode
from fusion.decode import BATCH, HAVE_DALI, available_decoder, decode_and_resize, decode_torchvision
from fusion.errors import UserError
from fusion.images import UnreadableImageError, inspect_image

needs_dali = pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")

FRAME = 2
SIZES = [(1, 1), (5, 7), (64, 64), (300, 200), (719, 311)]
MODES = ["L", "RGB"]


def picture(width: int, height: int, mode: str, *, smooth: bool = False) -> Image.Image:
    """Return a random image, for RGB with independent channels."""
    values = np.random.default_rng(width * height).random((height, width, len(mode)))
    if smooth:
        values = gaussian_filter(values, (2, 2, 0))
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return Image.fromarray(np.squeeze((values * 255).astype(np.uint8), axis=2 if mode == "L" else ()), mode)


def save_all(folder: Path, suffix: str, mode: str, *, smooth: bool = False) -> list[Path]:
    paths = []
    for width, height in SIZES:
        paths.append(folder / f"{width}x{height}{suffix}")
        picture(width, height, mode, smooth=smooth).save(paths[-1])
        assert inspect_image(paths[-1]).plain
    return paths


def decoded(paths: list[Path], size: int, decoder: decode.Decoder) -> np.ndarray:
    return np.concatenate(list(decode_and_resize(paths, size, decoder)))


def difference(paths: list[Path], size: int) -> np.ndarray:
    """Return [N, size - 2 FRAME, size - 2 FRAME]: grey levels between the two decoders."""
    first, second = (decoded(paths, size, decoder)[:, 0].astype(int) for decoder in ("dali", "torchvision"))
    assert first.shape == (len(paths), size, size)
    return np.abs(first - second)[:, FRAME:-FRAME, FRAME:-FRAME]


@needs_dali
@pytest.mark.parametrize("size", [64, 150, 300])
@pytest.mark.parametrize("mode", MODES)
def test_decoders_agree_on_png(tmp_path: Path, mode: str, size: int) -> None:
    far = difference(save_all(tmp_path, ".png", mode), size)
    assert far.max() <= 2
    assert far.mean() <= 0.6  # DALI rounds grey, Pillow truncates it


@needs_dali
@pytest.mark.parametrize("size", [64, 150, 300])
@pytest.mark.parametrize("mode", MODES)
def test_decoders_agree_on_jpeg(tmp_path: Path, mode: str, size: int) -> None:
    far = difference(save_all(tmp_path, ".jpg", mode, smooth=True), size)
    assert far.max() <= 2
    assert far.mean() <= 0.3


@needs_dali
def test_decoders_agree_on_jpeg_of_coloured_noise_but_for_few_pixels(tmp_path: Path) -> None:
    # DALI takes the luma as stored; Pillow goes by RGB, which clips what lies outside the colour cube.
    far = difference(save_all(tmp_path, ".jpg", "RGB"), 300)
    assert far.mean() <= 0.5
    assert (far > 2).mean() <= 0.02
    assert far.max() <= 30


@needs_dali
def test_the_comparison_rejects_a_shift_of_half_a_pixel(tmp_path: Path) -> None:
    path = save_all(tmp_path, ".png", "L")[2]
    values = np.asarray(Image.open(path)).astype(float)
    shifted = (values + np.roll(values, 1, axis=1)) / 2
    dali = decoded([path], 64, "dali")[0, 0]
    assert np.abs(dali - shifted)[FRAME:-FRAME, FRAME:-FRAME].max() > 20


@needs_dali
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_both_decoders_ignore_the_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    image = picture(48, 32, "L", smooth=True)
    plain, marked = tmp_path / f"plain{suffix}", tmp_path / f"marked{suffix}"
    image.save(plain)
    image.save(marked, exif=exif)
    with Image.open(marked) as opened:
        assert opened.getexif()[274] == orientation
    for decoder in ("dali", "torchvision"):
        first, second = decoded([plain, marked], 40, decoder)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path, decoder: decode.Decoder) -> None:
    path = tmp_path / "a.png"
    picture(64, 64, "L").save(path)
    result = decoded([path], 64, decoder)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[0, 0], np.asarray(Image.open(path)))


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_files_come_in_order_and_in_batches(tmp_path: Path, decoder: decode.Decoder) -> None:
    paths = []
    for grey in range(BATCH + 7):
        paths.append(tmp_path / f"{grey * 37 % 101}.png")  # neither names nor times tell the order
        Image.new("L", (3, 2), grey).save(paths[-1])
    batches = list(decode_and_resize(paths, 8, decoder))
    assert [batch.shape for batch in batches] == [(BATCH, 1, 8, 8), (7, 1, 8, 8)]
    assert np.concatenate(batches)[:, 0, 4, 4].tolist() == list(range(BATCH + 7))


@pytest.mark.parametrize("size", [10, 50, 90])
def test_torchvision_resizes_as_pillow_does(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.png"
    image = picture(71, 43, "L")
    image.save(path)
    expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode_torchvision(path, size)[0] - expected).max() <= 1


def test_torchvision_names_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        decode_torchvision(tmp_path / "a.png", 8)


def test_without_dali_torchvision_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    picture(5, 7, "L").save(path)
    monkeypatch.setattr(decode, "HAVE_DALI", False)
    assert available_decoder() == "torchvision"
    assert decoded([path], 8, "torchvision").shape == (1, 1, 8, 8)
    batches: Iterator[np.ndarray] = decode_and_resize([path], 8, "dali")
    with pytest.raises(UserError, match=r"'dali' is not installed here.*choose 'torchvision'"):
        next(batches)


@needs_dali
def test_with_dali_dali_is_taken() -> None:
    assert available_decoder() == "dali"


def test_decoding_leaves_the_random_state_of_torch_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(5, 7, "L").save(path)
    before = torch.get_rng_state()
    decoded([path], 8, available_decoder())
    assert torch.equal(torch.get_rng_state(), before)
