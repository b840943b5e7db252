"""The catalog: one row per image, the form in which all readers agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from fusion.errors import UserError

BENIGN, MALIGNANT = 0, 1
LABEL_NAMES = {BENIGN: "benign", MALIGNANT: "malignant"}
MODALITIES = ("mammography", "ultrasound", "other")


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image file of one source, as its reader found it.

    Raises:
        UserError: the label is not 0 or 1, the modality is unknown, or an identifier is empty.
    """

    image_id: str
    """Unique over all sources and the same on every machine, e.g. ``busi/benign (1)``."""
    source: str
    """Name of the data set: ``busi``, ``oasbud``, ``rsna`` or the name given to a folder."""
    modality: str
    """One of ``MODALITIES``."""
    label: int
    """0 benign, 1 malignant."""
    group_id: str
    """Images that must stay on one side of a split share it: patient, lesion, published duplicate."""
    path: Path
    """The image file."""
    class_conflict: bool = False
    """True when a published list shows the same image or lesion under two classes."""
    synthetic: bool = False
    """True for phantom images."""
    masks: tuple[Path, ...] = ()
    """Image files of its lesions, as large as the image; together they are its mask."""

    def __post_init__(self) -> None:
        if self.label not in LABEL_NAMES:
            raise UserError(f"{self.path}: label {self.label!r} is not 0 (benign) or 1 (malignant)")
        if self.modality not in MODALITIES:
            raise UserError(f"{self.path}: modality {self.modality!r} is not one of {', '.join(MODALITIES)}")
        if not (self.image_id and self.source and self.group_id):
            raise UserError(f"{self.path}: image_id, source and group_id may not be empty")


COLUMNS = tuple(field.name for field in fields(ImageRecord))


def to_frame(records: Sequence[ImageRecord]) -> pd.DataFrame:
    """Return the catalog of ``records``, one row each with the columns of ``ImageRecord``, sorted by ``image_id``.

    Raises:
        UserError: there is no record, or two records share an ``image_id``.
    """
    if not records:
        raise UserError("no image was found in any source; give at least one of --busi, --oasbud, --rsna, --folder")
    counts = Counter(record.image_id for record in records)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise UserError(f"image id {repeated[0]!r} occurs {counts[repeated[0]]} times; ids must be unique")
    lines = [
        {**asdict(record), "path": str(record.path), "masks": [str(path) for path in record.masks]}
        for record in records
    ]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.sort_values("image_id", ignore_index=True)
