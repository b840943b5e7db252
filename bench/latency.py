"""One clock for all engines: the same images in a buffer on the device, interleaved visits, synchronised calls.

A visit to an engine is a pause, so that the threads of the engine before stop spinning, an untimed call where calls are
short, and a number of timed ones, each from the call to the moment the device has finished. Every engine is visited
once in every round, so what slows the machine for a while slows all of them. Intervals are bootstrapped over the rounds
and not over the calls: calls of one visit are alike, and as independent ones they would promise more than they hold.
Percentiles are expanded for the small number of rounds (Hesterberg, The American Statistician 2015, 69, 371). An
interval holds for the minute of its measurement: a machine that others use too may be faster or slower an hour later,
and then it is the ratio of two engines that can be compared.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.stats

ROUNDS = 10
VISIT_S = 0.1
"""Timed calls of a visit take this long together, but there are at least ``CALLS[0]`` and at most ``CALLS[1]``."""
CALLS = (1, 20)
PAUSE_S = 0.05
RESAMPLES = 4000
Engine = TypeVar("Engine", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    """Timed calls."""


def time_calls(
    calls: Mapping[Engine, Callable[[], object]],
    synchronise: Callable[[], None],
    *,
    rounds: int = ROUNDS,
    visit_s: float = VISIT_S,
    between: Callable[[], None] = lambda: None,
) -> dict[Engine, np.ndarray]:
    """Return the seconds of every timed call, [rounds, calls of a visit] float64, by engine.

    Args:
        calls: by engine; warmed up.
        synchronise: returns once the device has finished.
        rounds: visits to each engine.
        visit_s: seconds the timed calls of a visit should take together.
        between: called after every round, untimed.
    """
    counts = {}
    for name, call in calls.items():
        counts[name] = int(np.clip(math.ceil(visit_s / _timed(call, synchronise)), *CALLS))
    times = {name: np.empty((rounds, count)) for name, count in counts.items()}
    for round_ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            if counts[name] > 1:
                call()
                synchronise()
            for number in range(counts[name]):
                times[name][round_, number] = _timed(call, synchronise)
        between()
    return times


def quantile(seconds: np.ndarray, share: float) -> Estimate:
    """Return a quantile of all calls, in milliseconds.

    Args:
        seconds: [rounds, calls] as ``time_calls`` returns them.
        share: 0.5 for p50.
    """
    drawn = np.quantile(_resampled(seconds), share, axis=1)
    return _estimate(float(np.quantile(seconds, share)) * 1e3, drawn * 1e3, seconds)


def throughput(seconds: np.ndarray, batch: int) -> Estimate:
    """Return images per second: all images by all of their time, not a mean of rates."""
    return _estimate(batch / float(seconds.mean()), batch / _resampled(seconds).mean(axis=1), seconds)


def ratio(baseline: np.ndarray, seconds: np.ndarray) -> Estimate:
    """Return p50 of ``baseline`` by p50 of ``seconds``, above 1 where the latter are faster, of the same rounds."""
    if seconds is baseline:
        return Estimate(value=1.0, low=math.nan, high=math.nan, n=seconds.size)
    drawn = np.median(_resampled(baseline), axis=1) / np.median(_resampled(seconds), axis=1)
    return _estimate(float(np.median(baseline) / np.median(seconds)), drawn, seconds)


def _timed(call: Callable[[], object], synchronise: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - started


def _resampled(seconds: np.ndarray) -> np.ndarray:
    """Return [resamples, calls]: each as many rounds as there are, drawn with replacement, the same for all engines."""
    drawn = np.random.default_rng(0).integers(len(seconds), size=(RESAMPLES, len(seconds)))
    return seconds[drawn].reshape(RESAMPLES, -1)


def _estimate(value: float, drawn: np.ndarray, seconds: np.ndarray) -> Estimate:
    rounds = len(seconds)
    tail = scipy.stats.norm.cdf(math.sqrt(rounds / (rounds - 1)) * scipy.stats.t.ppf(0.025, rounds - 1))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Estimate(value=value, low=float(low), high=float(high), n=seconds.size)
