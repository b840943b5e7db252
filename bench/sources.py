"""From the options of ``fusebench prepare`` to the records of all sources."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fusion.catalog import ImageRecord
from fusion.errors import UserError
from fusion.files import file_hash
from fusion.prepared import BMODE
from fusion.sources.busi import read_busi
from fusion.sources.folder import read_folder
from fusion.sources.oasbud import read_oasbud
from fusion.sources.rsna import read_rsna


def read_sources(
    out: Path,
    *,
    busi: Path | None,
    oasbud: Path | None,
    rsna: Path | None,
    folders: Sequence[str],
    negatives: int,
    seed: int,
    oasbud_groups: str,
    allow_ungrouped: bool,
    progress: Callable[[str, int, int], None],
) -> tuple[list[ImageRecord], list[str]]:
    """Read every source that is given; return its records and the readers' remarks.

    Args:
        out: folder of the prepared data set; OASBUD's B-mode images are written to ``out/bmode``.
        busi: folder of BUSI.
        oasbud: the file OASBUD.mat.
        rsna: folder of the RSNA set.
        folders: ``NAME=DIR`` for each other set.
        negatives: RSNA images without cancer to draw.
        seed: draws them.
        oasbud_groups: ``patient`` or ``lesion``.
        allow_ungrouped: take RSNA images without patient ids.
        progress: called while OASBUD is rendered.

    Raises:
        UserError: no source, or one that can't be read as what it is said to be.
    """
    if oasbud_groups not in ("patient", "lesion"):
        raise UserError(f"--oasbud-groups {oasbud_groups!r} is unknown; choose from patient, lesion")
    if negatives < 1:
        raise UserError(f"--negatives {negatives} is below 1")
    records: list[ImageRecord] = []
    notes: list[str] = []
    found = []
    if busi:
        found.append(read_busi(busi))
    if oasbud:
        # Named by content, so that another file never overwrites the images of a finished data set.
        bmode = out / BMODE / (file_hash(oasbud)[:12] if oasbud.is_file() else "missing")
        found.append(
            read_oasbud(oasbud, bmode, grouping=oasbud_groups, progress=lambda d, t: progress("render B-mode", d, t))  # type: ignore[arg-type]
        )
    if rsna:
        found.append(read_rsna(rsna, negatives=negatives, seed=seed, allow_ungrouped=allow_ungrouped))
    names = []
    for option in folders:
        name, separator, path = option.partition("=")
        if not separator or not path:
            raise UserError(f"--folder {option!r} is not of the form NAME=DIR")
        if name in names:
            raise UserError(f"--folder {name!r} is given more than once; every set needs its own name")
        names.append(name)
        found.append(read_folder(name, Path(path)))
    if not found:
        raise UserError("no data is given; choose at least one of --busi, --oasbud, --rsna, --folder NAME=DIR")
    for some_records, some_notes in found:
        records += some_records
        notes += some_notes
    return records, notes
