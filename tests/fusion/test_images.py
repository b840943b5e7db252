import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fusion import images
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8, window_u8

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))  # [48, 64]
DEEP = np.tile(np.linspace(0, 4095, 4096).astype(np.uint16), (4, 1))  # 12-bit content in 16 bits
DAMAGED = r"truncated or damaged|not a readable"
NOISE = np.random.default_rng(0).integers(0, 256, (24, 31), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, body: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_images(tmp_path: Path, suffix: str, mode: str) -> None:
    path = save(tmp_path / f"a{suffix}", Image.fromarray(RAMP).convert(mode))
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.mode, facts.plain) == (64, 48, mode, True)
    assert np.abs(read_grey_u8(path).astype(int) - RAMP).max() <= (0 if suffix == ".png" else 6)


def test_colour_becomes_grey_by_bt601(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (3, 2), (200, 100, 50)))
    assert read_grey_u8(path).tolist() == [[round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)] * 3] * 2


def test_content_decides_the_format_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(RAMP), "JPEG"))
    assert inspect_image(path).plain
    path.write_bytes(encode(Image.fromarray(RAMP), "BMP"))
    with pytest.raises(UnreadableImageError, match="not a readable PNG, JPEG, PPM/PGM, TIFF or DICOM"):
        inspect_image(path)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(0)
    path = save(tmp_path / "a.png", image)
    assert not inspect_image(path).plain
    np.testing.assert_array_equal(read_grey_u8(path), RAMP)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    path = save(tmp_path / "a.png", image, transparency=0 if mode == "L" else (0, 0, 0))
    assert not inspect_image(path).plain
    np.testing.assert_array_equal(read_grey_u8(path), RAMP)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(64))])
def test_palette(tmp_path: Path, transparency: object) -> None:
    image = Image.fromarray(RAMP // 4)
    image = image.convert("P")
    image.putpalette([value for step in range(64) for value in (4 * step,) * 3])
    options = {} if transparency is None else {"transparency": transparency}
    path = save(tmp_path / "a.png", image, **options)
    assert not inspect_image(path).plain
    np.testing.assert_array_equal(read_grey_u8(path), RAMP)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_becomes_0_and_255(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", Image.fromarray(RAMP > 100))
    assert not inspect_image(path).plain
    np.testing.assert_array_equal(read_grey_u8(path), (RAMP > 100) * np.uint8(255))


def test_packed_grey_is_not_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 1, b"\x00\x1b", depth=2))
    assert inspect_image(path).mode == "L"
    assert not inspect_image(path).plain
    assert read_grey_u8(path).tolist() == [[0, 85, 170, 255]]


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_16_bit_keeps_its_contrast(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", Image.fromarray(DEEP))
    facts = inspect_image(path)
    assert facts.mode in ("I;16", "I")
    assert not facts.plain
    grey = read_grey_u8(path)
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.all(np.diff(grey[0].astype(int)) >= 0)
    assert len(np.unique(grey)) == 256


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_keeps_its_contrast(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(DEEP.astype(dtype) - 2000))
    np.testing.assert_array_equal(read_grey_u8(path), window_u8(DEEP))


def test_16_bit_tiff_with_white_as_zero(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(DEEP), tiffinfo={262: 0})
    grey = read_grey_u8(path)
    assert grey[0, 0] == 255
    assert grey[0, -1] == 0


def test_16_bit_colour_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, b"\x00" + bytes(12), depth=16, colour=2))
    with pytest.raises(UnreadableImageError, match="16 bits per channel in mode RGB"):
        inspect_image(path)
    with pytest.raises(UnreadableImageError, match="16 bits per channel in mode RGB"):
        read_grey_u8(path)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 0, 0, 155)))
    assert not inspect_image(path).plain
    assert abs(int(read_grey_u8(path)[0, 0]) - 100) <= 3


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    for suffix in (".png", ".tif"):
        path = save(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
        assert not inspect_image(path).plain
        np.testing.assert_array_equal(read_grey_u8(path), RAMP)


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(RAMP), exif=exif)
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.plain) == (64, 48, True)
    assert read_grey_u8(path).shape == (48, 64)


def test_window() -> None:
    assert window_u8(np.full((2, 3), 7.0)).tolist() == [[0] * 3] * 2
    assert window_u8(np.full((2, 2), np.nan)).tolist() == [[0, 0], [0, 0]]
    assert window_u8(np.array([[np.nan, -np.inf, np.inf, 0.0, 10.0]])).tolist() == [[0, 0, 0, 0, 255]]
    spot = np.zeros((100, 100))
    spot[0, 0] = 5  # a single pixel, outside both percentiles
    assert window_u8(spot).max() == 255
    assert window_u8(np.array([[-1.7e308, 0, 1.7e308]])).shape == (1, 3)


@pytest.mark.parametrize("keep", [1, 8, 20, 33, 50, 200, -13, -12, -5, -1])
def test_truncated_png(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(NOISE), "PNG")[:keep])
    with pytest.raises(UnreadableImageError, match=DAMAGED):
        inspect_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PPM"])
def test_truncated_others(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    data = encode(Image.fromarray(NOISE), kind)
    for keep in (len(data) // 2, len(data) - 40):
        path.write_bytes(data[:keep])
        with pytest.raises(UnreadableImageError, match=DAMAGED):
            inspect_image(path)


def test_wrong_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    data = bytearray(encode(Image.fromarray(NOISE), "PNG"))
    data[data.index(b"IEND") - 5] ^= 1  # the last byte of the CRC of IDAT
    path.write_bytes(data)
    for read in (inspect_image, read_grey_u8):  # the second alone reads what 'predict' and 'measure' are given
        with pytest.raises(UnreadableImageError, match="truncated or damaged"):
            read(path)


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 10_000), (8_001, 8_000)])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size, b"\x00"))
    for read in (inspect_image, read_grey_u8):
        with pytest.raises(UnreadableImageError, match="limit of 64000000"):
            read(path)


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RAMP))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(UnreadableImageError, match="bytes; the limit is 10"):
        inspect_image(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image\n" * 20)
    empty = tmp_path / "empty.png"
    empty.touch()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere.png")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    reasons = {
        text: "not a readable",
        empty: "empty",
        link: "broken symbolic link",
        pipe: "not a regular file",
        tmp_path: "not a regular file",
        tmp_path / "missing.png": "no such file",
        text / "below.png": "truncated or damaged",
    }
    for path, reason in reasons.items():
        for read in (inspect_image, read_grey_u8):
            with pytest.raises(UnreadableImageError, match=reason) as caught:
                read(path)
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_permission_denied(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RAMP))
    path.chmod(0)
    with pytest.raises(UnreadableImageError, match="permission denied"):
        inspect_image(path)


def test_warning_filters_survive_threads(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(NOISE))
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [inspect_image(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


VALID = [
    encode(Image.fromarray(NOISE), "PNG"),
    encode(Image.fromarray(NOISE).convert("RGBA"), "PNG"),
    encode(Image.fromarray(NOISE), "PNG", save_all=True, append_images=[Image.fromarray(255 - NOISE)]),
    encode(Image.fromarray(NOISE).convert("RGB"), "JPEG"),
    encode(Image.fromarray(NOISE), "TIFF"),
    encode(Image.fromarray(NOISE), "TIFF", compression="tiff_lzw"),
    encode(Image.fromarray(NOISE.astype(np.uint16)), "TIFF"),
    encode(Image.fromarray(NOISE), "PPM"),
]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[position] = value
    path = tmp_path / "a"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    for read in (inspect_image, read_grey_u8):
        with contextlib.suppress(UnreadableImageError):
            read(path)


def many_chunks() -> bytes:
    return png(8, 8, b"").replace(chunk(b"IEND", b""), chunk(b"vpAg", b"") * 40)


def many_scans() -> bytes:
    content = encode(Image.fromarray(NOISE), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * 30 + content[-2:]


def many_segments() -> bytes:
    content = encode(Image.fromarray(NOISE), "JPEG")
    return content[:2] + b"\xff\xe9\x00\x02" * 40 + content[2:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (many_chunks, "more than 20 parts in a PNG"),
        (many_segments, "more than 20 parts in a JPEG"),
        (many_scans, "scans in a JPEG; the limit is 30"),
        (lambda: b"P2 1 1 255 " + b"0 " * 100, "211 bytes of text; the limit is 99"),
        (lambda: b"P5 #" + b"x" * 2**16, "no PGM header in its first 64 KiB"),
        (lambda: b"P5" + b" " * 2**16, "no PGM header in its first 64 KiB"),
    ],
)
def test_a_file_that_would_be_read_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes], reason: str
) -> None:
    monkeypatch.setattr(images, "MAX_PARTS", 20)
    monkeypatch.setattr(images, "MAX_TEXT_BYTES", 99)
    path = tmp_path / "a.png"
    path.write_bytes(content())
    for read in (inspect_image, read_grey_u8):
        with pytest.raises(UnreadableImageError, match=reason):
            read(path)
