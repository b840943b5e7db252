"""Running a matrix: one cell after the other, each isolated, each found again when the run is continued."""

import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch
from torch import nn

from bench.environment import describe_environment, set_numerics
from bench.evaluate import prediction_frame
from bench.extract import features_of
from bench.matrix import Cell, Matrix
from bench.metrics import Measured, classification_metrics
from bench.store import CellKey, definition_hash, done_rows, failed_rows, is_done, write_cell
from bench.train import PRECISIONS, Epoch, choose_precision, predict_logits, train
from fusion.errors import UserError
from fusion.files import content_hash, make_folder, read_json, write_json
from fusion.loaders import LOADERS, BatchSpec, make_loader
from fusion.models import FORWARD_GMACS, build_model, normalisation, require_size
from fusion.models.backbones import build_backbone, weights_identity
from fusion.models.heads import fit_head, head_tensors, malignant_probability
from fusion.prepare import Prepared
from fusion.split import Split, split_rows

FORMAT = 1
RUN = "run.json"

Progress = Callable[[str, float, float], None]
"""Called with what is under way, the work done and the work there is, in the same unit."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a matrix is run.

    Raises:
        UserError: a value is unknown.
    """

    weights: str
    """``imagenet``, ``random`` or a folder of safetensors files."""
    loader: str = "resident"
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``: the GPU where there is one."""
    precision: str = "auto"
    """A key of ``PRECISIONS``, or ``auto``: bf16 or fp16 on a GPU, fp32 on the CPU."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("loader", self.loader, tuple(LOADERS)),
            ("device", self.device, ("auto", "cpu", "cuda")),
            ("precision", self.precision, ("auto", *PRECISIONS)),
        ):
            if value not in allowed:
                raise UserError(f"{name} {value!r} is unknown; choose from {', '.join(allowed)}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device 'cuda' is asked for, but torch sees no GPU here; choose 'cpu' or 'auto'")

    def torch_device(self) -> torch.device:
        """Return the device that is meant."""
        gpu = torch.cuda.is_available() if self.device == "auto" else self.device == "cuda"
        return torch.device("cuda" if gpu else "cpu")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended."""

    done: int
    """Cells finished now."""
    found: int
    """Cells that were finished before."""
    failed: tuple[str, ...]
    """A line for each cell that failed: which, and why."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One cell under one protocol and seed."""

    cell: Cell
    protocol: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.protocol}/{self.seed}/{self.cell.name}"

    @property
    def cost(self) -> float:
        epochs = self.cell.recipe.epochs * 3 if self.cell.recipe else 1 / 3
        return epochs * FORWARD_GMACS[self.cell.network]


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    split: Split
    probability: np.ndarray
    tensors: dict[str, Any]
    history: list[Epoch]


def run(
    matrix: Matrix,
    cells: Sequence[Cell],
    prepared: Prepared,
    out: Path,
    settings: Settings,
    *,
    protocols: Sequence[str],
    seeds: Sequence[int],
    progress: Progress,
    finished: Callable[[str], None],
) -> Summary:
    """Run ``cells`` under every protocol and seed into the folder ``out``; finished cells are found and left alone.

    Args:
        matrix: the matrix the cells come from.
        cells: the cells to run.
        prepared: the data set.
        out: the run's folder; made if missing.
        settings: weights, loader, device and precision.
        protocols: ``paper``, ``clean`` or both.
        seeds: one run of every cell for each.
        progress: called as the work goes on.
        finished: called with one line when a cell has ended.

    Raises:
        UserError: the folder can't be written, or holds a run on other data or with other settings.
    """
    device = settings.torch_device()
    set_numerics(device)
    precision = choose_precision(device) if settings.precision == "auto" else settings.precision
    make_folder(out)
    environment = describe_environment(device)
    jobs = [_Job(cell=c, protocol=p, seed=s) for p in protocols for s in seeds for c in cells]
    _write_run(out, matrix, jobs, prepared, settings, precision, environment)
    done, found, failed, work = 0, 0, [], 0.0
    total = sum(job.cost for job in jobs)
    for job in jobs:
        started = time.perf_counter()

        def report(part: float, job: _Job = job, before: float = work) -> None:
            progress(job.name, before + part * job.cost, total)

        try:
            definition = _definition(job, prepared, settings, precision)
            key = _key(job, prepared, settings, definition, environment)
            if is_done(key, definition, out):
                found += 1
            else:
                report(0.0)
                failure = _run_job(job, key, definition, prepared, out, settings, device, precision, report)
                if failure:
                    failed.append(f"{job.name}: {failure}")
                    finished(f"{job.name} failed: {failure}")
                else:
                    done += 1
                    finished(f"{job.name} done in {time.perf_counter() - started:.0f} s")
        finally:
            work += job.cost
        progress(job.name, work, total)
    return Summary(done=done, found=found, failed=tuple(failed))


def _run_job(
    job: _Job,
    key: CellKey,
    definition: dict[str, Any],
    prepared: Prepared,
    out: Path,
    settings: Settings,
    device: torch.device,
    precision: str,
    report: Callable[[float], None],
) -> str:
    """Run one cell and write its folder; return why it failed, or nothing."""
    started = time.perf_counter()
    try:
        if missing := definition["weights"].get("missing"):
            raise UserError(missing)
        require_size(job.cell.network, prepared.image_size)
        outcome = _compute(job, prepared, out, settings, device, precision, report)
        if not np.isfinite(outcome.probability).all():
            raise UserError("the predicted probabilities are not all finite numbers")
    except UserError as error:
        reason, trace = str(error), ""
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason, trace = f"out of memory: {_first_line(error)}", traceback.format_exc()
    except Exception as error:  # one cell's fault must not end the others; the traceback is kept beside its row
        reason, trace = f"{type(error).__name__}: {_first_line(error)}", traceback.format_exc()
    else:
        seconds = time.perf_counter() - started
        predictions = prediction_frame(prepared.catalog, outcome.split.test, outcome.probability)
        measured = [
            *classification_metrics(predictions["label"].to_numpy(), outcome.probability),
            _one("epochs", len(outcome.history), "epochs", len(outcome.split.train)),
            _one("wall_s", seconds, "s", len(outcome.split.train)),
        ]

        def write_results(folder: Path) -> None:
            predictions.to_parquet(folder / "predictions.parquet", index=False)
            columns = list(Epoch.__dataclass_fields__)
            pd.DataFrame([asdict(e) for e in outcome.history], columns=columns).to_csv(
                folder / "history.csv", index=False
            )
            save = save_numpy if job.cell.head else save_torch
            save(outcome.tensors, folder / "model.safetensors")

        write_cell(key.folder(out), definition, done_rows(key, measured), write_results)
        return ""

    def write_trace(folder: Path) -> None:
        if trace:
            (folder / "error.txt").write_text(trace, encoding="utf-8")

    write_cell(key.folder(out), definition, failed_rows(key, reason), write_trace)
    return reason


def _compute(
    job: _Job,
    prepared: Prepared,
    out: Path,
    settings: Settings,
    device: torch.device,
    precision: str,
    report: Callable[[float], None],
) -> _Outcome:
    cell, seed = job.cell, job.seed
    labels = prepared.catalog["label"].to_numpy()
    split = split_rows(prepared.catalog, job.protocol, seed, modality=cell.modality, augmented=cell.augmented)
    mean, std = normalisation(cell.network)
    loader = make_loader(settings.loader, prepared, BatchSpec(seed=seed, mean=mean, std=std, device=device))
    # Every cell of a network starts from the same weights, so that two optimizers differ in the optimizer alone.
    torch.manual_seed(_derived_seed(seed, cell.network))
    if cell.head:
        model = build_backbone(cell.network, settings.weights, classes=0)
        _place(model, device)
        identity = {
            "network": cell.network,
            "weights": weights_identity(cell.network, settings.weights),
            "seed": seed,
            "data": prepared.data_hash,
            "loader": settings.loader,
            "precision": precision,
            "format": FORMAT,
        }
        folder = out / "features" / f"{cell.network}-{content_hash(identity)[:12]}"
        train_features = features_of(model, loader, prepared, split.train, folder, precision=precision)
        test_features = features_of(model, loader, prepared, split.test, folder, precision=precision)
        if not (np.isfinite(train_features).all() and np.isfinite(test_features).all()):
            raise UserError(f"the features of {cell.network} are not all finite numbers")
        head = fit_head(cell.head, train_features, labels[split.train.image], seed)
        probability = malignant_probability(head, test_features)
        return _Outcome(split=split, probability=probability, tensors=head_tensors(cell.head, head), history=[])
    assert cell.recipe is not None
    recipe = cell.recipe
    model = build_model(cell.network, settings.weights, prepared.image_size)
    _place(model, device)
    history = train(
        model,
        loader,
        split,
        labels,
        recipe,
        seed=_derived_seed(seed, cell.name),
        precision=precision,
        progress=lambda epoch: report(epoch.epoch / recipe.epochs),
    )
    logits = predict_logits(model, loader, split.test, precision=precision)
    probability = torch.softmax(logits.double(), dim=1)[:, 1].numpy()
    tensors = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    return _Outcome(split=split, probability=probability, tensors=tensors, history=history)


def _place(model: nn.Module, device: torch.device) -> None:
    model.to(device).to(memory_format=torch.channels_last)


def _definition(job: _Job, prepared: Prepared, settings: Settings, precision: str) -> dict[str, Any]:
    """Return all that decides a cell's numbers, as plain data."""
    network = job.cell.network
    weights: dict[str, str] = {"start": "random"}
    if network != "cnn17":
        try:
            weights = {"start": weights_identity(network, settings.weights)}
        except UserError as error:
            weights = {"start": settings.weights, "missing": str(error)}
    return {
        "format": FORMAT,
        "cell": job.cell.definition(),
        "protocol": job.protocol,
        "seed": job.seed,
        "data_hash": prepared.data_hash,
        "weights": weights,
        "loader": settings.loader,
        "precision": precision,
    }


def _key(
    job: _Job, prepared: Prepared, settings: Settings, definition: dict[str, Any], environment: dict[str, Any]
) -> CellKey:
    return CellKey(
        cell=job.cell.name,
        protocol=job.protocol,
        seed=job.seed,
        weights=_weights_name(settings),
        synthetic_sources=" ".join(prepared.synthetic_sources),
        data_hash=prepared.data_hash,
        config_hash=definition_hash(definition),
        environment_hash=content_hash(environment),
    )


def _write_run(
    out: Path,
    matrix: Matrix,
    jobs: Sequence[_Job],
    prepared: Prepared,
    settings: Settings,
    precision: str,
    environment: dict[str, Any],
) -> None:
    """Write ``run.json``, or add to the one of an earlier call on the same data with the same settings."""
    same = {
        "format": FORMAT,
        "matrix": {"name": matrix.name},
        "weights": _weights_name(settings),
        "loader": settings.loader,
        "precision": precision,
        "data": {
            "data_hash": prepared.data_hash,
            "image_size": prepared.image_size,
            "synthetic_sources": prepared.synthetic_sources,
            "counts": prepared.manifest["counts"],
        },
    }
    grown: dict[str, Any] = {
        "cells": list(dict.fromkeys(job.cell.name for job in jobs)),
        "protocols": list(dict.fromkeys(job.protocol for job in jobs)),
        "seeds": list(dict.fromkeys(job.seed for job in jobs)),
        "environments": {content_hash(environment): environment},
    }
    if (out / RUN).exists():
        earlier = read_json(out / RUN, "a run's folder")
        for name, value in same.items():
            if earlier.get(name) != value:
                raise UserError(
                    f"{out} holds a run with another {name} ({_short(earlier.get(name))}, now {_short(value)}); "
                    "choose another --out"
                )
        for name in ("cells", "protocols", "seeds"):
            grown[name] = list(dict.fromkeys([*earlier.get(name, []), *grown[name]]))
        grown["environments"] = {**earlier.get("environments", {}), **grown["environments"]}
    elif any(not path.name.startswith(".") for path in out.iterdir()):  # a killed call may have left .run.json.*
        raise UserError(f"{out} is not empty and is not a run's folder; choose another --out")
    write_json(out / RUN, {**same, **grown})


def _weights_name(settings: Settings) -> str:
    return settings.weights if settings.weights in ("imagenet", "random") else Path(settings.weights).name


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("data_hash", value.get("name", value))
    return str(value)[:16]


def _derived_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _one(metric: str, value: float, unit: str, n: int) -> Measured:
    return Measured(metric=metric, value=float(value), unit=unit, low=float("nan"), high=float("nan"), n=n)
