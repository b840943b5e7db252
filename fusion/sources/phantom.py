"""Write synthetic raw data in the formats of BUSI, OASBUD and the RSNA mammograms, to run without any download.

The pictures come from ``fusion.sources.phantom_physics``. Every item draws from its own random stream, named by seed,
source and number, so the files are the same bytes for any number of workers. Phantoms say what they are: each of the
three trees carries a mark (``phantom.json``, or the variable ``phantom`` of the MAT-file).
"""

import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from threadpoolctl import threadpool_limits

from fusion.cores import cpu_count
from fusion.errors import UserError
from fusion.files import write_json
from fusion.sources import phantom_physics as physics

VERSION = 1
GENERATOR = f"fusebench phantom {VERSION}"
MAX_SCALE = 10.0
MAX_LESIONS = 300  # a MAT v5 variable below 2 GiB is read everywhere, and one lesion takes about 6 MiB
POOL_FROM = 64  # below this many items, starting processes costs more than it saves

BUSI_FOLDER = "Dataset_BUSI_with_GT"
BUSI_CLASSES = ("benign", "malignant", "normal")
# Numbers of the real images with several masks: 18 secondary masks in all.
TWO_MASKS = {"benign": (4, 25, 54, 58, 83, 92, 93, 98, 100, 163, 173, 181, 315, 346, 424), "malignant": (53,)}
THREE_MASKS = {"benign": (195,)}

_BUSI, _OASBUD, _RSNA = range(3)
_PLAN, _LESION, _PLANE, _VIEW = range(4)


def phantom_counts(scale: float = 1.0) -> dict[str, int]:
    """Return the number of items of each set and class at ``scale``; 1.0 gives the counts of the paper's Table 1.

    BUSI and RSNA are counted in images, OASBUD in lesions (two scans each). Small scales keep at least 8 images and 2
    lesions a class; OASBUD stops at 300 lesions, for its file format.

    Raises:
        UserError: ``scale`` is not above 0 and at most 10.
    """
    if not 0 < scale <= MAX_SCALE:
        raise UserError(f"scale {scale} is not above 0 and at most {MAX_SCALE:g}; 1.0 gives the paper's counts")
    lesions = min(scale, MAX_LESIONS / 100)
    return {
        "busi_benign": max(8, round(437 * scale)),
        "busi_malignant": max(8, round(210 * scale)),
        "busi_normal": max(8, round(133 * scale)),
        "oasbud_benign": max(2, round(48 * lesions)),
        "oasbud_malignant": max(2, round(52 * lesions)),
        "rsna_negative": max(8, round(1200 * scale)),
        "rsna_positive": max(8, round(1158 * scale)),
    }


def write_phantom(
    out: Path,
    *,
    scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write ``out/busi``, ``out/oasbud`` and ``out/rsna`` and return the counts of ``phantom_counts(scale)``.

    The folder appears complete or not at all. A second call with the same scale and seed finds it and does no work.
    Worker processes import the caller's main module, so a script calls this under ``if __name__ == "__main__":``.

    Args:
        out: the folder to make; it may exist if it is empty.
        scale: size of every set relative to the paper's counts.
        seed: non-negative; the same seed gives the same bytes.
        workers: processes to use; by default one for each core this process may run on.
        progress: called with the items done and their total; an item is an image, a lesion or a patient.

    Raises:
        UserError: a value is out of range, ``out`` holds something else, or it cannot be written.
    """
    counts = phantom_counts(scale)
    if seed < 0:
        raise UserError(f"seed {seed} is negative; give 0 or more")
    workers = cpu_count() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers {workers} is not 1 or more")
    record = {"phantom": True, "generator": GENERATOR, "version": VERSION, "seed": seed, "scale": float(scale)}
    try:
        if not _is_finished(out, record):
            _write_whole(out.resolve(), record, counts, workers, progress or (lambda _done, _total: None))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); choose another folder") from error
    except BrokenProcessPool as error:
        raise UserError("a worker process was ended from outside, often for memory; use fewer workers") from error
    return counts


def _write_whole(
    out: Path, record: dict[str, Any], counts: dict[str, int], workers: int, progress: Callable[[int, int], None]
) -> None:
    """Write everything beside ``out`` and move it there at the end."""
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():  # what a killed run left
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True)
        _write_sets(partial, counts, record["seed"], workers, progress)
        write_json(partial / "phantom.json", {**record, "counts": counts})
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_finished(out: Path, record: dict[str, Any]) -> bool:
    """Return whether ``out`` already holds what ``record`` asks for; False means it is free to be written."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / "phantom.json").read_text())
        same = {key: found[key] for key in record} == record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out}: exists and is not a finished phantom folder; choose another or remove it") from error
    if not same:
        raise UserError(
            f"{out}: holds phantoms of scale {found['scale']}, seed {found['seed']}, version {found['version']}, "
            f"not scale {record['scale']}, seed {record['seed']}, version {VERSION}; choose another or remove it"
        )
    return True


class _Job(Protocol):
    """One item: made in any process, in any order."""

    def run(self) -> Any:
        """Make the item and return what the main process still has to write."""


def _write_sets(
    root: Path, counts: dict[str, int], seed: int, workers: int, progress: Callable[[int, int], None]
) -> None:
    lesions = _plan_oasbud(counts, seed)
    jobs: list[_Job] = [
        *lesions,
        *_plan_busi(root / "busi" / BUSI_FOLDER, counts, seed),
        *_plan_rsna(root / "rsna", counts, seed),
    ]
    rows = []
    with closing(_results(jobs, workers)) as results:  # an interrupt ends the workers before their folder goes
        for done, result in enumerate(results, start=1):
            if done <= len(lesions):
                rows.append(result)
            if done == len(lesions):
                _write_mat(root / "oasbud" / "OASBUD.mat", rows)
                rows.clear()
            progress(done, len(jobs))


def _results(jobs: Sequence[_Job], workers: int) -> Generator[Any, None, None]:
    """Yield the result of every job in order, from this process or from a pool."""
    if workers == 1 or len(jobs) < POOL_FROM:
        # One thread here too: the order in which threads add up would show in the last bit.
        with threadpool_limits(1):
            yield from map(_run, jobs)
        return
    # Not fork: the caller may hold threads and a CUDA context.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread)
    try:
        yield from pool.map(_run, jobs, chunksize=2)
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Limit the libraries of this process; by now this module has loaded them, which a limit needs to find them."""
    threadpool_limits(1)


def _run(job: _Job) -> Any:
    return job.run()


def _rng(seed: int, source: int, stream: int, item: int = 0) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, source, stream, item]))


def _write_png(path: Path, pixels: NDArray[np.uint8], mode: str = "L", opaque: bool = True) -> None:
    """Write grey ``pixels`` in ``mode``; only RGBA has an alpha plane, all on or all off."""
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image = Image.merge("RGBA", [image] * 3 + [Image.new("L", image.size, 255 if opaque else 0)])
    # Speckle hardly compresses, so the fastest setting costs little space.
    image.convert(mode, dither=Image.Dither.NONE).save(path, compress_level=1)


@dataclass(frozen=True, kw_only=True)
class BusiImage:
    """One image of the BUSI tree with its masks."""

    folder: Path
    kind: str
    number: int
    item: int
    """Position over all classes: names the random stream."""
    group: int
    """Position of the first image of the same lesion, its own if it is the only one."""
    view: str
    """``first``, or how the repeat differs: ``gain``, ``crop`` (both of the same frame) or ``plane`` (a new scan)."""
    lesions: int
    seed: int

    @property
    def name(self) -> str:
        """File name without ending, e.g. ``benign (1)``."""
        return f"{self.kind} ({self.number})"

    def draw(self) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """Return the image ``[H, W]`` uint8 and one mask per lesion."""
        patient = _rng(self.seed, _BUSI, _LESION, self.group)
        height, width = int(patient.integers(324, 720)), int(patient.integers(510, 812))
        depth_mm = patient.uniform(32, 46)
        width_mm = depth_mm * patient.uniform(0.95, 1.25)
        grid = physics.Grid(rows=height, columns=width, depth_mm=depth_mm, width_mm=width_mm)
        lesions = physics.draw_lesions(patient, self.kind == "malignant", grid, self.lesions)
        plane = _rng(self.seed, _BUSI, _PLANE, self.item if self.view == "plane" else self.group)
        level, masks = physics.echo_map(plane, grid, lesions)
        view = _rng(self.seed, _BUSI, _VIEW, self.item)
        pixels = physics.b_mode(plane, level, grid, physics.draw_display(view))
        if self.view == "crop":
            top, bottom, left, right = (1 + view.integers(2, 9, 4) * (height, height, width, width) // 100).tolist()
            pixels, masks = pixels[top:-bottom, left:-right], [mask[top:-bottom, left:-right] for mask in masks]
        return pixels, masks

    def run(self) -> None:
        """Write the image and its masks, in the mixture of modes of the real set."""
        pixels, masks = self.draw()
        folder = self.folder / self.kind
        # By number, so that a mode tells nothing about the class.
        mode = "RGBA" if self.number % 29 == 5 else "L" if self.number % 8 == 7 else "RGB"
        _write_png(folder / f"{self.name}.png", pixels, mode)
        mask_mode = {3: "RGBA", 6: "L"}.get(self.number % 10, "1")
        for k, mask in enumerate(masks or [np.zeros(pixels.shape, bool)]):
            suffix = "_mask" if k == 0 else f"_mask_{k}"
            grey = np.where(mask, 255, 0).astype(np.uint8)
            _write_png(folder / f"{self.name}{suffix}.png", grey, mask_mode, opaque=self.number % 20 == 3)


def _plan_busi(folder: Path, counts: dict[str, int], seed: int) -> list[BusiImage]:
    """Make the folders and the list of groups, and return the images to draw."""
    rng = _rng(seed, _BUSI, _PLAN)
    images: list[BusiImage] = []
    for kind in BUSI_CLASSES:
        (folder / kind).mkdir(parents=True)
        count = counts[f"busi_{kind}"]
        lesions = np.full(count + 1, 0 if kind == "normal" else 1)
        for masks, numbers in ((2, TWO_MASKS.get(kind, ())), (3, THREE_MASKS.get(kind, ()))):
            lesions[[number for number in numbers if number <= count]] = masks
        single = [number for number in range(2, count + 1) if lesions[number] == lesions[1]]
        repeats = set(rng.choice(single, max(1, round(0.1 * count)), replace=False).tolist())
        base = len(images) - 1
        firsts = [1]
        for number in range(1, count + 1):
            group, view = number, "first"
            if number in repeats:
                group, view = int(rng.choice(firsts)), str(rng.choice(["gain", "crop", "plane"]))
            elif number in single:
                firsts.append(number)
            images.append(
                BusiImage(
                    folder=folder,
                    kind=kind,
                    number=number,
                    item=base + number,
                    group=base + group,
                    view=view,
                    lesions=int(lesions[number]),
                    seed=seed,
                )
            )
    labels = {group: f"p{k:04d}" for k, group in enumerate(sorted({image.group for image in images}), start=1)}
    groups = {image.name: labels[image.group] for image in images}
    write_json(folder / "phantom.json", {"phantom": True, "generator": GENERATOR, "seed": seed, "groups": groups})
    return images


@dataclass(frozen=True, kw_only=True)
class OasbudLesion:
    """One entry of the OASBUD array."""

    item: int
    code: str
    malignant: bool
    seed: int

    def draw(self, scan: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Return echoes and region of scan 0 or 1, both ``[samples, 510]``: perpendicular planes of the same lesion."""
        patient = _rng(self.seed, _OASBUD, _LESION, self.item)
        samples = int(patient.choice([1558, 1824, 2077, 2336, 2596]))  # 3 to 5 cm
        grid = physics.Grid(
            rows=math.ceil(samples / 4),
            columns=physics.LINES,
            depth_mm=samples * physics.SAMPLE_MM,
            width_mm=physics.APERTURE_MM,
        )
        lesions = physics.draw_lesions(patient, self.malignant, grid, 1)
        plane = _rng(self.seed, _OASBUD, _PLANE, 2 * self.item + scan)
        level, (mask,) = physics.echo_map(plane, grid, lesions)
        echoes = physics.radio_frequency(plane, level, samples, gain_db=plane.uniform(58, 68))
        return echoes, np.repeat(mask, 4, axis=0)[:samples].astype(np.uint8)

    def run(self) -> tuple[Any, ...]:
        """Return the fields of the entry in the order of the file."""
        (rf1, roi1), (rf2, roi2) = self.draw(0), self.draw(1)
        choices = ["4a", "4b", "4c", "5"] if self.malignant else ["3", "4a", "4b"]
        birads = str(_rng(self.seed, _OASBUD, _VIEW, self.item).choice(choices))
        return self.code, rf1, rf2, roi1, roi2, birads, np.array([[self.malignant]], np.uint8)


def _plan_oasbud(counts: dict[str, int], seed: int) -> list[OasbudLesion]:
    """Return the lesions with codes like the real ones: a number, and letters that one woman's lesions share."""
    rng = _rng(seed, _OASBUD, _PLAN)
    labels = rng.permutation([False] * counts["oasbud_benign"] + [True] * counts["oasbud_malignant"])
    alphabet = list("abcdefghijklmnopqrstuvwxyz")
    codes: list[str] = []
    while len(codes) < len(labels):
        letters = "".join(rng.choice(alphabet, 2))
        letters = letters.upper() if rng.random() < 0.1 else letters
        codes += [f"{len(codes) + 1 + k}{letters}" for k in range(rng.choice([1, 2, 3], p=[0.78, 0.17, 0.05]))]
    codes = codes[: len(labels)]
    codes[-1] = str(len(codes))  # a bare number
    twin = next((k for k in range(len(labels) - 2) if labels[k] == labels[k + 1]), 0)
    codes[twin + 1] = codes[twin]  # the real file holds one code twice
    return [
        OasbudLesion(item=k, code=code, malignant=bool(label), seed=seed)
        for k, (code, label) in enumerate(zip(codes, labels, strict=True))
    ]


def _write_mat(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True)
    fields = ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")
    data = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for k, row in enumerate(rows):
        data[0, k] = row
    savemat(path, {"data": data, "phantom": 1}, do_compression=True)
    with path.open("r+b") as file:  # scipy puts the date of writing here
        file.write(f"MATLAB 5.0 MAT-file, {GENERATOR}".encode().ljust(116))


@dataclass(frozen=True, kw_only=True)
class RsnaView:
    """One row of ``train.csv`` and its image."""

    site_id: int
    patient_id: int
    image_id: int
    laterality: str
    view: str
    age: float | None
    implant: int
    machine_id: int
    cancer: int


@dataclass(frozen=True, kw_only=True)
class RsnaPatient:
    """All images of one woman."""

    folder: Path
    item: int
    views: tuple[RsnaView, ...]
    seed: int

    def draw(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the image ``[256, 256]`` uint8 of every view."""
        breasts = {
            side: physics.draw_breast(_rng(self.seed, _RSNA, _LESION, 2 * self.item + k), self._is_positive(side))
            for k, side in enumerate("LR")
        }
        for k, row in enumerate(self.views):
            rng = _rng(self.seed, _RSNA, _VIEW, 8 * self.item + k)
            yield physics.mammogram(rng, breasts[row.laterality], row.view, left=row.laterality == "L")

    def _is_positive(self, side: str) -> bool:
        return any(row.cancer for row in self.views if row.laterality == side)

    def run(self) -> None:
        """Write the images."""
        for row, pixels in zip(self.views, self.draw(), strict=True):
            _write_png(self.folder / "train" / str(row.cancer) / f"{row.patient_id}_{row.image_id}.png", pixels)


def _plan_rsna(folder: Path, counts: dict[str, int], seed: int) -> list[RsnaPatient]:
    """Make the folders and ``train.csv``, and return the patients to draw."""
    for name in "01":
        (folder / "train" / name).mkdir(parents=True)
    rng = _rng(seed, _RSNA, _PLAN)
    left = {1: counts["rsna_positive"], 0: counts["rsna_negative"]}
    total = sum(left.values())
    # Sorted draws would tie an id to a class through its position, so both lists stay in random order.
    patient_ids = iter((5 + rng.permutation(40 * total)).tolist())
    image_ids = iter((10_000_000 + 613 * rng.permutation(1000 * total)[: 2 * total]).tolist())
    patients: list[RsnaPatient] = []
    while any(left.values()):
        sides = [str(side) for side in rng.permutation(["L", "R"])]
        if left[1]:  # the other breast of a positive patient is negative and often in the sample too
            breasts = [(sides[0], 1), (sides[1], 0)][: 1 + int(rng.random() < 0.4)]
        else:
            breasts = [(side, 0) for side in sides[: 1 + int(rng.random() < 0.6)]]
        common = {
            "site_id": int(rng.integers(1, 3)),
            "patient_id": next(patient_ids),
            "age": None if rng.random() < 0.03 else float(np.clip(round(rng.normal(58, 10)), 30, 89)),
            "implant": int(rng.random() < 0.02),
            "machine_id": int(rng.choice([21, 29, 48, 49, 216])),
        }
        views = []
        for side, cancer in breasts:
            for view in ["CC", "MLO"] + ["MLO"] * int(rng.random() < 0.1):
                if left[cancer]:
                    left[cancer] -= 1
                    image = {"image_id": next(image_ids), "laterality": side, "view": view, "cancer": cancer}
                    views.append(RsnaView(**common, **image))
        if views:
            patients.append(RsnaPatient(folder=folder, item=len(patients), views=tuple(views), seed=seed))
    rows = sorted(
        (row for patient in patients for row in patient.views), key=lambda row: (row.patient_id, row.image_id)
    )
    pd.DataFrame([asdict(row) for row in rows]).to_csv(folder / "train.csv", index=False, lineterminator="\n")
    write_json(folder / "phantom.json", {"phantom": True, "generator": GENERATOR, "seed": seed})
    return patients
