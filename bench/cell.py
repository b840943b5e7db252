"""One cell: what defines it, and how it is trained and judged."""

import gc
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.baselines import Source, baseline_constants, fit_baseline
from bench.extract import features_folder, features_of
from bench.matrix import Cell
from bench.step import PRECISIONS, STEPS, choose_step, graph_obstacle
from bench.train import OPTIMIZERS, Epoch, choose_device, choose_precision, train
from fusion.augment import COPIES
from fusion.errors import UserError
from fusion.loaders import LOADERS, BatchSpec, Loader, choose_loader, make_loader
from fusion.models import FORWARD_GMACS, build_model, cnn17, normalisation, require_size
from fusion.models.backbones import BACKBONES, build_backbone, weights_identity
from fusion.models.heads import HEADS, fit_head, head_tensors, malignant_probability
from fusion.prepared import Prepared
from fusion.split import TEST_FOLDS, VALIDATION_FOLDS, Split, split_rows
from kernels.augment_reference import AugmentationRange

BASELINE_COST = 0.01
FORMAT = 1
"""Raised when the same definition would give other numbers than before."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a matrix is run.

    Raises:
        UserError: a value is unknown.
    """

    weights: str
    """``imagenet``, ``random`` or a folder of safetensors files."""
    loader: str = "auto"
    """A key of ``LOADERS``, or ``auto``: ``resident`` where the images fit the memory; ``resolved`` says which."""
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``: the GPU where there is one."""
    precision: str = "auto"
    """A key of ``PRECISIONS``, or ``auto``: bf16 or fp16 on a GPU, fp32 on the CPU."""
    step: str = "auto"
    """One of ``STEPS``, or ``auto``: the fastest that is possible."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("loader", self.loader, ("auto", *LOADERS)),
            ("precision", self.precision, ("auto", *PRECISIONS)),
            ("step", self.step, ("auto", *STEPS)),
        ):
            if value not in allowed:
                raise UserError(f"{name} {value!r} is unknown; choose from {', '.join(allowed)}")
        if self.weights not in ("imagenet", "random") and not (self.weights and Path(self.weights).is_dir()):
            raise UserError(f"weights {self.weights!r} are unknown; choose imagenet, random, or an existing folder")
        choose_device(self.device)

    def torch_device(self) -> torch.device:
        """Return the device that is meant."""
        return choose_device(self.device)

    def torch_precision(self) -> str:
        """Return the precision that is meant, a key of ``PRECISIONS``."""
        return choose_precision(self.torch_device()) if self.precision == "auto" else self.precision

    def resolved(self, prepared: Prepared) -> tuple["Settings", list[str]]:
        """Return the settings with the loader that is meant, and what the user should know of the choices made."""
        loader, note = choose_loader(prepared, self.torch_device()) if self.loader == "auto" else (self.loader, "")
        notes = [f"{note}: they are streamed from their files by {loader}"] if note else []
        settings = replace(self, loader=loader)
        obstacle = graph_obstacle(**settings._circumstances())
        if self.torch_device().type == "cuda" and self.step == "auto" and obstacle:
            notes.append(f"training steps are launched one by one, not as a graph: {obstacle}")
        return settings, notes

    def torch_step(self, network: str) -> str:
        """Return how the training steps of a network are made, one of ``STEPS``.

        Raises:
            UserError: a graph is asked for where there can't be one.
        """
        return choose_step(self.step, network, **self._circumstances())

    def _circumstances(self) -> dict[str, Any]:
        return {"loader": self.loader, "device": self.torch_device(), "precision": self.torch_precision()}

    def weights_name(self) -> str:
        """Return ``imagenet``, ``random``, or ``folder NAME`` without the path."""
        return self.weights if self.weights in ("imagenet", "random") else f"folder {Path(self.weights).resolve().name}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One cell under one protocol and seed."""

    cell: Cell
    protocol: str
    seed: int

    @property
    def name(self) -> str:
        """``paper/0/model2/resnet50+sgdm``."""
        return f"{self.protocol}/{self.seed}/{self.cell.name}"

    @property
    def cost(self) -> float:
        """Work of the cell in relative units, for the remaining time."""
        if self.cell.network is None:
            return BASELINE_COST
        epochs = self.cell.recipe.epochs * 3 if self.cell.recipe else 1 / 3
        return epochs * FORWARD_GMACS[self.cell.network]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a cell came to."""

    split: Split
    probability: np.ndarray
    """[R] float64, of malignancy, of each test row."""
    tensors: dict[str, Any]
    """Trained weights (torch), or what the classifier has learnt (numpy)."""
    history: list[Epoch]
    """Empty for Model 1 and baselines."""
    setup_s: float
    """Seconds of warm-up, compilation and capture before the first epoch."""
    peak_memory_mib: float
    """Most GPU memory PyTorch held while the cell ran, the images included; NaN on the CPU, where none is measured."""


def definition(job: Job, prepared: Prepared, settings: Settings) -> dict[str, Any]:
    """Return all that decides a cell's numbers, as plain data."""
    cell = job.cell
    common = {
        "format": FORMAT,
        "cell": cell.definition(),
        "protocol": job.protocol,
        "seed": job.seed,
        "data_hash": prepared.data_hash,
        "constants": _constants(),
        "loader": settings.loader,
        "precision": settings.torch_precision(),
    }
    if cell.network is None:
        return common | {"weights": {}, "step": None, "baseline": baseline_constants(str(cell.head))}
    step = settings.torch_step(cell.network) if cell.recipe else None
    return common | {"weights": _starting_weights(cell.network, settings), "step": step}


def rows_of(cell: Cell, prepared: Prepared, protocol: str, seed: int) -> Split:
    """Return the rows that a cell is trained on, watched on and judged on.

    Raises:
        UserError: as ``split_rows``.
    """
    return split_rows(
        prepared.catalog, protocol, seed, modality=cell.modality, tested_on=cell.tested_on, augmented=cell.augmented
    )


def compute(job: Job, prepared: Prepared, out: Path, settings: Settings, report: Callable[[float], None]) -> Outcome:
    """Train the cell's network or fit its classifier, and predict its test rows.

    Args:
        job: which cell, protocol and seed.
        prepared: the data set.
        out: the run's folder, where Model 1's features are kept.
        settings: weights, loader, device and precision.
        report: called with the share of the work done.

    Raises:
        UserError: weights that can't be had, images too small for the network, a loss or features that are not
            finite, or a data set too small to split.
    """
    cell = job.cell
    if cell.network is None:
        return _fit_baseline(job, prepared, settings)
    if missing := _starting_weights(cell.network, settings).get("missing"):
        raise UserError(missing)
    require_size(cell.network, prepared.image_size)
    split = rows_of(cell, prepared, job.protocol, job.seed)
    mean, std = normalisation(cell.network)
    device, dtype = settings.torch_device(), PRECISIONS[settings.torch_precision()]
    _forget_peak_memory(device)
    spec = BatchSpec(seed=job.seed, mean=mean, std=std, device=device, dtype=dtype)
    loader = make_loader(settings.loader, prepared, spec)
    # Every cell of a network starts from the same weights, so that two optimizers differ in the optimizer alone.
    torch.manual_seed(_derived_seed(job.seed, cell.network))
    if cell.head:
        return _fit_classifier(job, prepared, split, loader, out, settings, report)
    return _train_network(job, prepared, split, loader, settings, report)


def _fit_baseline(job: Job, prepared: Prepared, settings: Settings) -> Outcome:
    split = rows_of(job.cell, prepared, job.protocol, job.seed)
    device = settings.torch_device()
    _forget_peak_memory(device)
    source = Source(prepared=prepared, loader=settings.loader, device=device, seed=job.seed)
    probability, tensors = fit_baseline(str(job.cell.head), source, split)
    return Outcome(
        split=split,
        probability=probability,
        tensors=tensors,
        history=[],
        setup_s=0.0,
        peak_memory_mib=_peak_memory_mib(device),
    )


def _fit_classifier(
    job: Job,
    prepared: Prepared,
    split: Split,
    loader: Loader,
    out: Path,
    settings: Settings,
    report: Callable[[float], None],
) -> Outcome:
    cell = job.cell
    assert cell.network is not None
    assert cell.head is not None
    model = _placed(build_backbone(cell.network, settings.weights, classes=0), settings)
    precision = settings.torch_precision()
    folder = features_folder(out, definition(job, prepared, settings))
    train_features, test_features = (
        features_of(model, loader, prepared, rows, folder, precision=precision) for rows in (split.train, split.test)
    )
    report(0.5)
    if not (np.isfinite(train_features).all() and np.isfinite(test_features).all()):
        raise UserError(f"the features of {cell.network} are not all finite numbers")
    labels = prepared.catalog["label"].to_numpy()
    head = fit_head(cell.head, train_features, labels[split.train.image], job.seed)
    probability = malignant_probability(head, test_features)
    return Outcome(
        split=split,
        probability=probability,
        tensors=head_tensors(cell.head, head),
        history=[],
        setup_s=0.0,
        peak_memory_mib=_peak_memory_mib(settings.torch_device()),
    )


def _train_network(
    job: Job,
    prepared: Prepared,
    split: Split,
    loader: Loader,
    settings: Settings,
    report: Callable[[float], None],
) -> Outcome:
    recipe = job.cell.recipe
    network = job.cell.network
    assert network is not None
    assert recipe is not None
    model = _placed(build_model(network, settings.weights, prepared.image_size), settings)
    trained = train(
        model,
        loader,
        split,
        prepared.catalog["label"].to_numpy(),
        recipe,
        seed=_derived_seed(job.seed, job.cell.name),
        precision=settings.torch_precision(),
        step=settings.torch_step(network),
        progress=lambda epoch: report(epoch.epoch / recipe.epochs),
    )
    logits = trained.steps.predict(split.test)
    probability = torch.softmax(logits.double(), dim=1)[:, 1].numpy()
    tensors = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    return Outcome(
        split=split,
        probability=probability,
        tensors=tensors,
        history=trained.history,
        setup_s=trained.steps.setup_s,
        peak_memory_mib=_peak_memory_mib(settings.torch_device()),
    )


def _constants() -> dict[str, Any]:
    """Return what is written in the code rather than in a matrix, and decides numbers all the same."""
    weight = [nn.Parameter(torch.zeros(1))]
    defaults = {name: make(weight, lr=1.0).defaults for name, make in OPTIMIZERS.items()}
    return {
        "augmentation": asdict(AugmentationRange()),
        "copies": {f"{modality}/{label}": count for (modality, label), count in COPIES.items()},
        "folds": [TEST_FOLDS, VALIDATION_FOLDS],
        "optimizers": {name: {key: repr(value) for key, value in rows.items()} for name, rows in defaults.items()},
        "heads": {name: repr(make(0)) for name, make in HEADS.items()},
        "backbones": {name: asdict(row) for name, row in BACKBONES.items()},
        "cnn17": [cnn17.CHANNELS, cnn17.HIDDEN, cnn17.KERNEL, cnn17.DILATION, cnn17.POOL, cnn17.MEAN, cnn17.STD],
    }


def _placed(model: nn.Module, settings: Settings) -> nn.Module:
    return model.to(settings.torch_device()).to(memory_format=torch.channels_last)


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()  # the graphs of the cell before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else math.nan


def _starting_weights(network: str, settings: Settings) -> dict[str, str]:
    if network == "cnn17":
        return {"start": "random"}
    try:
        return {"start": weights_identity(network, settings.weights)}
    except UserError as error:  # the cell will fail for it, and is run again once the file is there
        return {"start": settings.weights, "missing": str(error)}


def _derived_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")
