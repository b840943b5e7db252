"""Rows of measurements brought together: what each engine did, over the seeds, ranked where it is at parity."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from bench.report.layout import NONE, REASON_LENGTH, number
from bench.report.summary import union
from fusion.text import one_line

NOTHING = "nothing was measured: run 'fusebench measure RESULTS'"
OF_A_CELL = ["protocol", "seed", "cell"]
"""Columns of results and measurements alike, by which a measurement finds the cell it was made of."""
BEYOND, UNKNOWN = "beyond tolerance", "parity unknown"
WORST: dict[str, Callable[[list[float]], float]] = {
    "probability_difference": max,
    "probability_tolerance": min,
    "decision_flips": max,
    "run_difference": max,
    "gpu_throttled": max,
    "cpu_stolen": max,
}
"""What stands for several seeds where a mean would hide the one that is beyond, or was disturbed."""
NAMED_CELLS = 2
"""As many cells are named in a note; more are counted."""


class Place(NamedTuple):
    """Where a model was measured."""

    machine: str
    protocol: str
    cell: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine with a precision and a batch, at one place."""

    place: Place
    engine: str
    """Empty for what belongs to the model itself."""
    precision: str
    batch: int
    """0 if no call of it was timed."""
    numbers: dict[str, float]
    """Metric -> mean over the seeds, or the worst of them (``WORST``); also ``<metric>_low``, ``_high`` and ``_n``, and
    ``seeds``."""
    rank: float = math.nan
    """By p50 among the engines and precisions at parity with this place and batch; else NaN."""

    def get(self, name: str) -> float:
        """Return a number, NaN if it was not measured."""
        return self.numbers.get(name, math.nan)

    @property
    def status(self) -> str:
        """done: at parity with PyTorch in fp32; beyond tolerance; parity unknown: never compared."""
        if not {"probability_difference", "probability_tolerance"} <= self.numbers.keys():
            return UNKNOWN
        # a difference that is NaN is beyond every tolerance
        return "done" if self.get("probability_difference") <= self.get("probability_tolerance") else BEYOND


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An engine that was refused or not measured, with its reason."""

    place: Place
    engine: str
    precision: str
    batch: int
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured of a run."""

    cases: list[Case] = field(default_factory=list)
    """Of engines, with their parity, whatever the batch it was found with."""
    models: dict[tuple[Place, str], Case] = field(default_factory=dict)
    """Place and precision -> file size; place and empty precision -> layers, parameters, operations."""
    failures: list[Failure] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    """All that have rows, by the machine's name."""
    outdated: list[str] = field(default_factory=list)
    """Names of the cells whose measurements were left out, as the cells were run again since."""

    @property
    def machines(self) -> list[str]:
        """Names of the machines, each once."""
        return union([], (place.machine for place in self.places))

    def model(self, place: Place, precision: str = "") -> Case:
        """Return what belongs to the model at ``place`` itself; without numbers if it was not measured."""
        nothing = Case(place=place, engine="", precision=precision, batch=0, numbers={})
        return self.models.get((place, precision), nothing)

    def fastest(self, machine: str, batch: int) -> dict[tuple[str, str], Case]:
        """Return protocol and cell -> the ranked case of the lowest p50 on ``machine`` with ``batch``.

        int8 is left out: it makes other weights, and another accuracy, of a model.
        """
        ranked = [
            case
            for case in self.cases
            if case.place.machine == machine and case.batch == batch and case.rank > 0 and case.precision != "int8"
        ]
        return {case.place[1:]: case for case in sorted(ranked, key=lambda case: case.rank, reverse=True)}


def up_to_date(measurements: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Return for each row of ``read_measurements`` whether it is of its cell as ``rows``, the results, have it now.

    A cell without results is taken as it was measured.
    """
    present = {key: hashes.iloc[0] for key, hashes in rows.groupby(OF_A_CELL)["config_hash"]}
    keys = measurements[OF_A_CELL].itertuples(index=False, name=None)
    now = [
        present.get(key, measured) == measured for key, measured in zip(keys, measurements["config_hash"], strict=True)
    ]
    return pd.Series(now, index=measurements.index, dtype=bool)


def gather(rows: pd.DataFrame, outdated: Iterable[str] = ()) -> Measured:
    """Bring together the rows of ``read_measurements``; ``outdated`` names the cells of those that were left out."""
    texts = ("machine", "protocol", "cell", "engine", "precision", "reason")
    clean = rows.assign(**{name: rows[name].map({text: one_line(text) for text in set(rows[name])}) for name in texts})
    records = [{str(key): value for key, value in row.items()} for row in clean.to_dict("records")]
    found: dict[tuple[Place, str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    failures: dict[Failure, None] = {}
    for row in records:
        place = Place(row["machine"], row["protocol"], row["cell"])
        if row["status"] != "done":
            what = {key: row[key] for key in ("engine", "precision", "batch", "status", "reason")}
            failures[Failure(place=place, **what)] = None  # once for all seeds
            continue
        numbers = found[place, row["engine"], row["precision"], row["batch"]]
        for name, column in (("", "value"), ("_low", "low"), ("_high", "high"), ("_n", "n")):
            numbers[row["metric"] + name].append(row[column])
    single = {key: _over_seeds(lists) for key, lists in found.items()}
    timed = {key[:3] for key, numbers in single.items() if key[3] and "latency_p50_ms" in numbers}
    cases = [
        Case(
            place=place,
            engine=engine,
            precision=precision,
            batch=batch,
            numbers=single.get((place, engine, precision, 0), {}) | numbers,
        )
        for (place, engine, precision, batch), numbers in single.items()
        if engine and ("latency_p50_ms" in numbers if batch else (place, engine, precision) not in timed)
    ]
    return Measured(
        cases=_ranked(cases),
        models={
            (place, precision): Case(place=place, engine="", precision=precision, batch=0, numbers=numbers)
            for (place, engine, precision, _), numbers in single.items()
            if not engine
        },
        failures=list(failures),
        places=sorted(
            union([], (Place(row["machine"], row["protocol"], row["cell"]) for row in records)),
            key=lambda place: place.machine,
        ),
        outdated=union([], (one_line(cell) for cell in outdated)),
    )


def missing_notes(measured: Measured) -> tuple[str, ...]:
    """Return a note that says what to measure, where nothing was or what was is of cells that were run again."""
    if measured.outdated:
        cells = _named(measured.outdated)
        return (f"measured before the cell was run again, and left out: {cells}; run 'fusebench measure'",)
    return () if measured.places else (NOTHING,)


def failure_notes(measured: Measured) -> tuple[str, ...]:
    """Return one note per machine, status and reason that names the engines, and the cells where it is not all."""
    groups: dict[tuple[str, str, str], list[Failure]] = defaultdict(list)
    for failure in measured.failures:
        groups[failure.place.machine, failure.status, failure.reason].append(failure)
    notes = []
    for (machine, status, reason), group in groups.items():
        precisions: dict[str, list[str]] = defaultdict(list)
        for failure in group:
            precisions[failure.engine].append(failure.precision)
        engines = [
            f"{engine} {'/'.join(filter(None, union([], names)))}".strip() for engine, names in precisions.items()
        ]
        where = f" on {machine}" if len(measured.machines) > 1 else ""
        here = union([], (failure.place for failure in group))
        cells = "" if len(here) == places_on(measured, machine) else f" ({_named(place.cell for place in here)})"
        what = ", ".join(filter(None, engines)) or "the model"
        notes.append(f"{status}{where}: {what}{cells}: {one_line(reason, REASON_LENGTH) or 'no reason recorded'}")
    return tuple(notes)


def places_on(measured: Measured, machine: str) -> int:
    """Return how many models engines were tried on, on ``machine``."""
    places = {case.place for case in measured.cases} | {failure.place for failure in measured.failures}
    return sum(place.machine == machine for place in places)


def three_digits(value: float) -> str:
    """Return ``value`` with the decimals that leave three digits or more, four at most."""
    return number(value, _decimals(value))


def seconds(value: float) -> str:
    """Return ``value`` with three digits or more, to the millisecond."""
    return number(value, min(_decimals(value), 3))


def spread(case: Case, metric: str) -> str:
    """Return ``value (low–high)``, with the value alone where there is no interval."""
    bounds, decimals = interval(case, metric), _decimals(_largest(case, metric))
    text = number(case.get(metric), decimals)
    return text if bounds == NONE else f"{text} ({bounds})"


def interval(case: Case, metric: str) -> str:
    """Return ``low–high``, three digits or more of the larger; a dash where there is no interval."""
    low, high = (case.get(metric + end) for end in ("_low", "_high"))
    decimals = _decimals(_largest(case, metric))
    return NONE if math.isnan(low + high) else f"{number(low, decimals)}–{number(high, decimals)}"


def _largest(case: Case, metric: str) -> float:
    value, high = case.get(metric), case.get(f"{metric}_high")
    return value if math.isnan(high) else max(value, high)


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4


def _over_seeds(lists: dict[str, list[float]]) -> dict[str, float]:
    numbers = {name: sum(values) / len(values) for name, values in lists.items()}
    for name, worst in WORST.items():
        if name in lists and not math.isnan(numbers[name]):
            numbers[name] = worst(lists[name])
    return {**numbers, "seeds": max(len(values) for values in lists.values())}


def _ranked(cases: list[Case]) -> list[Case]:
    """Return the cases with their ranks; within a place and batch the ranked come first."""
    groups: dict[tuple[Place, int], list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.place, case.batch].append(case)
    ranked = []
    for group in groups.values():
        in_time = sorted(group, key=lambda case: (_p50(case), case.engine, case.precision))
        fit = [case for case in in_time if case.status == "done" and case.batch and math.isfinite(_p50(case))]
        ranked += [replace(case, rank=rank) for rank, case in enumerate(fit, start=1)]
        ranked += [case for case in in_time if case not in fit]
    return ranked


def _p50(case: Case) -> float:
    """Return the case's p50 in ms, infinite if there is none, so that it can be sorted by."""
    value = case.get("latency_p50_ms")
    return math.inf if math.isnan(value) else value


def _named(cells: Iterable[str]) -> str:
    names = union([], cells)
    return ", ".join(names) if len(names) <= NAMED_CELLS else f"{len(names)} cells"
