"""What a run's folder holds of each finished cell beside its rows: predictions and training history, checked."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.report.csv_numbers import MOST_BYTES, parse_numbers, read_texts
from bench.store import HISTORY, HISTORY_COLUMNS, PREDICTION_COLUMNS, PREDICTIONS, cell_folder, require_cell
from fusion.errors import UserError
from fusion.files import regular

CellId = tuple[str, int, str]
"""Protocol, seed and name of a cell: ``("paper", 0, "model1/resnet50+svm")``."""
MOST_ROWS = 1_000_000
"""Of one file: more is not a cell's, and would only fill the memory."""
MOST_LETTERS = 1000
"""Of a name in predictions."""
TEXTS = ("image_id", "source", "modality", "group_id")


def finished_cells(rows: pd.DataFrame) -> Iterator[CellId]:
    """Yield the cells that are done, in the order of their rows."""
    done = rows.loc[rows["status"] == "done", ["protocol", "seed", "cell"]].drop_duplicates()
    for protocol, seed, cell in done.itertuples(index=False):
        yield str(protocol), int(seed), str(cell)


def read_predictions(run_dir: Path, rows: pd.DataFrame) -> dict[CellId, pd.DataFrame]:
    """Return the predictions of every finished cell, columns ``PREDICTION_COLUMNS``, a line for each test row.

    Args:
        run_dir: the run's folder.
        rows: from ``read_rows``.

    Raises:
        UserError: a file is missing, damaged, too long, or holds what predictions can't be.
    """
    return {cell: read_prediction_file(_file(run_dir, cell, PREDICTIONS)) for cell in finished_cells(rows)}


def read_cell_predictions(cell: Path) -> pd.DataFrame:
    """Return the predictions of the cell whose folder this is.

    Raises:
        UserError: as ``read_predictions``.
    """
    require_cell(cell, PREDICTIONS)
    return read_prediction_file(cell / PREDICTIONS)


def read_histories(run_dir: Path, rows: pd.DataFrame) -> dict[CellId, pd.DataFrame]:
    """Return the epochs of every finished cell, columns ``HISTORY_COLUMNS``; none where nothing was trained.

    Raises:
        UserError: a file is missing, damaged or too long.
    """
    return {cell: _history(_file(run_dir, cell, HISTORY)) for cell in finished_cells(rows)}


def _file(run_dir: Path, cell: CellId, name: str) -> Path:
    protocol, seed, cell_name = cell
    folder = cell_folder(run_dir, protocol, seed, cell_name)
    require_cell(folder, name)
    return folder / name


def read_prediction_file(path: Path) -> pd.DataFrame:
    """Return the predictions of one cell, columns ``PREDICTION_COLUMNS``.

    Raises:
        UserError: as ``read_predictions``.
    """
    try:
        # A text that a million rows share is kept once until it is known to be short.
        file = pq.ParquetFile(regular(path, MOST_BYTES), read_dictionary=list(TEXTS))
        if (count := file.metadata.num_rows) > MOST_ROWS:
            raise UserError(f"{path}: {count} rows are more than the {MOST_ROWS} a cell may have")
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MOST_BYTES:
            raise ValueError(f"its content takes more than {MOST_BYTES} bytes")
        table = file.read(columns=list(PREDICTION_COLUMNS))
        for name in TEXTS:
            if not pa.types.is_dictionary(table.schema.field(name).type):
                raise ValueError(f"{name} is not text")
            for chunk in table[name].chunks:
                if (longest := pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0) > MOST_LETTERS:
                    raise ValueError(f"a {name} of {longest} letters")
        frame = table.to_pandas().astype(dict.fromkeys(TEXTS, object))
        frame = frame.astype({"copy": int, "label": int, "decision": int, "probability": float})
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise _damaged(path, str(error)) from None
    if not frame[["label", "decision"]].isin((0, 1)).all(axis=None):
        raise _damaged(path, "a label or decision is neither 0 nor 1")
    if not frame["probability"].between(0, 1).all():
        raise _damaged(path, "a probability is not within 0 and 1")
    if not frame[list(TEXTS)].map(lambda value: isinstance(value, str)).all(axis=None):
        raise _damaged(path, f"one of {', '.join(TEXTS)} is not text")
    if frame.empty:
        raise _damaged(path, "it has no row")
    return frame


def _history(path: Path) -> pd.DataFrame:
    try:
        texts = read_texts(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if tuple(texts.columns) != HISTORY_COLUMNS:
        raise _damaged(path, f"its columns are not {', '.join(HISTORY_COLUMNS)}")
    if len(texts) > MOST_ROWS:
        raise UserError(f"{path}: more than the {MOST_ROWS} rows a cell may have")
    try:
        return parse_numbers(texts, whole=(), numbers=HISTORY_COLUMNS)
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is missing or damaged ({' '.join(why.split())[:120]}); delete its folder to run the cell again"
    )
