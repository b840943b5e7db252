"""What a run's folder says of groups with rows on both sides of its splits, checked."""

from pathlib import Path

import pandas as pd

from fusion.errors import UserError
from fusion.split import PROTOCOLS
from fusion.straddling import COLUMNS, KINDS

STRADDLING = "straddling.csv"
MOST_BYTES = 2**24
WHOLE = ("seed", "groups", "images", "two_classes")
OF_THE_SPLIT = ("straddling", "leaked_rows", "test_rows")
"""Whole numbers too, empty where the data set could not be split."""
KEY = ["protocol", "seed", "kind", "source"]
LARGEST_WHOLE = 2**53


def read_straddling(run_dir: Path) -> pd.DataFrame:
    """Return ``straddling.csv`` of a run, columns ``fusion.straddling.COLUMNS``; empty where an older run has none.

    Raises:
        UserError: it can't be read, or holds what such counts can't be.
    """
    path = run_dir / STRADDLING
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
        if tuple(rows.columns) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        for column, known in (("protocol", PROTOCOLS), ("kind", tuple(KINDS))):
            for found in rows.loc[~rows[column].isin(known), column]:
                raise ValueError(f"{column} {found!r} is not one of {', '.join(known)}")
        numbers = rows[[*WHOLE, *OF_THE_SPLIT]].replace("", "nan").astype(float)
        empty = numbers.isna()
        if not (empty | (numbers.abs().le(LARGEST_WHOLE) & numbers.ge(0) & (numbers % 1 == 0))).all(axis=None):
            raise ValueError("a count is not a whole number")
        if (numbers["test_rows"] == 0).any():
            raise ValueError("there is no test row")
        if empty[list(WHOLE)].any(axis=None) or empty[list(OF_THE_SPLIT)].nunique(axis=1).gt(1).any():
            raise ValueError("a count is missing")
        if (numbers["leaked_rows"] > numbers["test_rows"]).any() or (numbers["straddling"] > numbers["groups"]).any():
            raise ValueError("a count is larger than its whole")
        if rows.assign(**numbers).duplicated(KEY).any():
            raise ValueError("a line occurs twice")
        for _, lines in rows.groupby(["protocol", "seed"]):
            for kind in KINDS:
                if kind not in set(lines["kind"]):
                    raise ValueError(f"a line of {kind!r} is missing")
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable text are ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}); call the same 'fusebench run' again to write it anew") from None
    return rows.assign(**numbers).astype(dict.fromkeys(WHOLE, int))
