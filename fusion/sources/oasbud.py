"""OASBUD: raw ultrasound echoes of breast lesions (Piotrzkowska-Wroblewska et al., Med. Phys. 44 (2017) 6105)."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import hilbert

from fusion.catalog import ImageRecord
from fusion.errors import UserError
from fusion.files import make_folder, replacing, write_json
from fusion.sources.matfile import Struct, Value, read_mat

AXIAL_STEP_MM = 1540e3 / (2 * 40e6)
"""Depth of one sample: speed of sound 1540 m/s, sampled at 40 MHz, there and back."""
LATERAL_STEP_MM = 38 / 510
"""Width of one scan line: 510 lines over 38 mm."""
DROPPED_ROWS = 20
RANGE_DB = 50.0
REFERENCE_PERCENTILE = 99.9

MIN_SAMPLES = 2 * DROPPED_ROWS
MAX_SAMPLES = 2**23
FULL_SET = {0: 48, 1: 52}
FIELDS = ("id", "rf1", "rf2", "class")
REGIONS = ("roi1", "roi2")
"""Fields of the lesions' regions; a file may lack them."""


@dataclass(frozen=True)
class _Lesion:
    position: int
    code: str
    label: int
    scans: tuple[NDArray[np.number], NDArray[np.number]]
    regions: tuple[NDArray[np.number] | None, NDArray[np.number] | None]
    """Of the lesion in each scan, of its shape; None where the file holds none that fits."""


def bmode_from_rf(rf: NDArray[np.number]) -> NDArray[np.uint8]:
    """Return the B-mode image ``[height, width]`` of one scan of echoes ``[samples, lines]``, with square pixels.

    The first 20 rows (0.4 mm) hold transmit artefacts, not tissue. The envelope of each line, ``|hilbert|`` along the
    depth, is compressed to decibels. The window is relative, 50 dB below the 99.9 percentile of the scan: it
    belongs to the scan's own gain and does not hang on one specular echo, and 50 dB is the middle of the three
    thresholds of the data set's authors (40, 50, 60 dB; Byra et al., arXiv 1804.02119). Rows are resampled from
    0.01925 mm to the 0.0745 mm between lines, averaging over what falls together. A scan without echoes is black.

    Raises:
        UserError: not two-dimensional integers, fewer than 40 samples or 2 lines, or more than 2^23 values .
    """
    _check_echoes(rf)
    envelope = np.abs(hilbert(rf[DROPPED_ROWS:].astype(np.float64), axis=0))
    reference = np.percentile(envelope, REFERENCE_PERCENTILE)
    if reference == 0:
        reference = max(envelope.max(), 1.0)
    floor = reference * 10 ** (-RANGE_DB / 20)
    decibels = 20 * np.log10(np.clip(envelope, floor, reference) / reference)
    grey = ((decibels / RANGE_DB + 1) * 255).astype(np.float32)
    return np.clip(np.rint(_square(grey)), 0, 255).astype(np.uint8)


def mask_from_region(region: NDArray[np.number]) -> NDArray[np.bool_]:
    """Return the lesion ``[height, width]`` in the B-mode image of a scan, of its region ``[samples, lines]``.

    Rows are dropped and resampled as in the image; what is lesion by more than half stays lesion.
    """
    return _square((region[DROPPED_ROWS:] != 0).astype(np.float32)) > 0.5


def _square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample the rows of ``[samples, lines]`` to the distance of the lines."""
    height = max(1, round(len(values) * AXIAL_STEP_MM / LATERAL_STEP_MM))
    return np.asarray(Image.fromarray(values).resize((values.shape[1], height), Image.Resampling.BILINEAR))


def _check_echoes(rf: NDArray[np.number]) -> None:
    if rf.ndim != 2 or rf.dtype.kind not in "iu":
        raise UserError(f"echoes of type {rf.dtype} and shape {rf.shape}; expected integers [samples, lines]")
    if rf.shape[0] < MIN_SAMPLES or rf.shape[1] < 2 or rf.size > MAX_SAMPLES:
        limits = f"at least {MIN_SAMPLES} samples and 2 lines, at most {MAX_SAMPLES} values"
        raise UserError(f"echoes of shape {rf.shape}; expected {limits}")


def read_oasbud(
    mat_path: Path,
    bmode_dir: Path,
    *,
    grouping: Literal["patient", "lesion"] = "patient",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ImageRecord], list[str]]:
    """Render both scans of every lesion in ``OASBUD.mat`` to ``bmode_dir``; return their records and remarks.

    Images are 8-bit grey PNG, ``oasbud_<position>_<scan>.png`` with the lesion's 0-based position; beside them lie the
    masks of one bit a pixel, ``oasbud_<position>_<scan>_mask.png``, where the file has a region. They are kept as long
    as ``source.json`` names this file and this rendering. ``progress`` is told how many of how many scans are rendered.

    ``grouping="patient"`` groups by the letters of the lesion code: several lesions share a woman, but the table is not
    published, and the letters give 59 groups for 78 women, so nothing leaks. ``"lesion"`` keeps only the two scans of
    a lesion together. The codes look like initials and are therefore hashed.

    Raises:
        UserError: not a MATLAB v5-v7 file with a struct array ``data`` as published, a faulty lesion, an unknown
            grouping, or ``bmode_dir`` cannot be written.
    """
    if grouping not in ("patient", "lesion"):
        raise UserError(f"oasbud: grouping {grouping!r}; choose patient or lesion")
    variables = read_mat(mat_path)
    if "data" not in variables:
        held = ", ".join(sorted(variables)) or "nothing"
        raise UserError(f"oasbud: {mat_path} has no variable 'data'; it holds {held}")
    lesions = list(_lesions(mat_path, variables["data"]))
    phantom = "phantom" in variables
    _render(lesions, make_folder(bmode_dir), _fingerprint(mat_path), progress)
    records = [
        ImageRecord(
            image_id=f"oasbud/{lesion.position:03d}-{scan}",
            source="oasbud",
            modality="ultrasound",
            label=lesion.label,
            group_id=_group(lesion, grouping),
            path=_image_path(bmode_dir, lesion.position, scan),
            synthetic=phantom,
            masks=() if lesion.regions[scan - 1] is None else (_mask_path(bmode_dir, lesion.position, scan),),
        )
        for lesion in lesions
        for scan in (1, 2)
    ]
    return records, _notes(lesions, phantom)


def _lesions(path: Path, data: Struct | Value) -> Iterator[_Lesion]:
    if not isinstance(data, Struct):
        raise UserError(f"oasbud: variable 'data' in {path} is no struct array; expected fields {', '.join(FIELDS)}")
    by_lower = {name.lower(): name for name in data.fields}
    missing = [name for name in FIELDS if name not in by_lower]
    if missing:
        raise UserError(
            f"oasbud: 'data' in {path} has no field {missing[0]!r}; its fields are {', '.join(data.fields)}"
        )
    if not data.entries:
        raise UserError(f"oasbud: 'data' in {path} holds no lesions")
    for position, entry in enumerate(data.entries):
        place = f"oasbud: {path}: lesion {position}"
        code, rf1, rf2, label = (entry[by_lower[name]] for name in FIELDS)
        if isinstance(code, np.ndarray) and code.size == 1:
            code = f"{code.item():.0f}"
        if not isinstance(code, str):
            raise UserError(f"{place}: id is neither text nor a number")
        if not isinstance(label, np.ndarray) or label.size != 1 or label.item() not in (0, 1):
            raise UserError(f"{place}: class {str(label)[:40]!r} is not 0 (benign) or 1 (malignant)")
        scans = (_echoes(rf1, f"{place}: rf1"), _echoes(rf2, f"{place}: rf2"))
        regions = (
            _region(entry.get(by_lower.get(REGIONS[0], "")), scans[0]),
            _region(entry.get(by_lower.get(REGIONS[1], "")), scans[1]),
        )
        yield _Lesion(position, code, int(label.item() == 1), scans, regions)


def _echoes(value: Value, place: str) -> NDArray[np.number]:
    if not isinstance(value, np.ndarray):
        raise UserError(f"{place}: expected integer echoes [samples, lines]")
    try:
        _check_echoes(value)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return value


def _region(value: Value, scan: NDArray[np.number]) -> NDArray[np.number] | None:
    fits = isinstance(value, np.ndarray) and value.shape == scan.shape and value.dtype.kind in "biuf"
    return value if fits else None  # type: ignore[return-value]


def _group(lesion: _Lesion, grouping: str) -> str:
    if grouping == "lesion":
        return f"oasbud:lesion-{lesion.position:03d}"
    letters = re.search(r"[^\W\d_]+", lesion.code)
    digits = re.search(r"\d+", lesion.code)
    key = letters[0].lower() if letters else digits[0] if digits else f"position {lesion.position}"
    return f"oasbud:{hashlib.sha256(f'oasbud:{key}'.encode()).hexdigest()[:12]}"


def _image_path(folder: Path, position: int, scan: int) -> Path:
    return folder / f"oasbud_{position:03d}_{scan}.png"


def _mask_path(folder: Path, position: int, scan: int) -> Path:
    return folder / f"oasbud_{position:03d}_{scan}_mask.png"


def _fingerprint(path: Path) -> dict[str, Any]:
    facts = path.stat()
    rendering = [AXIAL_STEP_MM, LATERAL_STEP_MM, DROPPED_ROWS, RANGE_DB, REFERENCE_PERCENTILE]
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "rendering": rendering}


def _render(
    lesions: list[_Lesion], folder: Path, fingerprint: dict[str, Any], progress: Callable[[int, int], None] | None
) -> None:
    mark = folder / "source.json"
    try:
        known = json.loads(mark.read_text(encoding="utf-8")) == fingerprint
    except (OSError, ValueError, RecursionError):
        known = False
    if not known:
        mark.unlink(missing_ok=True)  # an interrupted rendering must not be taken for a finished one

    def render(job: tuple[_Lesion, int]) -> None:
        lesion, scan = job
        region = lesion.regions[scan - 1]
        if region is not None:
            keep(_mask_path(folder, lesion.position, scan), lambda: mask_from_region(region))
        keep(_image_path(folder, lesion.position, scan), lambda: bmode_from_rf(lesion.scans[scan - 1]))

    def keep(path: Path, pixels: Callable[[], NDArray[Any]]) -> None:
        if not (known and path.is_file()):
            with replacing(path) as temporary:
                Image.fromarray(pixels()).save(temporary, format="PNG")

    jobs = [(lesion, scan) for lesion in lesions for scan in (1, 2)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:
        for done, _ in enumerate(executor.map(render, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    write_json(mark, fingerprint)


def _notes(lesions: list[_Lesion], phantom: bool) -> list[str]:
    malignant = sum(lesion.label for lesion in lesions)
    counts = {0: len(lesions) - malignant, 1: malignant}
    found = f"{counts[0]} benign and {counts[1]} malignant lesions with two scans each"
    bare = sum(region is None for lesion in lesions for region in lesion.regions)
    whole = "full set as expected" if counts == FULL_SET else "not the full set of 48 benign and 52 malignant"
    by_patient, by_lesion = (
        len({_group(lesion, grouping) for lesion in lesions}) for grouping in ("patient", "lesion")
    )
    return [
        f"oasbud: phantom, {found}" if phantom else f"oasbud: {found}, {whole}",
        f"oasbud: {by_patient} groups by the letters of the lesion code, {by_lesion} by lesion",
        *([f"oasbud: {bare} scans have no region roi1 or roi2 of their size, so no mask"] if bare else []),
    ]
