"""Small measurements made by hand: four cells, two machines."""

from pathlib import Path
from typing import Any

import pandas as pd
from report_rows import DATA_HASH, write_cell

from bench.engine_rows import Found, machine_folder, write_found
from bench.report import Table
from fusion.files import content_hash

SVM, SGDM, CNN = "model1/resnet50+svm", "model2/efficientnet_b0+sgdm", "model3/cnn17+e25+b64"
MINE = "model2/mine+sgdm"
FOUR_CELLS = [SVM, SGDM, CNN, MINE]
CPU: dict[str, Any] = {"gpu": None, "cpu": "AMD EPYC", "cpu_cores": 2}
GPU: dict[str, Any] = {"gpu": {"name": "NVIDIA H100"}, "cpu": "AMD EPYC", "cpu_cores": 16}


def network(layers: float = 177, parameter_mib: float = 90.1, macs: float = 7.7e9) -> list[Found]:
    numbers = {"layers": layers, "parameters": 23.6e6, "parameter_mib": parameter_mib, "macs": macs, "activations": 2e7}
    return [Found(metric=metric, value=value, n=1) for metric, value in numbers.items()]


def file_size(precision: str, mib: float) -> Found:
    return Found(precision=precision, metric="file_mib", value=mib, n=1)


def engine(name: str, precision: str = "fp32", p50: dict[int, float] | None = None, **changes: float) -> list[Found]:
    """Return all rows of one engine; ``p50`` is in ms by batch."""
    of_engine = {
        "probability_difference": 3e-7,
        "probability_tolerance": 1e-4,
        "decision_flips": 0.0,
        "auc_difference": 0.0,
        "accuracy": 0.9,
        "auc": 0.95,
        "end_to_end_s": 12.34,
        "model_only_s": 10.12,
        "cold_start_s": 1.5,
        "peak_memory_mib": 512.0,
    }
    of_batch = {"latency_p90_ms": 20.0, "throughput": 80.0, "ratio": 1.0, "energy_j": 1.0, "gpu_mhz": 1500.0}
    of_batch |= {"gpu_throttled": 0.0, "cpu_stolen": 0.0}
    common: dict[str, Any] = {"engine": name, "precision": precision}
    found = [
        Found(**common, metric=metric, value=changes.get(metric, value), low=0.88, high=0.92, n=1043)
        if metric == "accuracy"
        else Found(**common, metric=metric, value=changes.get(metric, value), n=1043)
        for metric, value in of_engine.items()
    ]
    for batch, median in (p50 or {}).items():
        place = {**common, "batch": batch}
        found.append(
            Found(**place, metric="latency_p50_ms", value=median, low=0.98 * median, high=1.02 * median, n=200)
        )
        found += [
            Found(**place, metric=metric, value=changes.get(metric, value), low=0.9, high=1.1, n=200)
            if metric == "ratio"
            else Found(**place, metric=metric, value=changes.get(metric, value), n=200)
            for metric, value in of_batch.items()
        ]
    return found


def refused(name: str, reason: str, precision: str = "fp32", status: str = "refused") -> Found:
    return Found(engine=name, precision=precision, status=status, reason=reason)


def measure(
    run_dir: Path,
    cell: str,
    found: list[Found],
    environment: dict[str, Any] = CPU,
    protocol: str = "paper",
    seed: int = 0,
    **changes: object,
) -> Path:
    common = {"cell": cell, "protocol": protocol, "seed": seed, "weights": "imagenet", "synthetic_sources": ""}
    common |= {
        "data_hash": DATA_HASH,
        "config_hash": "c",
        "model_hash": "m",
        "environment_hash": content_hash(environment),
        **changes,
    }
    path = machine_folder(run_dir, environment) / protocol / str(seed) / f"{cell}.csv"
    write_found(path, common, found)
    return path


def two_machines(run_dir: Path) -> None:
    """Two cells on a CPU, one of them on a GPU too; one engine is beyond tolerance, several could not be had."""
    no_gpu = refused("onnxruntime-cuda", "torch sees no NVIDIA GPU here", status="not measured")
    cpu = [
        *engine("pytorch-cpu", p50={1: 30.0, 32: 640.0}),
        *engine("onnxruntime-cpu", p50={1: 15.0, 32: 500.0}, ratio=2.0, end_to_end_s=8.0, model_only_s=6.5),
        *engine("onnxruntime-cpu", "int8", {1: 5.0}, ratio=6.0, probability_difference=0.5, decision_flips=40.0),
        no_gpu,
    ]
    measure(run_dir, SVM, [*network(), file_size("fp32", 90.4), *cpu])
    measure(run_dir, CNN, [*network(17, 678.6), *cpu, refused("onnxruntime-cpu", "this CPU has no fp16", "fp16")])
    gpu = [
        *engine("pytorch-cuda", p50={1: 4.0}, end_to_end_s=0.81, model_only_s=0.123),
        *engine("onnxruntime-cuda", "fp16", {1: 1.25}, probability_tolerance=1e-2, gpu_throttled=0.25),
    ]
    measure(run_dir, SVM, [*network(), *gpu], GPU)


def write_results(run_dir: Path, cell: str, config_hash: str, seed: int = 0, **changes: object) -> None:
    """Leave the results of a cell, of which one number is enough here."""
    row = {"metric": "accuracy", "value": 0.9, "low": 0.85, "high": 0.95, "n": 1043, "config_hash": config_hash}
    write_cell(run_dir, cell, [row | changes], seed=seed)


def shown(table: Table, **where: object) -> pd.DataFrame:
    """Return the lines of ``display`` whose row of ``frame`` has these values."""
    chosen = pd.Series(True, index=table.frame.index)
    for column, value in where.items():
        chosen &= table.frame[column] == value
    return table.display[chosen]
