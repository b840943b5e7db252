"""The explanations of a run read back: scores, images and pictures of each cell that was explained, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.explanation_rows import (
    EXPLANATION_COLUMNS,
    EXPLANATION_METRICS,
    EXPLANATIONS,
    IMAGE_COLUMNS,
    IMAGES,
    ROWS,
    overlay_name,
)
from bench.report.csv_numbers import parse_numbers, read_texts
from bench.report.read_cells import CellId
from fusion.checksums import require_intact
from fusion.errors import UserError
from fusion.text import one_line

WHOLE = {ROWS: ("seed", "n"), IMAGES: ("row", "label", "zero_map", "shown")}
NUMBERS = {ROWS: ("value", "low", "high"), IMAGES: ("probability", "mask_area", "mask_share", "pointing_hit")}
"""Columns of numbers, empty where there is none."""
SHARES = ("probability", "mask_area", "mask_share", "pointing_hit", "label", "zero_map", "shown")
"""Columns of images that lie within 0 and 1."""
AGAIN = "make it with 'fusebench explain RESULTS --again'"
TEXTS = ("image_id", "source", "modality", "group_id")


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What was found of one cell."""

    folder: Path
    rows: pd.DataFrame
    """Columns ``EXPLANATION_COLUMNS``, a row for each of ``EXPLANATION_METRICS``; empty numbers NaN."""
    images: pd.DataFrame
    """Columns ``IMAGE_COLUMNS``, a row for each explained image; texts on one line."""

    @property
    def pictures(self) -> dict[int, Path]:
        """Test row -> the picture of its map, in the order of the rows."""
        shown = sorted(self.images.loc[self.images["shown"] == 1, "row"])
        return {int(row): self.folder / overlay_name(int(row)) for row in shown}

    def captions(self) -> list[dict[str, object]]:
        """Return, for each picture, its ``file`` and the columns of ``images`` that tell what it shows.

        Benign before malignant, and within a class by falling probability.
        """
        files = self.pictures
        lines = self.images[self.images["row"].isin(files)].sort_values(
            ["label", "probability"], ascending=[True, False]
        )
        records = [{str(key): value for key, value in line.items()} for line in lines.to_dict("records")]
        return [{"file": files[line["row"]], **line} for line in records]


def read_explanations(run_dir: Path) -> Mapping[CellId, Explanation]:
    """Return what ``fusebench explain`` found in a run, by cell; nothing for a run that was never explained.

    Raises:
        UserError: a file is missing, damaged, too large, of another version or of another place.
    """
    root = run_dir / EXPLANATIONS
    folders = sorted(path.parent.relative_to(root) for path in root.glob(f"*/*/**/{ROWS}"))
    explanations = {}
    for place in folders:
        if any(part.startswith(".") for part in place.parts):  # what was being written
            continue
        protocol, seed, *cell = place.parts
        found = read_explanation(root / place)
        for column, expected in {"protocol": protocol, "seed": seed, "cell": "/".join(cell)}.items():
            for wrong in found.rows.loc[found.rows[column].astype(str) != expected, column]:
                raise UserError(
                    f"{root / place / ROWS}: {column} {wrong!r} does not belong here; its folder says {expected!r}"
                )
        explanations[protocol, int(seed), "/".join(cell)] = found
    return explanations


def read_explanation(folder: Path) -> Explanation:
    """Return what was found of the cell whose explanations lie in ``folder``.

    Raises:
        UserError: a file is missing, damaged, too large or of another version.
    """
    rows, images = _read(folder, ROWS, EXPLANATION_COLUMNS), _read(folder, IMAGES, IMAGE_COLUMNS)
    if list(rows["metric"]) != list(EXPLANATION_METRICS) or list(rows["unit"]) != list(EXPLANATION_METRICS.values()):
        raise _damaged(folder / ROWS, f"its metrics are not {', '.join(EXPLANATION_METRICS)} with their units")
    for column in SHARES:
        if not (images[column].between(0, 1) | images[column].isna()).all():
            raise _damaged(folder / IMAGES, f"a {column} is not within 0 and 1")
    if images["row"].duplicated().any():
        raise _damaged(folder / IMAGES, "a row occurs twice")
    if len(images) != rows.set_index("metric").loc["zero_maps", "n"]:
        raise _damaged(folder / IMAGES, f"it does not have a line for each image that {ROWS} counts")
    for column in TEXTS:
        images[column] = images[column].map(one_line)
    found = Explanation(folder=folder, rows=rows, images=images)
    for file in found.pictures.values():
        if file.is_symlink() or not file.is_file():
            raise _damaged(file, "it is no file")
    require_intact(*found.pictures.values(), way_out=AGAIN)
    return found


def _read(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    path = folder / name
    require_intact(path, way_out=AGAIN)
    try:
        texts = read_texts(path)
        if tuple(texts.columns) != tuple(columns):
            raise ValueError(f"its columns are not {', '.join(columns)}")
        return parse_numbers(texts, whole=WHOLE[name], numbers=NUMBERS[name])
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable text are ValueErrors
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> UserError:
    reason = one_line(why, 160)
    return UserError(f"{path} is missing or damaged ({reason}); {AGAIN}")
