"""What a run's folder says of groups with rows on both sides of its splits, checked."""

from pathlib import Path

import pandas as pd

from bench.report.csv_numbers import parse_numbers, read_texts
from fusion.checksums import require_intact
from fusion.errors import UserError
from fusion.split import PROTOCOLS
from fusion.straddling import COLUMNS, KINDS

STRADDLING = "straddling.csv"
WHOLE = ("seed", "groups", "images", "two_classes")
OF_THE_SPLIT = ("straddling", "leaked_rows", "test_rows")
"""Whole numbers too, empty where the data set could not be split."""
KEY = ["protocol", "seed", "kind", "source"]


def read_straddling(run_dir: Path) -> pd.DataFrame:
    """Return ``straddling.csv`` of a run, columns ``fusion.straddling.COLUMNS``; empty where an older run has none.

    Raises:
        UserError: it can't be read, or holds what such counts can't be.
    """
    path = run_dir / STRADDLING
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    require_intact(path, way_out="call the same 'fusebench run' again to write it anew")
    try:
        rows = read_texts(path)
        if tuple(rows.columns) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        for column, known in (("protocol", PROTOCOLS), ("kind", tuple(KINDS))):
            for found in rows.loc[~rows[column].isin(known), column]:
                raise ValueError(f"{column} {found!r} is not one of {', '.join(known)}")
        counts = parse_numbers(rows, whole=WHOLE, numbers=OF_THE_SPLIT)
        of_the_split = counts[list(OF_THE_SPLIT)]
        if of_the_split.isna().nunique(axis=1).gt(1).any():
            raise ValueError("a count is missing")
        if not (of_the_split.isna() | (of_the_split.ge(0) & (of_the_split % 1 == 0))).all(axis=None):
            raise ValueError("a count is not a whole number")
        if (counts["test_rows"] == 0).any():
            raise ValueError("there is no test row")
        if (counts["leaked_rows"] > counts["test_rows"]).any() or (counts["straddling"] > counts["groups"]).any():
            raise ValueError("a count is larger than its whole")
        if counts.duplicated(KEY).any():
            raise ValueError("a line occurs twice")
        for _, lines in rows.groupby(["protocol", "seed"]):
            for kind in KINDS:
                if kind not in set(lines["kind"]):
                    raise ValueError(f"a line of {kind!r} is missing")
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable text are ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}); call the same 'fusebench run' again to write it anew") from None
    return counts
