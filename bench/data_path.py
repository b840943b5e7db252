"""What ``fusebench data-path`` measures: loaders by stage, the kernel beside its floor, training with the loader."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cell import Settings
from bench.kernel_floor import measure_kernel
from bench.loader_bound import measure_steps
from bench.loader_stages import measure_throughput
from bench.measurement import Advance, Measurement, augmented_rows
from bench.step import PRECISIONS, STEPS
from fusion.errors import UserError
from fusion.loaders import HAVE_DALI, LOADERS, BatchSpec, choose_loader
from fusion.models import MODELS, require_size
from fusion.prepared import Prepared

CHANNELS = 3
"""Of the batches whose loading is measured: most networks take three."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Raises:
        UserError: a value is unknown or outside its bounds, or a choice is not possible here.
    """

    settings: Settings
    """Device and precision."""
    loaders: Sequence[str] = ()
    """Keys of ``LOADERS``; empty for all that are installed."""
    networks: Sequence[str] = MODELS
    """Networks whose training steps are timed; may be empty."""
    steps: Sequence[str] = ()
    """Of ``STEPS``, or ``auto``; empty for eager and, where there can be one, graph."""
    batch: int = 30
    rows: int = 480
    """Augmented rows of one round of a loader."""
    rounds: int = 5

    def __post_init__(self) -> None:
        for name, values, allowed in (
            ("loader", self.loaders, tuple(LOADERS)),
            ("network", self.networks, MODELS),
            ("step", self.steps, ("auto", *STEPS)),
        ):
            for value in values:
                if value not in allowed:
                    raise UserError(f"{name} {value!r} is unknown; choose from {', '.join(allowed)}")
        for name, low, high in (("batch", 2, 4096), ("rows", 1, 1_000_000), ("rounds", 1, 1000)):
            number = getattr(self, name)
            if not low <= number <= high:
                raise UserError(f"--{name} {number} is outside {low}..{high}")
        for step in self.steps:
            self.settings_of(step).torch_step("")  # refuses what is not possible

    def settings_of(self, step: str) -> Settings:
        """Return the settings of a training with the resident loader and this kind of step."""
        return replace(self.settings, loader="resident", step=step)

    def chosen_loaders(self) -> tuple[str, ...]:
        """Return the loaders that are measured."""
        return tuple(dict.fromkeys(self.loaders)) or tuple(name for name in LOADERS if name != "dali" or HAVE_DALI)

    def left_out(self) -> tuple[str, ...]:
        """Return what is not measured though it was not excluded, a sentence each."""
        everything = HAVE_DALI or self.loaders
        return () if everything else ("the loader dali is not measured: DALI is not installed",)

    def described(self, prepared: Prepared) -> dict[str, Any]:
        """Return what was measured on what, as plain data."""
        measured: dict[str, Any] = {
            "batch": self.batch,
            "rows": self.rows,
            "rounds": self.rounds,
            "loaders": self.chosen_loaders(),
        }
        measured |= {"networks": tuple(self.networks), "steps": self.chosen_steps()}
        return {"measured": measured, "data_hash": prepared.data_hash, "counts": prepared.counts}

    def chosen_steps(self) -> tuple[str, ...]:
        """Return the kinds of training step that are measured."""
        return tuple(dict.fromkeys(self.settings_of(step).torch_step("") for step in self.steps or ("eager", "auto")))


def output_files(csv: Path) -> dict[str, Path]:
    """Return the files that hold tables, machine and figures: ``csv`` and, beside it, those of the same name.

    Raises:
        UserError: the name does not end in .csv, or one of the files can't be written.
    """
    if csv.suffix != ".csv":
        raise UserError(f"--csv {csv}: the name must end in .csv")
    if not csv.parent.is_dir():
        raise UserError(f"--csv {csv}: there is no folder {csv.parent}")
    files = {kind: csv.with_suffix(f".{kind}") for kind in ("md", "json", "csv")}
    for file in files.values():
        if file.is_dir() or not os.access(file.parent, os.W_OK):
            raise UserError(f"--csv {csv}: {file} can't be written")
    return files


def measure_data_path(prepared: Prepared, plan: Plan, advance: Advance) -> pd.DataFrame:
    """Return one line per ``Measurement``, with precision and image size.

    Args:
        prepared: the data set.
        plan: what is measured.
        advance: called with what is under way, and how much of it is done.

    Raises:
        UserError: the images don't fit the memory, are too small for a network, a file is gone, or a loader can't work.
    """
    device, precision = plan.settings.torch_device(), plan.settings.torch_precision()
    if too_large := choose_loader(prepared, device)[1]:
        raise UserError(f"{too_large}; data-path measures sets that fit, e.g. one prepared from fewer images")
    for network in plan.networks:
        require_size(network, prepared.image_size)
    grey = (0.5,) * CHANNELS
    spec = BatchSpec(seed=0, mean=grey, std=grey, device=device, dtype=PRECISIONS[precision])
    rows = augmented_rows(prepared, plan.rows)
    found: list[Measurement] = [
        *measure_throughput(
            prepared, spec, rows, plan.chosen_loaders(), batch=plan.batch, rounds=plan.rounds, advance=advance
        ),
        *measure_kernel(prepared, spec, rounds=plan.rounds, advance=advance),
        *measure_steps(
            prepared,
            tuple(dict.fromkeys(plan.networks)),
            plan.chosen_steps(),
            device=device,
            precision=precision,
            batch=plan.batch,
            rounds=plan.rounds,
            advance=advance,
        ),
    ]
    return pd.DataFrame([asdict(one) for one in found]).assign(precision=precision, image_size=prepared.image_size)
