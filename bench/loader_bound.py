"""Is training loader-bound? The time of a training step fed by the loader, beside one whose batch is already there."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.measurement import Advance, Measurement, augmented_rows, summarised
from bench.step import PRECISIONS, PREDICT_BATCH, Steps
from bench.train import Recipe, make_steps
from fusion.loaders import BatchSpec, ResidentLoader
from fusion.models import build_model, normalisation
from fusion.prepared import Prepared

PASS_STEPS = {"cuda": 40, "cpu": 1}
"""Steps of a timed pass: on a GPU many, as the host reads the loss once a pass."""
OPTIMIZER = "sgdm"


class StaticLoader(ResidentLoader):
    """Serves one batch over and over: what training would be with a loader that takes no time."""

    def __init__(self, prepared: Prepared, spec: BatchSpec, batch_size: int) -> None:
        super().__init__(prepared, spec)
        rows = augmented_rows(prepared, max(batch_size, PREDICT_BATCH))
        image, copy = (torch.from_numpy(keys).to(spec.device) for keys in (rows.image, rows.copy))
        self.fixed = super().batch(image, copy, epoch=0)

    def batch(self, image: Tensor, copy: Tensor, *, epoch: int | Tensor) -> Tensor:  # noqa: ARG002
        """Return the same pixels whatever the rows."""
        return self.fixed[: len(image)]


def measure_steps(
    prepared: Prepared,
    networks: Sequence[str],
    steps: Sequence[str],
    *,
    device: torch.device,
    precision: str,
    batch: int,
    rounds: int,
    advance: Advance,
) -> list[Measurement]:
    """Return the step times of every network and kind of step with the resident loader and with a static batch.

    Args:
        prepared: the data set.
        networks: names of ``fusion.models.MODELS``.
        steps: kinds of ``bench.step.STEPS`` that are possible here.
        device: where to train.
        precision: a key of ``bench.step.PRECISIONS``.
        batch: rows of a step.
        rounds: timed rounds; the loader's and the static batch's follow each other.
        advance: called as the work goes on.
    """
    kinds = [(network, step) for network in networks for step in steps]
    found: list[Measurement] = []
    for done, (network, step) in enumerate(kinds):
        advance("training steps", done, len(kinds))
        found += _measure_network(prepared, network, step, device, precision, batch, rounds)
    advance("training steps", len(kinds), len(kinds))
    return found


def _measure_network(
    prepared: Prepared, network: str, step: str, device: torch.device, precision: str, batch: int, rounds: int
) -> list[Measurement]:
    mean, std = normalisation(network)
    spec = BatchSpec(seed=0, mean=mean, std=std, device=device, dtype=PRECISIONS[precision])
    count = PASS_STEPS[device.type]
    rows = augmented_rows(prepared, batch * count)
    loaders = ResidentLoader(prepared, spec), StaticLoader(prepared, spec, batch)
    fed, static = (_steps(prepared, network, step, loader, precision, batch, len(rows)) for loader in loaders)
    times_ms: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds + 1):
        for one, times in zip((fed, static), times_ms, strict=True):
            started = time.perf_counter()
            one.train(rows, 0)  # reads the loss, and so waits for the device
            if round_:  # the first is warm-up
                times.append(1000 * (time.perf_counter() - started) / count)
    where: dict[str, Any] = {"batch": batch, "network": network, "step": step, "loader": "resident"}
    shares = [100 * static / fed for fed, static in zip(*times_ms, strict=True)]
    return [
        summarised(times_ms[0], quantity="step_time", unit="ms", **where),
        summarised(times_ms[1], quantity="static_step_time", unit="ms", **where),
        summarised(shares, quantity="static_share", unit="%", **where),
        *([summarised([fed.setup_s], quantity="setup_time", unit="s", **where)] if fed.setup_s else []),
    ]


def _steps(
    prepared: Prepared, network: str, step: str, loader: ResidentLoader, precision: str, batch: int, capacity: int
) -> Steps:
    torch.manual_seed(0)
    model = build_model(network, "random", prepared.image_size).to(loader.spec.device)
    recipe = Recipe(optimizer=OPTIMIZER, learning_rate=0.001, epochs=1, batch_size=batch, patience=0)
    return make_steps(
        model.to(memory_format=torch.channels_last),
        loader,
        prepared.catalog["label"].to_numpy(),
        recipe,
        precision=precision,
        step=step,
        capacity=capacity,
    )
