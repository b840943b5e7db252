"""How often the intervals hold the truth: classifiers of known accuracy and AUC, simulated again and again.

``python -m bench.coverage`` prints the whole table in some minutes, ``--simulations 200`` a rough one.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from bench.metrics import classification_metrics
from bench.report.summary import mean_interval

SIMULATIONS = 1000
COPIES = (1, 2, 3, 4)
"""Rows of a group where groups are simulated, each as likely as the others."""
SAME = 0.5
"""Of the variance of a score that the rows of one group share."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A classifier whose score is normal in both classes, and the rows it is tested on."""

    rows: int
    """About as many, when groups are simulated."""
    accuracy: float
    """At the threshold of a half, of a class and of all rows, as the two are mirror images."""
    grouped: bool
    """Whether rows come in groups of ``COPIES``, of one class and with scores that hang together."""

    @property
    def auc(self) -> float:
        """Return the AUC of two normal distributions whose means lie ``2 z(accuracy)`` standard deviations apart."""
        return float(ndtr(math.sqrt(2) * ndtri(self.accuracy)))

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return label, probability and group of one test set, [R] each."""
        groups = round(self.rows / np.mean(COPIES)) if self.grouped else self.rows
        sizes = rng.choice(COPIES, groups) if self.grouped else np.ones(groups, dtype=np.int64)
        group = np.repeat(np.arange(groups), sizes)
        label = rng.integers(0, 2, groups)[group]
        shared = rng.standard_normal(groups)[group]
        noise = math.sqrt(SAME) * shared + math.sqrt(1 - SAME) * rng.standard_normal(len(group))
        return label, ndtr(noise + (2 * label - 1) * ndtri(self.accuracy)), group


CASES = tuple(
    Case(rows=rows, accuracy=accuracy, grouped=grouped)
    for grouped in (False, True)
    for rows in (60, 150, 400, 1000)
    for accuracy in (0.6, 0.8, 0.95)
)
SEEDS = (2, 3, 5)


def coverage(case: Case, simulations: int, seed: int = 0) -> dict[str, float]:
    """Return the share of simulated test sets whose 95 % interval holds the truth: of accuracy, sensitivity and AUC."""
    truth = {"accuracy": case.accuracy, "sensitivity": case.accuracy, "auc": case.auc}
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(truth, 0)
    for _ in range(simulations):
        measured = {one.metric: one for one in classification_metrics(*case.draw(rng))}
        for metric, value in truth.items():
            hits[metric] += measured[metric].low <= value <= measured[metric].high
    return {metric: count / simulations for metric, count in hits.items()}


def seed_coverage(seeds: int, between: float, simulations: int, *, same_rows: bool, seed: int = 0) -> float:
    """Return the share of simulated runs whose interval of the mean over seeds holds the mean over all seeds.

    Args:
        seeds: seeds of a run.
        between: standard deviation of the true accuracy over the seeds; its mean is 0.8.
        simulations: how many runs.
        same_rows: whether all seeds are tested on the same 400 rows, or each on 400 of its own.
        seed: of the simulation.
    """
    rng, rows, hits = np.random.default_rng(seed), 400, 0
    for _ in range(simulations):
        accuracy = np.clip(0.8 + between * rng.standard_normal(seeds), 0, 1)
        difficulty = rng.random((1 if same_rows else seeds, rows))
        value = (difficulty < accuracy[:, None]).mean(axis=1)
        half = ndtri(0.975) * np.sqrt(value * (1 - value) / rows)
        low, high = mean_interval(value, value - half, value + half)
        hits += low <= 0.8 <= high
    return hits / simulations


def _lines(simulations: int) -> Iterator[str]:
    yield "| rows | groups | accuracy | AUC | holds: accuracy | sensitivity | AUC |"
    yield "| ---: | :--- | ---: | ---: | ---: | ---: | ---: |"
    for case in CASES:
        shares = " | ".join(f"{share:.3f}" for share in coverage(case, simulations).values())
        grouped = "of 1-4 rows" if case.grouped else "one row each"
        yield f"| {case.rows} | {grouped} | {case.accuracy} | {case.auc:.3f} | {shares} |"
    yield ""
    yield "| seeds | spread between seeds | holds: same rows | rows of their own |"
    yield "| ---: | ---: | ---: | ---: |"
    for seeds in SEEDS:
        for between in (0.0, 0.02, 0.05):
            same, own = (seed_coverage(seeds, between, 10 * simulations, same_rows=same) for same in (True, False))
            yield f"| {seeds} | {between} | {same:.3f} | {own:.3f} |"


def main(write: Callable[[str], object] = print) -> None:
    """Print how often each simulated case is held."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="test sets of each case (default 1000)")
    for line in _lines(parser.parse_args().simulations):
        write(line)


if __name__ == "__main__":
    main()
