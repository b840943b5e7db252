"""Measuring one finished cell: its files, its size, and every engine, which must give the right answers first."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.classify import BatchClassifier, batches_of, decoded_batches
from bench.cold_start import Target, measure_cold_start
from bench.complexity import measure_complexity
from bench.engine_rows import Found
from bench.export import BodyGraph, export_onnx, load_classifier
from bench.extract import features_folder
from bench.latency import Estimate, quantile, ratio, throughput, time_calls
from bench.machine_state import StateRecorder, energy_per_image
from bench.measurement import timed
from bench.onnx_file import read_onnx, require_size
from bench.parity import TOLERANCES, compare, largest_difference
from bench.quantize import quantize_int8
from bench.run_images import TestRows, find_test_rows
from bench.sessions import DTYPES, NotHereError, RefusedError, open_session, require_machine
from fusion.errors import UserError
from fusion.files import content_hash, file_hash, read_json
from fusion.models import build_model, normalisation

TEST_BATCH = 64
"""Images of a call when the whole test set is classified."""
TEST_ROUNDS = 3
FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
"""Precision -> the name of the exported file in a cell's folder."""

Pair = tuple[str, str]
"""An engine and a precision."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the cells of a run are measured under."""

    run: Path
    image_size: int
    run_precision: str
    """The run's probabilities were computed in it."""
    weights: str
    synthetic_sources: Sequence[str]
    batches: Sequence[int]
    rounds: int


def measure_cell(
    cell: Path, pairs: Sequence[Pair], conditions: Conditions, graph: BodyGraph, advance: Callable[[float], None]
) -> list[Found]:
    """Return all that is found about a cell; an engine that can't be measured is a row with its reason.

    Args:
        cell: its folder.
        pairs: the engines and precisions wanted.
        conditions: of the run.
        graph: the traced body of the network, kept from cell to cell.
        advance: called with the share of the work that is done.

    Raises:
        UserError: a file of the cell is damaged or can't be written.
    """
    rows, size = find_test_rows(conditions.run, cell), conditions.image_size
    network = read_json(cell / "cell.json", "a finished cell")["cell"]["network"]
    images_u8 = np.concatenate(list(decoded_batches(rows.files, size, TEST_BATCH)))
    files, failures = export_cell(cell, {precision for _, precision in pairs}, rows, conditions, graph)
    advance(0.2)
    found = [*network_facts(network, size), *(_file_fact(name, file) for name, file in files.items())]
    baseline = ("pytorch-cuda" if torch.cuda.is_available() else "pytorch-cpu", "fp32")
    model = Target(run=conditions.run, cell=cell, image_size=size, file=None)
    trusted = _opened(baseline, model, min(TEST_BATCH, len(images_u8)))
    reference = trusted.probabilities(batches_of(images_u8, trusted.batch))
    difference = largest_difference(reference[rows.unaugmented], rows.probability[rows.unaugmented])
    if difference > (allowed := TOLERANCES[conditions.run_precision]):
        reason = (
            f"mismatch: the model gives other probabilities than its run has kept (largest difference "
            f"{difference:.2g}, allowed {allowed:g}): its weights or its preprocessing are not those of the run"
        )
        return [*found, *(Found(engine=e, precision=p, status="refused", reason=reason) for e, p in pairs)]
    ready: dict[Pair, BatchClassifier] = {}
    answers: dict[Pair, np.ndarray] = {}
    for number, pair in enumerate(pairs):
        target = Target(run=conditions.run, cell=cell, image_size=size, file=files.get(pair[1]))
        try:
            require_machine(pair[0])
            if pair[0].startswith("onnxruntime") and pair[1] in failures:
                raise RefusedError(failures[pair[1]])
            first, classifier, answers[pair] = _proven(
                pair, target, rows, reference, images_u8, conditions, trusted if pair == baseline else None
            )
        except NotHereError as error:
            found.append(Found(engine=pair[0], precision=pair[1], status="not measured", reason=str(error)))
        except Exception as error:  # whatever a runtime raises: the other engines are measured
            found.append(Found(engine=pair[0], precision=pair[1], status="refused", reason=_reason(error)))
        else:
            ready[pair] = classifier
            found += first
            if pair == baseline:
                found.append(_of(pair, Found(metric="run_difference", value=difference, n=int(rows.unaugmented.sum()))))
        advance(0.2 + 0.4 * (number + 1) / len(pairs))
    found += _test_set_times(ready, rows, images_u8, size)
    advance(0.7)
    for number, batch in enumerate(conditions.batches):
        try:
            found += _latencies(ready, answers, images_u8, batch, conditions.rounds)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:  # all engines have their buffers at once
            found += [_refused_at(pair, batch, _reason(error)) for pair in ready]
        advance(0.7 + 0.3 * (number + 1) / len(conditions.batches))
    return found


def export_cell(
    cell: Path, precisions: set[str], rows: TestRows, conditions: Conditions, graph: BodyGraph
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the exported files of a cell by precision, and for those that can't be made the reason.

    Files that are missing or of other weights are written.

    Raises:
        UserError: a file of the cell is damaged or can't be written.
    """
    defined = read_json(cell / "cell.json", "a finished cell")
    network, size = defined["cell"]["network"], conditions.image_size
    wanted = {name: cell / file for name, file in FILES.items() if name in precisions | {"fp32"}}
    wanted = {name: file for name, file in wanted.items() if name != "fp16" or torch.cuda.is_available()}
    metadata = {"cell": f"{defined['protocol']}/{defined['seed']}/{defined['cell']['name']}"}
    metadata |= {"config_hash": content_hash(defined), "weights_sha256": _weights_hash(cell, conditions.run, defined)}
    metadata |= {"weights": conditions.weights, "synthetic_sources": " ".join(conditions.synthetic_sources)}
    failures: dict[str, str] = {}
    for precision, file in wanted.items():
        with suppress(UserError):  # missing, damaged or of an older version: written anew
            kept = read_onnx(file)
            require_size(kept, size)
            same = ("config_hash", "weights_sha256")
            if kept.precision == precision and all(kept.facts.get(key) == metadata[key] for key in same):
                continue
        try:
            if precision == "int8":
                if "fp32" in failures:
                    raise UserError(failures["fp32"])
                if not rows.calibration_files:
                    raise UserError(f"there are no calibration rows: call the same 'fusebench run' again for {cell}")
                calibration_u8 = np.concatenate(list(decoded_batches(rows.calibration_files, size, TEST_BATCH)))
                quantize_int8(wanted["fp32"], file, calibration_u8)
            else:
                classifier = load_classifier(conditions.run, cell, size)
                classifier.body.set_dtype(DTYPES[precision])
                export_onnx(classifier, file, network, size, metadata, graph)
            require_size(read_onnx(file), size)
        except Exception as error:  # of the exporter or the quantizer: the other engines are measured
            failures[precision] = _reason(error)
    return {name: file for name, file in wanted.items() if name not in failures}, failures


@lru_cache(maxsize=16)
def network_facts(network: str, image_size: int) -> list[Found]:
    """Return layers, parameters, multiply-accumulates and activations of a network with two classes."""
    model = build_model(network, "random", image_size).eval()
    size = measure_complexity(model, len(normalisation(network)[0]), image_size)
    names = ("layers", "parameters", "parameter_mib", "macs", "activations")
    return [Found(metric=name, value=float(getattr(size, name)), n=1) for name in names]


def _proven(
    pair: Pair,
    target: Target,
    rows: TestRows,
    reference: np.ndarray,
    images_u8: np.ndarray,
    conditions: Conditions,
    is_open: BatchClassifier | None,
) -> tuple[list[Found], BatchClassifier, np.ndarray]:
    """Return what was found of an engine, the engine, open and warm, and its probabilities of the whole test set."""
    engine, precision = pair
    found = measure_cold_start(engine, precision, target, max(conditions.batches))
    classifier = is_open or _opened(pair, target, min(TEST_BATCH, len(rows.label)))
    probability = classifier.probabilities(batches_of(images_u8, classifier.batch))
    found += compare(rows.label, reference, probability, precision)
    return [_of(pair, one) for one in found], classifier, probability


def _opened(pair: Pair, target: Target, batch: int) -> BatchClassifier:
    load = partial(load_classifier, target.run, target.cell, target.image_size)
    session = open_session(*pair, image_size=target.image_size, file=target.file, load=load)
    return BatchClassifier(session, batch, target.image_size)


def _test_set_times(
    ready: dict[Pair, BatchClassifier], rows: TestRows, images_u8: np.ndarray, size: int
) -> list[Found]:
    """Return the seconds from the files to the decisions, and from memory, of all test rows."""
    kinds = {
        "end_to_end_s": lambda one: one.probabilities(decoded_batches(rows.files, size, one.batch)),
        "model_only_s": lambda one: one.probabilities(batches_of(images_u8, one.batch)),
    }
    seconds: dict[tuple[Pair, str], list[float]] = {(pair, kind): [] for pair in ready for kind in kinds}
    for _ in range(TEST_ROUNDS):
        for pair, kind in seconds:
            seconds[pair, kind].append(timed(partial(kinds[kind], ready[pair]), ready[pair].device))
    return [
        _of(pair, Found(metric=kind, value=float(np.median(s)), low=min(s), high=max(s), n=len(s)))
        for (pair, kind), s in seconds.items()
    ]


def _latencies(
    ready: dict[Pair, BatchClassifier],
    answers: dict[Pair, np.ndarray],
    images_u8: np.ndarray,
    batch: int,
    rounds: int,
) -> list[Found]:
    """Return latency, throughput and ratio of every engine at a batch, and the state of the machine meanwhile."""
    found: list[Found] = []
    for device in sorted({classifier.device.type for classifier in ready.values()}):
        here = {pair: one.session for pair, one in ready.items() if one.device.type == device}
        size = images_u8.shape[-1]
        bound = {pair: BatchClassifier(session, batch, size) for pair, session in here.items()}
        synchronise = next(iter(bound.values())).synchronise
        chosen = np.resize(np.arange(len(images_u8)), batch)  # the same images for all
        for pair, one in list(bound.items()):
            again = one.probabilities([images_u8[chosen]])
            if not largest_difference(again, answers[pair][chosen]) <= TOLERANCES[pair[1]]:
                reason = f"gives other answers in a batch of {batch} than in one of {ready[pair].batch}"
                found.append(_refused_at(pair, batch, reason))
                del bound[pair]
        state = StateRecorder()
        seconds = time_calls(
            {pair: one.call for pair, one in bound.items()}, synchronise, rounds=rounds, between=state.sample
        )
        baseline = seconds.get((f"pytorch-{device}", "fp32"))
        for pair, times in seconds.items():
            numbers = {
                "latency_p50_ms": quantile(times, 0.5),
                "latency_p90_ms": quantile(times, 0.9),
                "throughput": throughput(times, batch),
            }
            if baseline is not None:
                numbers["ratio"] = ratio(baseline, times)
            rows = [_estimated(metric, estimate) for metric, estimate in numbers.items()]
            rows += state.found(device)
            if device == "cuda":
                rows += energy_per_image(bound[pair].call, synchronise, batch)
            found += [_of(pair, replace(one, batch=batch)) for one in rows]
    return found


def _estimated(metric: str, estimate: Estimate) -> Found:
    return Found(metric=metric, value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


def _of(pair: Pair, found: Found) -> Found:
    return replace(found, engine=pair[0], precision=pair[1])


def _refused_at(pair: Pair, batch: int, reason: str) -> Found:
    return Found(engine=pair[0], precision=pair[1], batch=batch, status="refused", reason=reason)


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, RefusedError | UserError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())[:300]


def _file_fact(precision: str, file: Path) -> Found:
    return Found(precision=precision, metric="file_mib", value=file.stat().st_size / 2**20, n=1)


def _weights_hash(cell: Path, run: Path, defined: dict[str, Any]) -> str:
    """Return the hash of all weights of a cell: for Model 1 those of the backbone, too."""
    paths = [cell / "model.safetensors"]
    if defined["cell"]["head"]:
        paths.append(features_folder(run, defined) / "backbone.safetensors")
    try:
        return content_hash([file_hash(path) for path in paths])
    except OSError as error:
        raise UserError(f"{error.filename} can't be read ({error.strerror}); delete {cell} to run it again") from None


def model_hash(run: Path, cell: Path) -> str:
    """Return the hash of a finished cell's weights and predictions: what its measurements belong to.

    Raises:
        UserError: one of its files can't be read.
    """
    defined = read_json(cell / "cell.json", "a finished cell")
    try:
        return content_hash([_weights_hash(cell, run, defined), file_hash(cell / "predictions.parquet")])
    except (OSError, KeyError) as error:
        raise UserError(
            f"{cell} is damaged ({' '.join(str(error).split())[:120]}); delete it to run it again"
        ) from None
