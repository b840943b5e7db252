"""Images per second by loader and stage.

Every stage of a loader is measured together with the stages before it, over the same augmented rows. One round of every
stage follows the other, after one untimed round in which workers start, pipelines are built and files come into the
page cache.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measurement import Advance, Measurement, summarised, timed
from fusion.augment import Rows
from fusion.cores import cpu_count
from fusion.decode import HAVE_DALI, dali_decode, dali_resize, decode_torchvision
from fusion.images import read_grey_u8
from fusion.loaders import BatchSpec
from fusion.loaders.dali import DaliLoader, PathSource
from fusion.loaders.resident import ResidentLoader
from fusion.loaders.torchvision import RowDataset, TorchvisionLoader, naming_files, start_workers
from fusion.prepared import Prepared

if HAVE_DALI:
    from nvidia.dali import fn, pipeline_def


PARTIAL_STAGES = ("read", "decode", "resize")
"""How far a worker of torchvision's DataLoader may go without making pixels for training."""


def measure_throughput(
    prepared: Prepared,
    spec: BatchSpec,
    rows: Rows,
    loaders: Sequence[str],
    *,
    batch: int,
    rounds: int,
    advance: Advance,
) -> list[Measurement]:
    """Return the images per second of every stage of every loader.

    Args:
        prepared: the data set.
        spec: how a row becomes pixels, and where.
        rows: what one round serves.
        loaders: keys of ``fusion.loaders.LOADERS``.
        batch: rows of a batch.
        rounds: timed rounds.
        advance: called as the work goes on.

    Raises:
        UserError: a loader can't work here.
    """
    passes: list[tuple[str, str, Callable[[], int]]] = []
    for name in loaders:
        passes += [(name, stage, run) for stage, run in STAGES[name](prepared, spec, rows, batch)]
    rates: list[list[float]] = [[] for _ in passes]
    for round_ in range(rounds + 1):
        for number, (_, _, run) in enumerate(passes):
            advance("loaders", round_ * len(passes) + number, (rounds + 1) * len(passes))
            served: list[int] = []
            seconds = timed(lambda: served.append(run()), spec.device)  # noqa: B023
            if round_:
                rates[number].append(served[0] / seconds)
    advance("loaders", (rounds + 1) * len(passes), (rounds + 1) * len(passes))
    return [
        summarised(values, quantity="throughput", loader=name, stage=stage, batch=batch, unit="images/s")
        for (name, stage, _), values in zip(passes, rates, strict=True)
    ]


def _resident_stages(
    prepared: Prepared, spec: BatchSpec, rows: Rows, batch: int
) -> Iterable[tuple[str, Callable[[], int]]]:
    loader = ResidentLoader(prepared, spec)
    image, copy = (torch.from_numpy(keys).to(spec.device) for keys in (rows.image, rows.copy))

    def read() -> int:
        torch.from_numpy(np.array(prepared.images_u8)).to(spec.device)
        return len(prepared.images_u8)

    def augment() -> int:
        for start in range(0, len(rows), batch):
            loader.batch(image[start : start + batch], copy[start : start + batch], epoch=0)
        return len(rows)

    yield "read once", read
    yield "augment", augment
    yield "hand-over", lambda: _served(loader.batches(rows, batch, epoch=0))


def _dali_stages(
    prepared: Prepared, spec: BatchSpec, rows: Rows, batch: int
) -> Iterable[tuple[str, Callable[[], int]]]:
    loader, gpu = DaliLoader(prepared, spec), spec.device.type == "cuda"

    def stage_of(name: str) -> tuple[str, Callable[[], int]]:
        source = PathSource(prepared.files())
        device_id = torch.cuda.current_device() if gpu else None
        pipeline = _partial_pipeline(
            name, source, prepared.image_size, gpu, batch_size=batch, num_threads=cpu_count(), device_id=device_id
        )

        def run() -> int:
            source.serve(rows, batch)
            count = 0
            try:
                while True:
                    count += len(pipeline.run()[0])
            except StopIteration:
                pipeline.reset()
            except RuntimeError as error:
                raise source.explained(error) from None
            return count

        return name, run

    def augment_streamed() -> int:
        return _served(loader.batches(rows, batch, epoch=0))

    yield stage_of("read")
    yield stage_of("decode")
    if gpu:
        yield stage_of("resize")
    # On the CPU torchvision resizes, and makes one batch of the images at the same time.
    yield ("hand-over" if gpu else "resize and hand-over"), lambda: _served(loader.images_u8(rows, batch))
    yield "augment", augment_streamed


if HAVE_DALI:

    @pipeline_def
    def _partial_pipeline(until: str, source: PathSource, size: int, gpu: bool) -> Any:
        encoded = fn.io.file.read(fn.external_source(source=source, batch=True))
        if until == "read":
            return encoded
        images = dali_decode(encoded, gpu=gpu)
        return images if until == "decode" else dali_resize(images, size)


def _torchvision_stages(
    prepared: Prepared, spec: BatchSpec, rows: Rows, batch: int
) -> Iterable[tuple[str, Callable[[], int]]]:
    loader = TorchvisionLoader(prepared, spec)
    loader.loader = start_workers(
        _PartialDataset(prepared.files(), prepared.image_size, spec), loader.sampler, spec.device
    )

    def until(stage: int) -> int:
        loader.sampler.serve(rows, batch, stage)
        with naming_files():
            return _served(loader.loader)

    for number, stage in enumerate(PARTIAL_STAGES, start=1):
        yield stage, lambda number=number: until(-number)  # type: ignore[misc]
    yield "augment", lambda: until(0)
    yield "hand-over", lambda: _served(loader.batches(rows, batch, epoch=0))


STAGES = {"resident": _resident_stages, "dali": _dali_stages, "torchvision": _torchvision_stages}


class _PartialDataset(RowDataset):
    """Under the "epochs" -1, -2 and -3 goes only as far as reading, decoding or resizing, and returns nothing."""

    def __getitem__(self, key: tuple[int, int, int]) -> Tensor:
        image, _, epoch = key
        if epoch >= 0:
            return super().__getitem__(key)
        stage = PARTIAL_STAGES[-epoch - 1]
        if stage == "read":
            self.files[image].read_bytes()
        elif stage == "decode":
            read_grey_u8(self.files[image])
        else:
            decode_torchvision(self.files[image], self.size)
        return torch.empty(0)


def _served(batches: Iterable[Tensor]) -> int:
    return sum(len(batch) for batch in batches)
