"""Grey-level images read safely: files are input from outside and may be damaged, hostile or of any pixel type."""

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from fusion.errors import UserError

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 64 * 10**6
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".tif", ".tiff", ".dcm")
MAX_JPEG_SCANS = 30
"""Each refines the whole image again: a small file of many would be decoded for hours. Encoders write 1 to 10."""
MAX_PARTS = 50_000
"""Chunks of a PNG, segments of a JPEG; an image of the largest size has a tenth of it."""
MAX_TEXT_BYTES = 4 * 2**20
"""Of a PGM that writes its pixels as text, which Pillow reads a million a second."""
WINDOW_PERCENTILES = (0.1, 99.9)

_PILLOW_FORMATS = ("PNG", "JPEG", "PPM", "TIFF")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_PHOTOMETRIC_TAG = 262
_JPEG_SEGMENT = re.compile(rb"\xff[\xc4\xdb\xe0-\xfe]", re.DOTALL)
_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\xaeB`\x82"  # the checksum of the last chunk, which Pillow does not read


class UnreadableImageError(Exception):
    """The file cannot be used as an image; the message is a short reason on one line, without the path."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of an image file that was decoded without a fault."""

    width: int
    """Pixels, as stored: an EXIF orientation is not applied."""
    height: int
    mode: str
    """Pillow's mode, or the photometric interpretation of a DICOM file."""
    plain: bool
    """True for an 8-bit PNG or JPEG of mode L or RGB, neither transparent nor animated: DALI decodes it directly."""


def inspect_image(path: Path) -> ImageFacts:
    """Return the facts of the image at ``path`` after decoding all of it.

    The content decides the format, not the suffix. The limits are checked on the header, before any pixel is decoded.
    The checksums of a PNG are verified.

    Raises:
        UnreadableImageError: missing, too large, truncated, damaged, or not PNG, JPEG, PPM/PGM, TIFF or DICOM.
        UserError: a DICOM file, but pydicom is not installed.
    """
    with _reading(path) as file:
        if _is_dicom(file):
            pixels, mode = _decode_dicom(file)
            return ImageFacts(width=pixels.shape[1], height=pixels.shape[0], mode=mode, plain=False)
        _verify(file)
        with _open(file) as image:
            plain = _is_plain(image)
            image.load()
            return ImageFacts(width=image.width, height=image.height, mode=image.mode, plain=plain)


def read_grey_u8(path: Path) -> NDArray[np.uint8]:
    """Return the first frame of the image at ``path`` as grey values, ``[height, width]`` in 0..255.

    Colour becomes grey by ITU-R BT.601 (Pillow's ``L``). Alpha is dropped, never composited: in BUSI it is all on or
    all off and carries nothing. An EXIF orientation is ignored. Deeper pixels are mapped by ``window_u8``. The
    checksums of a PNG are verified.

    Raises:
        UnreadableImageError: as ``inspect_image``.
        UserError: a DICOM file, but pydicom is not installed.
    """
    with _reading(path) as file:
        if _is_dicom(file):
            return _decode_dicom(file)[0]
        _verify(file)
        with _open(file) as image:
            if image.mode in _DEEP_MODES:
                values = np.asarray(image, np.float64)
                tags: Any = getattr(image, "tag_v2", {})
                white_is_zero = tags.get(_PHOTOMETRIC_TAG) == 0  # Pillow undoes it for 8 bits, not for 16
                return window_u8(-values if white_is_zero else values)
            return _grey(image)


def window_u8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map ``values`` of any real type and shape linearly to uint8: 0.1 percentile to 0, 99.9 percentile to 255.

    The range of the type says little: 12-bit content in a 16-bit container would fill a sixteenth of the grey scale,
    and the plain maximum is often set by a few burnt-in or dead pixels. Where both percentiles agree, minimum and
    maximum are taken; a constant image becomes 0. NaN and infinity count as the smallest value.
    """
    wide = values.astype(np.float64)
    usable = np.isfinite(wide)
    finite = wide[usable]
    if finite.size == 0:
        return np.zeros(wide.shape, np.uint8)
    low, high = np.percentile(finite, WINDOW_PERCENTILES, overwrite_input=True)
    if high <= low:
        low, high = finite.min(), finite.max()
    if high <= low:
        return np.zeros(wide.shape, np.uint8)
    wide[~usable] = low
    np.clip(wide, low, high, out=wide)
    with np.errstate(all="ignore"):  # a range beyond float64 gives NaN, which becomes 0
        return np.nan_to_num(np.rint((wide - low) * (255 / (high - low)))).astype(np.uint8)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the decoders' warnings; the first thread to enter sets the filter, the last to leave restores it."""
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.simplefilter("ignore")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for decoding; whatever goes wrong inside becomes an ``UnreadableImageError``."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
            raise UnreadableImageError("not a regular file")
        if facts.st_size == 0:
            raise UnreadableImageError("the file is empty (0 bytes)")
        if facts.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"{facts.st_size} bytes; the limit is {MAX_FILE_BYTES}")
        with _quiet(), path.open("rb") as file:
            yield file
    except (UnreadableImageError, UserError):
        raise
    except FileNotFoundError:
        raise UnreadableImageError("broken symbolic link" if path.is_symlink() else "no such file") from None
    except PermissionError:
        raise UnreadableImageError("permission denied") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImageError("not a readable PNG, JPEG, PPM/PGM, TIFF or DICOM image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"the header claims more than the limit of {MAX_PIXELS} pixels") from None
    except MemoryError:
        raise UnreadableImageError("decoding needs more memory than there is") from None
    except Exception as error:  # decoders raise nearly anything on damaged input
        reason = " ".join(str(error).split())[:120]
        raise UnreadableImageError(f"truncated or damaged ({reason or type(error).__name__})") from error


def _check_pixels(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise UnreadableImageError(f"{width} x {height} is no image size")
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    """Return the image of ``file``, header read and checked, pixels not yet decoded."""
    _check_cost(file)
    file.seek(0)
    image = Image.open(file, formats=_PILLOW_FORMATS)
    _check_pixels(*image.size)
    if "16" in _raw_mode(image) and image.mode not in _DEEP_MODES:  # Pillow would keep the high byte only
        raise UnreadableImageError(f"16 bits per channel in mode {image.mode}; save it as 16-bit or 8-bit grey")
    return image


def _check_cost(file: BinaryIO) -> None:
    """Check that reading the file takes no minutes, which its size and its pixels do not tell."""
    head = _at(file, 0, 2**16)
    kind, parts = "", 0
    if head.startswith(_PNG_START):
        kind, place = "PNG", len(_PNG_START)
        while parts <= MAX_PARTS and len(header := _at(file, place, 4)) == 4:
            parts, place = parts + 1, place + 12 + int.from_bytes(header, "big")
    elif head.startswith(_JPEG_START):  # within the data of a scan the markers that are counted can't occur
        kind, content = "JPEG", _at(file, 0, MAX_FILE_BYTES)
        if (scans := content.count(b"\xff\xda")) > MAX_JPEG_SCANS:
            raise UnreadableImageError(f"{scans} scans in a JPEG; the limit is {MAX_JPEG_SCANS}")
        parts = sum(1 for _ in islice(_JPEG_SEGMENT.finditer(content), MAX_PARTS + 1))
    elif head.startswith(b"P"):  # PGM and its like
        if len(head) == 2**16 and len(re.sub(rb"#[^\r\n]*[\r\n]?", b" ", head).split(None, 3)) < 4:
            raise UnreadableImageError("truncated or damaged (no PGM header in its first 64 KiB)")
        if head[1:2] in (b"1", b"2", b"3") and (size := file.seek(0, os.SEEK_END)) > MAX_TEXT_BYTES:
            raise UnreadableImageError(f"{size} bytes of text; the limit is {MAX_TEXT_BYTES}; save it as bytes")
    if parts > MAX_PARTS:
        raise UnreadableImageError(f"more than {MAX_PARTS} parts in a {kind}")


def _verify(file: BinaryIO) -> None:
    """Check the checksums of a PNG, which its decoder alone would not do."""
    with _open(file) as image:
        if image.format == "PNG":
            image.verify()
            if file.read(4) != _PNG_END:
                raise UnreadableImageError("truncated or damaged (the end of the PNG)")


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how the pixels are packed in the file, e.g. ``RGB;16B`` for an image of mode RGB."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_plain(image: ImageFile.ImageFile) -> bool:
    """Tell whether DALI decodes the image as it is; to be asked before ``load()``, which empties the tile list."""
    return (
        image.get_format_mimetype() in ("image/png", "image/jpeg")
        and image.mode in ("L", "RGB")
        and _raw_mode(image) == image.mode
        and "transparency" not in image.info
    )


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    image.info.pop("transparency", None)
    if image.mode in ("1", "L", "RGB"):
        return np.array(image.convert("L"))
    if image.mode in ("LA", "La"):
        return np.array(image.getchannel(0))
    return np.array(image.convert("RGB").convert("L"))


def _is_dicom(file: BinaryIO) -> bool:
    return file.read(132)[128:] == b"DICM"


def _decode_dicom(file: BinaryIO) -> tuple[NDArray[np.uint8], str]:
    """Return the grey pixels ``[height, width]`` of a single-frame DICOM file and its photometric interpretation."""
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, pixel_array
    except ImportError:
        raise UserError('reading DICOM needs pydicom: pip install "fusebench[dicom]"') from None
    syntax = pydicom.filereader.read_file_meta_info(file.name).TransferSyntaxUID
    if syntax.is_deflated:
        raise UnreadableImageError("deflated DICOM is not read, as its size is unknown before it is inflated")
    file.seek(0)
    data = pydicom.dcmread(file)
    _check_pixels(int(data.Columns), int(data.Rows))
    if int(data.get("NumberOfFrames") or 1) != 1:
        raise UnreadableImageError(f"{data.NumberOfFrames} frames; only single-frame DICOM is read")
    if syntax.is_compressed and syntax != pydicom.uid.RLELossless:
        _check_codestream(data.PixelData)
    mode = str(data.PhotometricInterpretation)
    if mode in ("MONOCHROME1", "MONOCHROME2"):
        values = np.asarray(apply_modality_lut(pixel_array(data), data), np.float64)
        return window_u8(-values if mode == "MONOCHROME1" else values), mode
    if mode == "RGB" or mode.startswith("YBR"):
        return np.array(Image.fromarray(pixel_array(data)).convert("L")), mode
    raise UnreadableImageError(f"photometric interpretation {mode!r} is not read; MONOCHROME1/2, RGB and YBR are")


def _check_codestream(encoded: bytes) -> None:
    """Check the size that a JPEG 2000 codestream claims for itself, which decoders believe above the DICOM header."""
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start >= 0:
        field = [int.from_bytes(encoded[start + offset : start + offset + 4], "big") for offset in (8, 12, 16, 20)]
        _check_pixels(field[0] - field[2], field[1] - field[3])
