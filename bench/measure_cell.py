"""Measuring one finished cell: its files, its size, and every engine, which must give the right answers first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from bench.cell_files import MeasuredRun, export_cell, reason_of
from bench.classify import BatchClassifier, batches_of, decoded_batches
from bench.cold_start import Target, measure_cold_start
from bench.complexity import measure_complexity
from bench.engine_rows import Found
from bench.export import BodyGraph, load_classifier
from bench.latency import Estimate, quantile, ratio, throughput, time_calls
from bench.machine_state import StateRecorder, energy_per_image
from bench.measurement import timed
from bench.parity import TOLERANCES, compare, largest_difference
from bench.run_images import TestRows, find_test_rows
from bench.sessions import NotHereError, RefusedError, open_session, require_machine
from fusion.files import read_json
from fusion.models import build_model, normalisation

TEST_BATCH = 64
"""Images of a call when the whole test set is classified."""
TEST_ROUNDS = 3
Pair = tuple[str, str]
"""An engine and a precision."""


def measure_cell(
    cell: Path,
    run: MeasuredRun,
    pairs: Sequence[Pair],
    *,
    batches: Sequence[int],
    rounds: int,
    graph: BodyGraph,
    advance: Callable[[float], None],
) -> list[Found]:
    """Return all that is found about a cell; an engine that can't be measured is a row with its reason.

    Args:
        cell: its folder.
        run: of the cell.
        pairs: the engines and precisions wanted.
        batches: images of the calls to time.
        rounds: timed visits to each engine.
        graph: the traced body of the network, kept from cell to cell.
        advance: called with the share of the work that is done.

    Raises:
        UserError: a file of the cell is damaged or can't be written.
    """
    test, size = find_test_rows(run.folder, cell), run.image_size
    network = read_json(cell / "cell.json", "a finished cell")["cell"]["network"]
    images_u8 = np.concatenate(list(decoded_batches(test.files, size, TEST_BATCH)))
    files, failures = export_cell(cell, {precision for _, precision in pairs}, test, run, graph)
    advance(0.2)
    found = [*network_facts(network, size), *(_file_fact(name, file) for name, file in files.items())]
    baseline = ("pytorch-cuda" if torch.cuda.is_available() else "pytorch-cpu", "fp32")
    model = Target(run=run.folder, cell=cell, image_size=size, file=None)
    trusted = _opened(baseline, model, min(TEST_BATCH, len(images_u8)))
    reference = trusted.probabilities(batches_of(images_u8, trusted.batch))
    difference = largest_difference(reference[test.unaugmented], test.probability[test.unaugmented])
    if difference > (allowed := TOLERANCES[run.precision]):
        reason = (
            f"mismatch: the model gives other probabilities than its run has kept (largest difference "
            f"{difference:.2g}, allowed {allowed:g}): its weights or its preprocessing are not those of the run"
        )
        return [*found, *(Found(engine=e, precision=p, status="refused", reason=reason) for e, p in pairs)]
    ready: dict[Pair, BatchClassifier] = {}
    answers: dict[Pair, np.ndarray] = {}
    for number, pair in enumerate(pairs):
        target = Target(run=run.folder, cell=cell, image_size=size, file=files.get(pair[1]))
        try:
            require_machine(pair[0])
            if pair[0].startswith("onnxruntime") and pair[1] in failures:
                raise RefusedError(failures[pair[1]])
            first, classifier, answers[pair] = _proven(
                pair, target, test, reference, images_u8, max(batches), trusted if pair == baseline else None
            )
        except NotHereError as error:
            found.append(Found(engine=pair[0], precision=pair[1], status="not measured", reason=str(error)))
        except Exception as error:  # whatever a runtime raises: the other engines are measured
            found.append(Found(engine=pair[0], precision=pair[1], status="refused", reason=reason_of(error)))
        else:
            ready[pair] = classifier
            found += first
            if pair == baseline:
                found.append(_of(pair, Found(metric="run_difference", value=difference, n=int(test.unaugmented.sum()))))
        advance(0.2 + 0.4 * (number + 1) / len(pairs))
    found += _test_set_times(ready, test, images_u8, size)
    advance(0.7)
    for number, batch in enumerate(batches):
        try:
            found += _latencies(ready, answers, images_u8, batch, rounds)
        except (RuntimeError, MemoryError) as error:  # all engines have their buffers at once
            found += [_refused_at(pair, batch, reason_of(error)) for pair in ready]
        advance(0.7 + 0.3 * (number + 1) / len(batches))
    return found


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
    largest_batch: int,
    is_open: BatchClassifier | None,
) -> tuple[list[Found], BatchClassifier, np.ndarray]:
    """Return what was found of an engine, the engine, open and warm, and its probabilities of the whole test set."""
    engine, precision = pair
    found = measure_cold_start(engine, precision, target, largest_batch)
    classifier = is_open or _opened(pair, target, min(TEST_BATCH, len(rows.label)))
    probability = classifier.probabilities(batches_of(images_u8, classifier.batch))
    found += compare(rows.label, reference, probability, rows.group, precision)
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


def _file_fact(precision: str, file: Path) -> Found:
    return Found(precision=precision, metric="file_mib", value=file.stat().st_size / 2**20, n=1)
