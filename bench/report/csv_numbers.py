"""The CSV files of a run's folder as what they must be: texts, whole numbers and numbers."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fusion.files import regular

MOST_BYTES = 64 * 2**20
"""Of one file: more is not a run's, and would only fill the memory."""
LARGEST_WHOLE = 2**53
"""A CSV's numbers are read as float64, which holds whole numbers up to here."""


def read_texts(path: Path) -> pd.DataFrame:
    """Return a CSV file with every cell as the text it is.

    Raises:
        OSError: it can't be read, is no regular file, or is too large.
        ValueError: it is no CSV in UTF-8.
    """
    return pd.read_csv(regular(path, MOST_BYTES), dtype=str, keep_default_na=False, index_col=False)


def parse_numbers(rows: pd.DataFrame, *, whole: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Return ``rows`` of texts with the columns ``whole`` as int and ``numbers`` as float, an empty one NaN.

    Raises:
        ValueError: a text is not a whole number from 0 to ``LARGEST_WHOLE``, or not a number.
    """
    parsed = rows.copy()
    for column in (*whole, *numbers):
        values = pd.to_numeric(rows[column], errors="coerce").astype(float)
        if column in whole:
            wrong, kind = ~(values.between(0, LARGEST_WHOLE) & (values % 1 == 0)), "a whole number"
        else:
            wrong, kind = values.isna() & ~rows[column].isin(("", "nan")), "a number"
        for text in rows.loc[wrong, column]:
            raise ValueError(f"{column} {text!r} is not {kind}")
        parsed[column] = values.astype(int) if column in whole else values
    return parsed
