"""The loaders must serve the same pixels.

DALI and torchvision decode alike, and on the CPU the DALI loader decodes, resizes and augments as the resident one
does: there its pixels are the same to the bit. torchvision augments by itself; its pixels may be two grey levels away,
the noise is the same. The images have a flat margin, so that the border, which libraries map differently, does not
matter.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

import fusion.loaders
from fusion.augment import Rows, expand
from fusion.catalog import ImageRecord
from fusion.decode import HAVE_DALI
from fusion.errors import UserError
from fusion.loaders import BatchSpec, Loader, ResidentLoader, choose_loader, dali, free_bytes, make_loader
from fusion.prepare import prepare
from fusion.prepared import Prepared
from kernels.augment_reference import AugmentationRange, standard_normal

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
needs_dali = pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")
QUICK = ["resident", pytest.param("dali", marks=needs_dali)]
"""Loaders that start no worker processes."""

SIZE = 64
BATCH = 5
GREY = 2 / 255
"""Grey units of 0..1."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = AugmentationRange(rotation_degrees=0, zoom_low=1, zoom_high=1, horizontal_flip=False, vertical_flip=False)


def write_image(path: Path, seed: int, mode: str) -> None:
    """Write a random texture inside a flat margin of 20 px."""
    rng = np.random.default_rng(seed)
    width, height = 100 + 7 * seed, 130 - 9 * seed
    texture = Image.fromarray(rng.integers(0, 256, (8, 9), dtype=np.uint8))
    image = Image.new(mode, (width, height), 60 if mode == "L" else (60, 60, 60))
    image.paste(texture.resize((width - 40, height - 40), Image.Resampling.BICUBIC).convert(mode), (20, 20))
    image.save(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("raw")
    records = []
    for i in range(6):
        path = folder / f"{i}{'.png' if i < 5 else '.jpg'}"
        write_image(path, i, "RGB" if i == 3 else "L")
        records.append(
            ImageRecord(
                image_id=f"busi/{i}",
                source="busi",
                modality="ultrasound" if i else "mammography",
                label=i % 2,
                group_id=f"busi:{i}",
                path=path,
            )
        )
    return prepare(records, tmp_path_factory.mktemp("prepared"), image_size=SIZE, progress=lambda *_: None)


@pytest.fixture(scope="module")
def rows(prepared: Prepared) -> Rows:
    """Return 18 rows in no special order: copies of all images, one of them twice."""
    everything = expand(prepared.catalog, np.arange(len(prepared.catalog)), augmented=True)
    return everything[np.random.default_rng(0).permutation(np.append(np.arange(len(everything)), 7))[:18]]


@pytest.fixture
def other_spec() -> BatchSpec:
    return spec(seed=10, mean=(0.5,), std=(0.5,))


def spec(**changes: object) -> BatchSpec:
    return BatchSpec(**{"seed": 9, "mean": MEAN, "std": STD, **changes})  # type: ignore[arg-type]


def all_of(loader: Loader, rows: Rows, *, batch_size: int = BATCH, epoch: int = 0) -> Tensor:
    return torch.cat(list(loader.batches(rows, batch_size, epoch=epoch)))


def grey(normalised: Tensor) -> Tensor:
    """Undo the normalisation."""
    return normalised * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def check_same(streamed: Tensor, resident: Tensor) -> None:
    """To the bit; where a GPU has resized the prepared images, they may be two grey levels from a CPU's."""
    assert (grey(streamed) - grey(resident)).abs().max() <= (GREY if torch.cuda.is_available() else 0)


def check_batches(batches: list[Tensor], channels: int = 3) -> None:
    assert [batch.shape for batch in batches] == [(n, channels, SIZE, SIZE) for n in (5, 5, 5, 3)]
    for batch in batches:
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)


@needs_dali
@pytest.mark.parametrize("epoch", [0, 3])
def test_dali_serves_the_pixels_of_resident(prepared: Prepared, rows: Rows, epoch: int) -> None:
    names = ("resident", "dali")
    resident, streamed = (all_of(make_loader(name, prepared, spec()), rows, epoch=epoch) for name in names)
    check_same(streamed, resident)


@pytest.mark.gpu
@needs_gpu
@needs_dali
@pytest.mark.parametrize("batch_size", [1, 5])
def test_dali_on_a_gpu_serves_the_pixels_of_resident(prepared: Prepared, rows: Rows, batch_size: int) -> None:
    names = ("resident", "dali")
    resident, streamed = (
        all_of(make_loader(name, prepared, spec(device=CUDA)), rows, batch_size=batch_size).cpu() for name in names
    )
    assert (grey(streamed) - grey(resident)).abs().max() <= GREY


@pytest.mark.gpu
@needs_gpu
def test_resident_serves_the_same_on_a_gpu_as_on_the_cpu(prepared: Prepared, rows: Rows) -> None:
    here, there = (all_of(make_loader("resident", prepared, spec(device=one)), rows).cpu() for one in (CPU, CUDA))
    assert (grey(here) - grey(there)).abs().max() <= 1 / 255 / 100


def test_torchvision_serves_the_pixels_of_resident(prepared: Prepared, rows: Rows) -> None:
    loader = make_loader("torchvision", prepared, spec())
    resident = make_loader("resident", prepared, spec())
    batches = list(loader.batches(rows, BATCH, epoch=0))
    check_batches(batches)
    first, expected = torch.cat(batches), all_of(resident, rows)
    assert (grey(first) - grey(expected)).abs().max() <= GREY
    other = all_of(loader, rows, epoch=4, batch_size=4)
    assert (grey(other) - grey(all_of(resident, rows, epoch=4))).abs().max() <= GREY
    assert torch.equal(all_of(loader, rows, batch_size=7), first)
    assert (other - first).abs().max() > 0.1


@needs_dali
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_the_shards_of_an_epoch_cover_every_row_once(prepared: Prepared, shards: int) -> None:
    rows = expand(prepared.catalog, np.arange(len(prepared.catalog)), augmented=True)
    rows = rows[np.random.default_rng(shards).permutation(len(rows))]
    whole = all_of(make_loader("resident", prepared, spec()), rows, epoch=2)
    parts = [all_of(make_loader("dali", prepared, spec()), rows[k::shards], epoch=2) for k in range(shards)]
    assert sum(map(len, parts)) == len(rows)
    for k, part in enumerate(parts):
        check_same(part, whole[k::shards])


@needs_dali
def test_an_epoch_left_early_does_not_reach_into_the_next(prepared: Prepared, rows: Rows) -> None:
    streamed, resident = (make_loader(name, prepared, spec()) for name in ("dali", "resident"))
    for taken, batch_size in ((1, 4), (2, 4), (1, 9), (3, 2)):  # a larger batch builds the pipeline again
        batches = streamed.batches(rows, batch_size, epoch=0)
        for _ in range(taken):
            next(batches)
        del batches
        backwards = rows[::-1]
        check_same(all_of(streamed, backwards, epoch=1), all_of(resident, backwards, epoch=1))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_batches_have_the_type_that_is_asked_for(prepared: Prepared, rows: Rows, name: str, dtype: torch.dtype) -> None:
    wide = all_of(make_loader(name, prepared, spec()), rows)
    narrow = all_of(make_loader(name, prepared, spec(dtype=dtype)), rows)
    assert torch.equal(narrow, wide.to(dtype))


def test_the_resident_array_is_put_on_the_device_once(prepared: Prepared, other_spec: BatchSpec) -> None:
    first, second = (ResidentLoader(prepared, one) for one in (spec(), other_spec))
    assert first.images_u8.data_ptr() == second.images_u8.data_ptr()


@pytest.mark.parametrize(
    ("share", "have_dali", "expected"),
    [(2.0, True, "resident"), (1.9, True, "dali"), (1.9, False, "torchvision"), (0.0, True, "dali")],
)
def test_the_loader_that_fits_the_memory_is_chosen(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, share: float, have_dali: bool, expected: str
) -> None:
    free = int(share * prepared.images_u8.nbytes)
    monkeypatch.setattr(fusion.loaders, "free_bytes", lambda _: free)
    monkeypatch.setattr(fusion.loaders, "HAVE_DALI", have_dali)
    name, note = choose_loader(prepared, torch.device("cpu"))
    assert name == expected
    if expected == "resident":
        assert note == ""
    else:
        assert note.endswith(f"more than 50% of the cpu's {free / 2**20:.0f} MiB of free memory")


def test_the_free_memory_is_that_of_the_host() -> None:
    total = psutil.virtual_memory().total
    assert 0 < free_bytes(torch.device("cpu")) <= total


@needs_dali
def test_the_comparison_rejects_a_row_of_another_copy(prepared: Prepared, rows: Rows) -> None:
    resident = all_of(make_loader("resident", prepared, spec()), rows)
    wrong = Rows(rows.image, np.where(rows.copy > 0, rows.copy + 1, 0))
    streamed = all_of(make_loader("dali", prepared, spec()), wrong)
    far = (grey(streamed) - grey(resident)).abs().amax(dim=(1, 2, 3))
    assert (far[torch.from_numpy(rows.copy > 0)] > 10 * GREY).all()


@pytest.mark.parametrize("name", QUICK)
def test_batches_have_their_shape_and_the_last_is_smaller(prepared: Prepared, rows: Rows, name: str) -> None:
    check_batches(list(make_loader(name, prepared, spec()).batches(rows, BATCH, epoch=0)))
    one_channel = make_loader(name, prepared, spec(mean=(0.5,), std=(0.5,)))
    check_batches(list(one_channel.batches(rows, BATCH, epoch=0)), channels=1)


@pytest.mark.parametrize("name", QUICK)
def test_rows_come_in_order_whatever_the_batch(prepared: Prepared, rows: Rows, name: str) -> None:
    loader = make_loader(name, prepared, spec())
    together = all_of(loader, rows, batch_size=50)
    assert len(together) == len(rows)
    for row in (0, 6, 17):
        torch.testing.assert_close(all_of(loader, rows[row : row + 1])[0], together[row], rtol=0, atol=1e-5)
    order = np.arange(len(rows))[::-1].copy()
    torch.testing.assert_close(all_of(loader, rows[order]), together.flip(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_unchanged_rows_are_the_prepared_images(prepared: Prepared, name: str) -> None:
    image = np.array([4, 0, 2, 2])
    served = all_of(make_loader(name, prepared, spec()), Rows(image, np.zeros_like(image)))
    expected = torch.from_numpy(prepared.images_u8[image]).expand(-1, 3, -1, -1) / 255
    tolerance = GREY if name == "dali" and torch.cuda.is_available() else 1e-6
    torch.testing.assert_close(grey(served), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", QUICK)
def test_an_epoch_repeats_and_epochs_and_seeds_differ(prepared: Prepared, rows: Rows, name: str) -> None:
    loader = make_loader(name, prepared, spec())
    first = all_of(loader, rows)
    assert torch.equal(all_of(loader, rows), first)
    assert torch.equal(all_of(make_loader(name, prepared, spec()), rows), first)
    changed = torch.from_numpy(rows.copy > 0)
    for other in (all_of(loader, rows, epoch=1), all_of(make_loader(name, prepared, spec(seed=10)), rows)):
        assert torch.equal(other[~changed], first[~changed])
        assert ((other - first)[changed].abs().amax(dim=(1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize("name", QUICK)
def test_the_noise_is_the_same_pixel_for_pixel(prepared: Prepared, name: str) -> None:
    loader = make_loader(name, prepared, spec(mean=(0.0,), std=(1.0,), ranges=STILL))
    image, copy = np.array([1, 1, 3, 5, 0, 2]), np.array([1, 2, 1, 3, 9, 0])
    noise = standard_normal(9, torch.from_numpy(image), torch.from_numpy(copy), 2, SIZE, SIZE)[:, None] * 0.1
    noise[copy == 0] = 0
    unchanged = all_of(loader, Rows(image, np.zeros_like(copy)))
    expected = (unchanged + noise).clamp(0, 1)
    served = all_of(loader, Rows(image, copy), batch_size=4, epoch=2)
    torch.testing.assert_close(served, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_no_rows_are_no_batches(prepared: Prepared, rows: Rows, name: str) -> None:
    assert list(make_loader(name, prepared, spec()).batches(rows[:0], BATCH, epoch=0)) == []


@pytest.mark.parametrize("name", QUICK)
def test_batches_stay_as_they_were_when_the_next_is_asked_for(prepared: Prepared, rows: Rows, name: str) -> None:
    batches: Iterator[Tensor] = make_loader(name, prepared, spec()).batches(rows, BATCH, epoch=0)
    first = next(batches)
    before = first.clone()
    next(batches)
    assert torch.equal(first, before)


def test_unknown_loader(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="loader 'cloud' is unknown; choose from resident, dali, torchvision"):
        make_loader("cloud", prepared, spec())


def test_without_dali_the_other_loaders_are_named(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali, "HAVE_DALI", False)
    with pytest.raises(UserError, match=r"'dali' needs DALI.*choose 'resident' or 'torchvision'"):
        make_loader("dali", prepared, spec())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("dali", None, "no such file", marks=needs_dali),
        pytest.param("dali", b"\x89PNG\r\n\x1a\nxx", "not a readable", marks=needs_dali),
        ("torchvision", b"\x89PNG\r\n\x1a\nxx", "not a readable"),
    ],
)
def test_a_file_lost_or_spoilt_during_the_run_is_named(
    prepared: Prepared, rows: Rows, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    files = [tmp_path / file.name for file in prepared.files()]
    for copied, file in zip(files, prepared.files(), strict=True):
        copied.write_bytes(file.read_bytes())
    catalog = prepared.catalog.assign(file=list(map(str, files)))
    loader = make_loader(name, replace(prepared, catalog=catalog), spec())
    before = all_of(loader, rows)
    kept = files[2].read_bytes()
    files[2].unlink()
    if content:
        files[2].write_bytes(content)
    with pytest.raises(UserError, match=rf"2\.png can't be streamed: {reason}.*; choose the loader 'resident'"):
        all_of(loader, rows)
    files[2].write_bytes(kept)
    assert torch.equal(all_of(loader, rows), before)


@pytest.mark.parametrize("name", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_a_file_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    write_image(path, 0, "L")
    facts = {"image_id": "a", "source": "mine", "modality": "other", "label": 0, "group_id": "a", "path": path}
    alone = prepare([ImageRecord(**facts)], tmp_path / "out", image_size=8, progress=lambda *_: None)  # type: ignore[arg-type]
    path.unlink()
    with pytest.raises(UserError, match=r"a\.png is gone"):
        make_loader(name, alone, spec())
    assert len(all_of(make_loader("resident", alone, spec()), Rows(np.array([0]), np.array([0])))) == 1


def test_a_file_replaced_after_the_preparation_is_never_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, 0, "L")
    facts = {"image_id": "a", "source": "mine", "modality": "other", "label": 0, "group_id": "a", "path": path}
    alone = prepare([ImageRecord(**facts)], tmp_path / "out", image_size=8, progress=lambda *_: None)  # type: ignore[arg-type]
    write_image(path, 1, "L")
    with pytest.raises(UserError, match=r"a\.png is not the file that was prepared; bring it back, or choose"):
        make_loader("torchvision", alone, spec())


WAITING = """
import sys
from pathlib import Path
from fusion.augment import expand
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import load_prepared
import numpy as np

if __name__ == "__main__":
    prepared = load_prepared(Path(sys.argv[1]))
    loader = make_loader("torchvision", prepared, BatchSpec(seed=0, mean=(0.5,), std=(0.5,)))
    list(loader.batches(expand(prepared.catalog, np.arange(4), augmented=False), 2, epoch=0))
    print("served", flush=True)
    sys.stdin.read()
"""


def test_workers_end_soon_after_a_killed_process(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "waiting.py"), str(prepared.root)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"served"
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
    _gone, alive = psutil.wait_procs(workers, timeout=30)
    for left in alive:
        left.kill()
    assert alive == []


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), ()), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((0.5,), (math.nan,))],
)
def test_mean_and_std_must_fit(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="need the same length, and std above 0"):
        spec(mean=mean, std=std)
