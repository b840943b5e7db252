"""Table 5 and the engines compared, from what was measured of a run."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.paper import paper_costs
from bench.report.layout import COMPARED, METRICS, NONE, Table, compared, number
from bench.report.measured import (
    Case,
    Failure,
    Measured,
    Place,
    failure_notes,
    interval,
    missing_notes,
    places_on,
    seconds,
    spread,
    three_digits,
)
from bench.report.summary import union
from fusion.text import one_line

PRECISIONS = ("fp32", "bf16", "fp16")
"""Those of Table 5; int8 changes the weights and stands among the engines alone."""
FAMILIES = {"pytorch": "PyTorch, s", "onnxruntime": "ORT, s"}
NOT_MEASURED = "not measured"
STOLEN = 0.05
"""Share of CPU time taken by other guests above which a row says so."""
STATUS_LENGTH = 50
UNFIT = "†"
WHERE = ("machine", "protocol", "cell")
TIMES = ("engine", "end_to_end_s", "end_to_end_s_low", "end_to_end_s_high", "model_only_s")
TABLE5_COLUMNS = (
    *(*WHERE, "precision"),
    *(f"{family}_{name}" for family in FAMILIES for name in TIMES),
    *("test_rows", "executed_time_s_paper"),
    *("parameter_mib_paper", "parameter_mib_ours", "parameter_mib_difference"),
    *("layers_paper", "layers_ours", "layers_difference"),
    *("file_mib", "parameters", "macs", "activations", "seeds"),
)
ENGINE_NUMBERS = (
    *("latency_p50_ms", "latency_p50_ms_low", "latency_p50_ms_high", "latency_p50_ms_n"),
    *("latency_p90_ms", "latency_p90_ms_low", "latency_p90_ms_high"),
    *("throughput", "ratio", "ratio_low", "ratio_high"),
    *("probability_difference", "probability_tolerance", "decision_flips", "run_difference"),
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_n", "auc", "auc_difference"),
    *("end_to_end_s", "model_only_s", "cold_start_s", "peak_memory_mib"),
    *("energy_j", "gpu_mhz", "gpu_throttled", "cpu_stolen", "seeds"),
)
ENGINES_COLUMNS = (*WHERE, "batch", "engine", "precision", "rank", "status", *ENGINE_NUMBERS, "reason")


def table5(run: dict[str, Any], measured: Measured, notes: tuple[str, ...]) -> Table:
    """Return executed time, parameter size and layers beside the paper's, a row per machine, protocol, cell, precision.

    Cells of the run that the paper's Table 5 prints are there when they were not measured, too.
    """
    costs = [{str(key): value for key, value in row.items()} for row in paper_costs().to_dict("records")]
    paper = {row["cell"]: row for row in costs}
    printed = [cell for cell in paper if cell in run["cells"]]
    protocols = union(run["protocols"], (place.protocol for place in measured.places))
    frame, display = [], []
    for machine in measured.machines or [""]:
        for protocol in protocols:
            found = [case.place.cell for case in measured.cases if case.place[:2] == (machine, protocol)]
            for cell in union(printed, _in_order(run, found)):
                place = Place(machine, protocol, cell)
                cases = [case for case in measured.cases if case.place == place]
                for precision in [name for name in PRECISIONS if any(case.precision == name for case in cases)] or [""]:
                    numbers, texts = _cost(
                        measured, place, precision, [case for case in cases if case.precision == precision], paper
                    )
                    frame.append(numbers)
                    display.append(texts)
    headings = [*FAMILIES.values(), "Paper, s", "Parameters, MiB", "Layers", "File, MiB", "GMACs"]
    return Table(
        name="table5",
        title=f"Executed time, parameter size and layers (the paper's Table 5). {COMPARED}",
        notes=(*notes, *_cost_notes(run, measured, frame), *_measured_notes(measured)),
        frame=pd.DataFrame(frame, columns=list(TABLE5_COLUMNS)),
        display=pd.DataFrame(display, columns=["Machine", "Protocol", "Model", "Precision", *headings]),
        numbers=tuple(headings),
        brief=(
            *_apart(Machine=measured.machines, Protocol=protocols),
            *_apart(Precision=[row["precision"] for row in frame if row["precision"]]),
            *("Model", *FAMILIES.values(), "Paper, s", "Layers"),
        ),
        block="Protocol" if len(protocols) > 1 else "Machine",
    )


def engines(run: dict[str, Any], measured: Measured, notes: tuple[str, ...]) -> Table:
    """Return every engine with every precision and batch, ranked by p50 where it is at parity, and those refused."""
    lines: list[Case | Failure] = [*measured.cases, *_failures(measured)]
    protocols = union(run["protocols"], (place.protocol for place in measured.places))
    cells = union(_in_order(run, (place.cell for place in measured.places)), ["all"])
    order = {protocol: number for number, protocol in enumerate([*protocols, "all"])}
    lines.sort(
        key=lambda line: (
            measured.machines.index(line.place.machine),
            order[line.place.protocol],
            cells.index(line.place.cell),
            isinstance(line, Failure),
            line.batch,
        )
    )
    headings = ["p50 ms", "95 % interval", "p90 ms", "Images/s", "× PyTorch", "Max. Δp", "Flips", "Acc."]
    headings.append("Cold start, s")
    columns = ["Machine", "Protocol", "Model", "Batch", "Engine", *headings, "Memory, MiB", "Rank"]
    return Table(
        name="engines",
        title="Engines: PyTorch against ONNX Runtime, by the time of one call",
        notes=(*notes, *_engine_notes(measured), *_measured_notes(measured)),
        frame=pd.DataFrame([_engine_numbers(line) for line in lines], columns=list(ENGINES_COLUMNS)),
        display=pd.DataFrame([_engine_texts(line) for line in lines], columns=[*columns, "Status"]),
        numbers=("Batch", *headings, "Memory, MiB", "Rank"),
        brief=(
            *_apart(Machine=measured.machines, Protocol=protocols),
            *("Model", "Batch", "Engine", "p50 ms", "× PyTorch"),
        ),
        block="Model",
    )


# -- Table 5 ---------------------------------------------------------------------------------------------------------


def _cost(
    measured: Measured, place: Place, precision: str, cases: list[Case], paper: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Return one row of Table 5, as numbers and as text."""
    printed = paper.get(place.cell, {})
    numbers: dict[str, Any] = {**dict(zip(WHERE, place, strict=True)), "precision": precision}
    texts = [place.machine or NONE, place.protocol, place.cell, precision or NONE]
    for family in FAMILIES:
        timed = [
            case for case in cases if case.engine.startswith(f"{family}-") and not math.isnan(case.get("end_to_end_s"))
        ]
        fit = [case for case in timed if case.status == "done"]
        best = min(fit, key=lambda case: (case.get("end_to_end_s"), case.engine), default=None)
        numbers[f"{family}_engine"] = best.engine if best else ""
        numbers |= {f"{family}_{name}": best.get(name) if best else math.nan for name in TIMES[1:]}
        if best:
            texts.append(f"{seconds(best.get('end_to_end_s'))} ({seconds(best.get('model_only_s'))})")
        else:
            texts.append(timed[0].status if timed else NOT_MEASURED)
    model = measured.model(place)
    time = printed.get("executed_time_s", math.nan)
    texts.append(number(time, 1))
    for name, printed_name, decimals in (("parameter_mib", "parameter_size_mib", 1), ("layers", "layers", 0)):
        ours, theirs = model.get(name), printed.get(printed_name, math.nan)
        numbers |= {f"{name}_paper": theirs, f"{name}_ours": ours, f"{name}_difference": ours - theirs}
        texts.append(compared(ours, theirs, decimals))
    file_mib = measured.model(place, precision).get("file_mib")
    texts += [number(file_mib, 1), number(model.get("macs") / 1e9, 2)]
    numbers |= {
        "test_rows": next((case.get("accuracy_n") for case in cases if "accuracy_n" in case.numbers), math.nan),
        "executed_time_s_paper": time,
        "file_mib": file_mib,
        **{name: model.get(name) for name in ("parameters", "macs", "activations")},
        # every finished cell has its network's facts, and an engine perhaps one seed of it
        "seeds": max((case.get("seeds") for case in cases or [model] if case.numbers), default=0),
    }
    return numbers, texts


def _cost_notes(run: dict[str, Any], measured: Measured, frame: list[dict[str, Any]]) -> tuple[str, ...]:
    side = run["data"]["image_size"]
    rows = _range([row["test_rows"] for row in frame])
    ours = (
        f"executed time: all test rows ({rows} images of {side} × {side} pixels), from PNG files to decisions; in "
        "brackets from images in memory; median of the rounds, of the fastest engine at parity; ORT: ONNX Runtime"
    )
    return (
        *([ours] if measured.cases else []),
        "the paper's time is for what we read as its 1043 test images of 300 × 300 pixels, on an RTX 3090 under "
        "MATLAB; where rows, pixels or machine differ the times can't be compared",
        "parameters and floating-point buffers as float32; the paper's MB are read as MiB",
        *(
            [
                "the paper's sizes of EfficientNetB0, 77.4 and 113.9, fit neither 5.3 million parameters (20.3 MiB) "
                "nor those of two classes (15.5 MiB) under any reading we know"
            ]
            if any("/efficientnet_b0+" in row["cell"] for row in frame)
            else []
        ),
        *([] if frame else ["no cell of this table belongs to this run"]),
    )


# -- engines ---------------------------------------------------------------------------------------------------------


def _failures(measured: Measured) -> list[Failure]:
    """Return the failures; one that all models of a machine share stands once, for the model ``all``.

    Precisions of an engine that failed alike are joined.
    """
    groups: dict[tuple[Any, ...], list[Failure]] = {}
    for one in measured.failures:
        key = (one.place.machine, one.engine, one.precision, one.batch, one.status, one.reason)
        groups.setdefault(key, []).append(one)
    shown: list[Failure] = []
    for (machine, engine, precision, batch, status, reason), group in groups.items():
        if 1 < len(group) == places_on(measured, machine):
            everywhere = Place(machine, "all", "all")
            what = {"engine": engine, "precision": precision, "batch": batch, "status": status, "reason": reason}
            shown.append(Failure(place=everywhere, **what))
        else:
            shown += group
    precisions: dict[Failure, list[str]] = {}
    for one in shown:
        precisions.setdefault(replace(one, precision=""), []).append(one.precision)
    return [replace(one, precision="/".join(filter(None, names))) for one, names in precisions.items()]


def _engine_numbers(line: Case | Failure) -> dict[str, Any]:
    what = {**dict(zip(WHERE, line.place, strict=True)), "batch": line.batch}
    what |= {name: getattr(line, name) for name in ("engine", "precision", "status")}
    if isinstance(line, Failure):
        return {**what, "reason": line.reason}
    return {**what, "rank": line.rank, "reason": "", **{name: line.get(name) for name in ENGINE_NUMBERS}}


def _engine_texts(line: Case | Failure) -> list[str]:
    where = [*line.place, str(line.batch or NONE)]
    if isinstance(line, Failure):
        what = f"{line.status} ({line.precision})" if line.precision else line.status
        status = f"{what}: {line.reason}" if line.reason else what
        return [*where, line.engine or NONE, *[NONE] * 4, line.status, *[NONE] * 6, one_line(status, STATUS_LENGTH)]
    difference = line.get("probability_difference")
    marks = [
        *([line.status] if line.status != "done" else []),
        *(["throttled"] if line.get("gpu_throttled") > 0 else []),
        *(["CPU shared"] if line.get("cpu_stolen") > STOLEN else []),
    ]
    return [
        *where,
        f"{line.engine} {line.precision}",
        three_digits(line.get("latency_p50_ms")),
        interval(line, "latency_p50_ms"),
        three_digits(line.get("latency_p90_ms")),
        three_digits(line.get("throughput")),
        spread(line, "ratio") if line.status == "done" else f"{three_digits(line.get('ratio'))} {UNFIT}",
        NONE if math.isnan(difference) else f"{difference:.0e}" if difference else "0",
        number(line.get("decision_flips"), 0),
        number(line.get("accuracy"), METRICS["accuracy"].decimals),
        three_digits(line.get("cold_start_s")),
        number(line.get("peak_memory_mib"), 0),
        number(line.rank, 0),
        ", ".join(marks) or "done",
    ]


def _engine_notes(measured: Measured) -> tuple[str, ...]:
    if not measured.cases:
        return ()
    calls = _range([case.get("latency_p50_ms_n") for case in measured.cases])
    allowed: dict[str, list[float]] = {}
    for case in sorted(measured.cases, key=lambda case: (*PRECISIONS, case.precision).index(case.precision)):
        allowed.setdefault(case.precision, []).append(case.get("probability_tolerance"))
    tolerances = ", ".join(f"{name} {_range(values, '.0e')}" for name, values in allowed.items())
    unfit = union([], (case.status for case in measured.cases if case.status != "done"))
    cuda = any("cuda" in case.engine for case in measured.cases)
    return (
        f"p50, p90: median and 90th percentile of the time of one call of a batch, over {calls} calls; 95 % "
        "intervals by bootstrap over the rounds of visits to each engine; they hold for the minute of the measurement, "
        "so compare ratios, not times of different hours",
        "× PyTorch: p50 of PyTorch eager in fp32 on the same device / this p50; above 1 this engine is faster",
        f"Max. Δp: largest difference of a test row's probability from that of PyTorch in fp32; allowed: {tolerances}",
        "rank: by p50 within machine, protocol, model and batch; a row beyond tolerance is kept and not ranked",
        *([f"{UNFIT} not ranked: {', '.join(unfit)}"] if unfit else []),
        *(
            ["fp32 is fp32: TF32 is off in PyTorch and in ONNX Runtime's CUDA provider; TensorRT decides for itself"]
            if cuda
            else []
        ),
    )


# -- both ------------------------------------------------------------------------------------------------------------


def _measured_notes(measured: Measured) -> tuple[str, ...]:
    machines = [f"measured on: {'; '.join(measured.machines)}"] if measured.places else []
    return (*machines, *missing_notes(measured), *failure_notes(measured))


def _apart(**columns: list[str]) -> tuple[str, ...]:
    """Return the names of the columns that tell rows apart."""
    return tuple(name for name, values in columns.items() if len(set(values)) > 1)


def _in_order(run: dict[str, Any], cells: Any) -> list[str]:
    """Return ``cells``, each once, in the order of the matrix, those it doesn't have last."""
    found = set(cells)
    return union((cell for cell in run["cells"] if cell in found), sorted(found))


def _range(values: list[float], form: str = ".0f") -> str:
    known = sorted({value for value in values if not math.isnan(value)})
    return "–".join(union([], (f"{value:{form}}" for value in (known[:1] + known[-1:])))) or "unknown"
