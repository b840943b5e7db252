"""Rows of what ``fusebench measure`` finds, and where a run's folder keeps them.

``measurements/<machine>/<protocol>/<seed>/<cell>.csv`` holds the rows of one cell on one machine, and
``measurements/<machine>/environment.json`` says what that machine is; its folder is named by the hash of that file's
content. So the rows of several machines lie side by side, and a machine's folder can be copied from one copy of the run
to another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fusion.checksums import require_intact
from fusion.files import content_hash, make_folder, read_json, write_json, write_text

ENGINE_COLUMNS = (
    "cell",
    "protocol",
    "seed",
    "engine",  # pytorch-cpu, onnxruntime-cuda, ...; empty for what belongs to the model itself
    "precision",  # fp32, bf16, fp16, int8; empty for what belongs to the network itself
    "batch",  # images of one call; 0 where there is no such thing
    "status",  # done, refused or not measured
    "metric",  # a key of ENGINE_METRICS; empty unless done
    "value",  # a number
    "unit",
    "low",  # 95 % interval, or the range of the rounds where ENGINE_METRICS says so
    "high",
    "n",  # calls, rounds or rows the value was computed over
    "reason",  # why an engine was refused or not measured; else empty
    "weights",
    "synthetic_sources",
    "data_hash",
    "config_hash",  # of the cell that was measured
    "model_hash",  # of its weights and predictions; empty where no engine was tried
    "environment_hash",  # the machine it was measured on
)
STATUSES = ("done", "refused", "not measured")
ENGINE_METRICS = {
    # of the network: engine and precision empty, batch 0
    "layers": "layers",  # as the paper counts them
    "parameters": "elements",
    "parameter_mib": "MiB",  # parameters and buffers as float32
    "macs": "operations",  # multiply-accumulates for one image
    "activations": "elements",
    # of the exported file of a precision: engine empty, batch 0
    "file_mib": "MiB",
    # of an engine with a precision: batch 0
    "probability_difference": "1",  # largest difference from PyTorch in fp32, over the test rows
    "probability_tolerance": "1",  # the largest that is allowed
    "decision_flips": "rows",  # test rows decided otherwise than by PyTorch in fp32
    "auc_difference": "1",  # AUC - AUC of PyTorch in fp32
    "accuracy": "1",  # of this engine, with its interval over groups
    "auc": "1",
    "run_difference": "1",  # PyTorch in fp32 only: from the probabilities the run has kept, unaugmented rows
    "end_to_end_s": "s",  # all test rows, from PNG files to decisions; median and range of the rounds
    "model_only_s": "s",  # the same from images in memory
    "cold_start_s": "s",  # from opening the model to its first answer, in a fresh process
    "peak_memory_mib": "MiB",  # most memory that process took for it
    # of an engine with a precision at a batch
    "latency_p50_ms": "ms",  # n: timed calls
    "latency_p90_ms": "ms",
    "throughput": "images/s",  # images of all timed calls / their time
    "ratio": "1",  # p50 of PyTorch eager in fp32 on the same device / this p50; above 1 this one is faster
    "energy_j": "J",  # of the GPU, for one image
    "gpu_mhz": "MHz",  # clock of the multiprocessors, mean over the rounds
    "gpu_throttled": "1",  # share of the rounds in which the GPU said it held its clock back
    "cpu_stolen": "1",  # share of CPU time that other guests of the machine took meanwhile
}
"""Metric -> unit."""
MEASUREMENTS, ENVIRONMENT = "measurements", "environment.json"


@dataclass(frozen=True, kw_only=True)
class Found:
    """One number about a cell, or why there is none."""

    engine: str = ""
    precision: str = ""
    batch: int = 0
    status: str = "done"
    metric: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    reason: str = ""


def machine_name(environment: Mapping[str, Any]) -> str:
    """Return the GPU, or the CPU with its cores, of ``bench.environment.describe_environment``."""
    gpu = environment["gpu"]
    return gpu["name"] if gpu else f"{environment['cpu']}, {environment['cpu_cores']} cores"


def machine_folder(run_dir: Path, environment: Mapping[str, Any]) -> Path:
    """Return the folder of a machine in a run's folder; made, with its description, if missing.

    Raises:
        UserError: it can't be written.
    """
    folder = run_dir / MEASUREMENTS / content_hash(environment)[:12]
    if not (folder / ENVIRONMENT).exists():
        make_folder(folder)
        write_json(folder / ENVIRONMENT, environment, recorded=True)
    return folder


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what ``machine_folder`` has kept about a machine.

    Raises:
        UserError: the description is missing or damaged.
    """
    require_intact(folder / ENVIRONMENT, way_out=f"delete the folder {folder} and measure again")
    return read_json(folder / ENVIRONMENT, "the folder of a machine")


def write_found(path: Path, common: Mapping[str, Any], found: list[Found]) -> None:
    """Write the rows of one cell; ``common`` holds the columns they share.

    Raises:
        UserError: the file can't be written.
    """
    rows = [{**common, **vars(one), "unit": ENGINE_METRICS[one.metric] if one.metric else ""} for one in found]
    make_folder(path.parent)
    write_text(path, pd.DataFrame(rows, columns=list(ENGINE_COLUMNS)).to_csv(index=False), recorded=True)
