"""The tables of ``fusebench data-path``, from its rows."""

import pandas as pd

from bench.report.layout import NONE, Table, number

BOUND_BELOW = 97.0
"""Per cent of the throughput on a static batch below which training is bound by the loader."""
MEANING = "median of {n} rounds (slowest–fastest round)"


def data_path_tables(rows: pd.DataFrame, notes: tuple[str, ...]) -> dict[str, Table]:
    """Return the tables of throughput, kernel and training steps that ``rows`` has figures for.

    Args:
        rows: one line per ``bench.data_path.Measurement``.
        notes: what was measured on what; stands below every table.
    """
    tables = [_throughput(rows, notes), _kernel(rows, notes), _steps(rows, notes)]
    return {table.name: table for table in tables if len(table.frame)}


def _throughput(rows: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    frame = rows[rows["quantity"] == "throughput"].reset_index(drop=True)
    ends = frame.drop_duplicates("loader", keep="last").set_index("loader")["value"]
    slowest = ends.min() if len(ends) else 1.0
    display = [
        [
            line["loader"],
            line["stage"],
            _figure(line),
            f"{number(line['value'] / slowest, 1)} ×" if line["value"] == ends[line["loader"]] else "",
        ]
        for _, line in frame.iterrows()
    ]
    return Table(
        name="throughput",
        title="Images per second up to and including each stage",
        notes=(
            f"images/s: {_meaning(frame)}; the last stage of a loader is what training gets, × that of the slowest",
            "every stage serves the same augmented rows; files come from the page cache",
            "read once: the prepared array put on the device, before training",
            *notes,
        ),
        frame=frame,
        display=pd.DataFrame(display, columns=["Loader", "Stage", "Images/s", "Whole path"]),
        numbers=("Images/s", "Whole path"),
        block="Loader",
    )


def _kernel(rows: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    frame = rows[rows["quantity"].isin(["kernel_time", "kernel_floor", "copy_bandwidth"])].reset_index(drop=True)
    bandwidth = frame[frame["quantity"] == "copy_bandwidth"]
    display = []
    for batch, group in frame[frame["batch"] > 0].groupby("batch"):
        line = {kind: group[group["quantity"] == kind].iloc[0] for kind in ("kernel_time", "kernel_floor")}
        share = 100 * line["kernel_floor"]["value"] / line["kernel_time"]["value"]
        display.append(
            [str(batch), _figure(line["kernel_time"]), _figure(line["kernel_floor"]), f"{number(share, 1)} %"]
        )
    measured = "".join(f"{_figure(line)} GB/s" for _, line in bandwidth.iterrows())
    return Table(
        name="kernel",
        title="The augmentation of one batch, and the time its bytes take to be copied",
        notes=(
            f"µs: {_meaning(frame)}; copies on the device reach {measured}, read and write together",
            "the floor reads each image once and writes each batch once",
            *notes,
        ),
        frame=frame,
        display=pd.DataFrame(display, columns=["Batch", "Augment, µs", "Floor, µs", "Of copy bandwidth"]),
        numbers=("Batch", "Augment, µs", "Floor, µs", "Of copy bandwidth"),
    )


def _steps(rows: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    kinds = ("step_time", "static_step_time", "static_share", "setup_time")
    frame = rows[rows["quantity"].isin(kinds)].reset_index(drop=True)
    display = []
    for (network, step), group in frame.groupby(["network", "step"], sort=False):
        line = {kind: part.iloc[0] for kind, part in group.groupby("quantity")}
        share = line["static_share"]
        display.append(
            [
                str(network),
                str(step),
                _figure(line["step_time"]),
                _figure(line["static_step_time"]),
                _figure(share),
                "yes" if share["high"] < BOUND_BELOW else "no" if share["low"] >= BOUND_BELOW else "unclear",
                _figure(line["setup_time"]) if "setup_time" in line else NONE,
            ]
        )
    columns = ["Network", "Step", "Loader, ms", "Static, ms", "Share, %", "Bound", "Set-up, s"]
    return Table(
        name="steps",
        title="Is training loader-bound? A training step with the resident loader, and on a batch already there",
        notes=(
            f"{_meaning(frame)}; share: throughput with the loader, of that on the static batch",
            f"bound by the loader: yes if every round has a share below {BOUND_BELOW:.0f} %, no if none has",
            "set-up: warm-up, compilation and capture before the first step",
            *notes,
        ),
        frame=frame,
        display=pd.DataFrame(display, columns=columns),
        numbers=tuple(column for column in columns if column not in ("Network", "Step", "Bound")),
        block="Network",
    )


def _figure(line: pd.Series) -> str:
    """Return value and range with the decimals that leave three figures or more."""
    decimals = 0 if line["value"] >= 100 else 1 if line["value"] >= 10 else 2
    value, low, high = (number(float(line[name]), decimals) for name in ("value", "low", "high"))
    return value if line["n"] == 1 else f"{value} ({low}–{high})"


def _meaning(frame: pd.DataFrame) -> str:
    rounds = sorted(set(frame["n"])) or [0]
    return MEANING.format(n=rounds[-1])
