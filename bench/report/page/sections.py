"""Which table and figure stands where on the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.report.layout import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the page; it is left out where nothing belongs to it."""

    id: str
    title: str
    says: str
    """One sentence for a reader who comes here first."""
    tables: tuple[str, ...] = ()
    """Names of tables, ``*`` for any text, in the order they stand."""
    figures: tuple[str, ...] = ()
    """Names of figures, in the same way."""


SECTIONS = (
    Section(
        id="leaderboard",
        title="Leaderboard",
        says="Every model of the matrix in one order. A number leads to the rows it was made of.",
        tables=("leaderboard", "comparisons", "subsets"),
    ),
    Section(
        id="tables",
        title="Tables 1 to 6",
        says="The tables of the paper, made anew: its printed numbers beside those of this run.",
        tables=("table[0-9]*",),
    ),
    Section(
        id="engines",
        title="Engines",
        says="The time of one call under PyTorch and ONNX Runtime, and whether both decide alike.",
        tables=("engines",),
    ),
    Section(
        id="roc",
        title="ROC curves",
        says="Sensitivity against false positives over all thresholds. Point at a curve, or choose one, to "
        "see its 95 % band.",
        figures=("roc*",),
    ),
    Section(
        id="cost",
        title="Accuracy against cost",
        says="What accuracy costs in time and size.",
        figures=("pareto*",),
    ),
    Section(
        id="score",
        title="What a score is made of",
        says="How much of a score comes from copies on both sides of the split, from the modality, from the source.",
        tables=("leakage*", "baselines", "duplicates*", "transfer"),
        figures=("leakage*",),
    ),
    Section(
        id="explanations",
        title="Explanations",
        says="Where in an image a model looked, and whether that is where the lesion lies.",
        tables=("explanations*",),
    ),
    Section(
        id="audit",
        title="Audit of the paper's tables",
        says="What the printed numbers imply, and where they contradict themselves. It does not depend on this run.",
        tables=("audit*",),
    ),
    Section(
        id="figures",
        title="Figures",
        says="The figures for print; each lies as SVG and PNG in the folder figures/.",
        figures=("*",),
    ),
    Section(
        id="other",
        title="Other tables",
        says="Tables that no other section names.",
        tables=("*",),
    ),
)
"""A table or figure stands in the first section that names it."""


def section_of(name: str, kind: str) -> str:
    """Return the id of the section for the table or figure ``name``; ``kind`` is tables or figures."""
    return next(
        section.id for section in SECTIONS if any(fnmatchcase(name, pattern) for pattern in getattr(section, kind))
    )


def tables_in_order(tables: Mapping[str, Table], section: Section) -> list[Table]:
    """Return the tables of ``section``, in the order its names have."""
    own = [name for name in tables if section_of(name, "tables") == section.id]
    places = {name: next(i for i, one in enumerate(section.tables) if fnmatchcase(name, one)) for name in own}
    return [tables[name] for name in sorted(own, key=lambda name: places[name])]
