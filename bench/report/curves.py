"""The points behind the ROC curves and the Pareto plot, for the figures and the page alike."""

import math
from functools import lru_cache

import numpy as np
import pandas as pd

from bench.intervals import Estimate, delong_auc, roc_band
from bench.report.layout import Table
from bench.report.leaderboard import BATCH
from bench.report.read import Results
from bench.report.summary import mean_interval

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
ROC_COLUMNS = (
    *("protocol", "cell", "family", "seeds", "fpr", "tpr", "low", "high"),
    *("auc", "auc_low", "auc_high"),
)
PARETO_COLUMNS = (
    *("protocol", "cell", "family", "machine", "engine", "precision"),
    *("accuracy", "accuracy_low", "accuracy_high", "latency_p50_ms", "parameter_mib", "on_front"),
)
ENGINE_KEYS = ["protocol", "cell", "engine", "precision", "latency_p50_ms"]
SEEDS_RULE = (
    "several seeds: the mean true positive rate at each false positive rate (vertical averaging, Fawcett 2006) and the "
    "mean AUC with its interval; the ends of the band are averaged"
)


@lru_cache(maxsize=1)  # the bootstrap takes a while, and the page draws the same curves
def roc_points(results: Results) -> pd.DataFrame:
    """Return the ROC curve of every finished cell, columns ``ROC_COLUMNS``, 102 lines for each protocol and cell.

    A curve begins in the origin, then has a line for each of ``FALSE_POSITIVE_RATES``; ``low`` and ``high`` are its
    pointwise 95 % band. ``auc`` with its interval stands on every line. Several seeds are averaged (``SEEDS_RULE``).
    A cell whose test rows have one class only has NaN.
    """
    of_cells: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for (protocol, _, cell), predictions in results.predictions.items():
        of_cells.setdefault((protocol, cell), []).append(predictions)
    curves = []
    for (protocol, cell), seeds in of_cells.items():
        judged = [
            (seed["label"].to_numpy(), seed["probability"].to_numpy(), seed["group_id"].to_numpy()) for seed in seeds
        ]
        estimates = np.array([delong_auc(*rows) for rows in judged])
        auc = Estimate(float(estimates[:, 0].mean()), *mean_interval(*estimates.T))
        band = np.mean([roc_band(*rows, FALSE_POSITIVE_RATES) for rows in judged], axis=0)
        start = 0.0 if np.isfinite(band).all() else math.nan
        tpr, low, high = np.insert(band, 0, start, axis=1)
        curves.append(
            pd.DataFrame(
                {
                    "protocol": protocol,
                    "cell": cell,
                    "family": family(cell),
                    "seeds": len(seeds),
                    "fpr": np.insert(FALSE_POSITIVE_RATES, 0, 0.0),
                    "tpr": tpr,
                    "low": low,
                    "high": high,
                    "auc": auc.value,
                    "auc_low": auc.low,
                    "auc_high": auc.high,
                },
                columns=list(ROC_COLUMNS),
            )
        )
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=list(ROC_COLUMNS))


def pareto_points(tables: dict[str, Table]) -> pd.DataFrame:
    """Return accuracy, latency and size of every cell that has all three, columns ``PARETO_COLUMNS``.

    Accuracy and latency are those of the leaderboard: one image, by the fastest engine on one machine. ``on_front``: no
    other cell of the protocol is as accurate, as fast and as small, and better in one of the three.

    Args:
        tables: from ``build_tables``.
    """
    board, engines = tables["leaderboard"].frame, tables["engines"].frame
    # both tables hold the very same number of a latency
    of_engines = engines.loc[engines["batch"] == BATCH, [*ENGINE_KEYS, "machine"]].itertuples(index=False, name=None)
    machines = {tuple(keys): machine for *keys, machine in of_engines}
    measured = ["accuracy_ours", "latency_p50_ms", "parameter_mib"]
    complete = board[measured].astype(float).map(math.isfinite).all(axis=1)
    points = board.loc[complete].rename(
        columns={"accuracy_ours": "accuracy", "latency_engine": "engine", "latency_precision": "precision"}
    )
    keys = points[ENGINE_KEYS].itertuples(index=False, name=None)
    points["machine"] = [machines.get(key, "") for key in keys]
    points["family"] = [family(cell) for cell in points["cell"]]
    points["on_front"] = False
    for _, group in points.groupby("protocol", sort=False):
        better = np.column_stack([group["accuracy"], -group["latency_p50_ms"], -group["parameter_mib"]]).astype(float)
        points.loc[group.index, "on_front"] = pareto_front(better)
    return points[list(PARETO_COLUMNS)].reset_index(drop=True)


def pareto_front(values: np.ndarray) -> np.ndarray:
    """Return [R] bool: the rows of ``values`` [R, D], more being better, that no other row dominates."""
    no_worse = (values[:, None] >= values[None]).all(axis=-1)
    better = (values[:, None] > values[None]).any(axis=-1)
    return np.asarray(~(no_worse & better).any(axis=0))


def family(cell: str) -> str:
    """Return the model a cell belongs to: ``model1`` of ``model1/resnet50+svm``."""
    return cell.partition("/")[0]
