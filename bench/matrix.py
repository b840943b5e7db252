"""The matrix of a run: a small TOML file, made into a list of independent cells."""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from bench.baselines import BASELINES
from bench.train import OPTIMIZERS, Recipe
from fusion.errors import UserError
from fusion.models import MODELS
from fusion.models.backbones import BACKBONES
from fusion.models.heads import HEADS
from fusion.split import PROTOCOLS
from fusion.text import one_line

MATRICES = Path(__file__).parent / "matrices"
MAXIMUM_BYTES = 2**14
"""tomllib's time grows with the square of what some files hold."""
MAXIMUM_VALUES = 100
"""Of a list: the cells of two are their product."""
MAXIMUM_SEED = 2**32 - 1
"""What scikit-learn takes."""
ABLATION_MODALITIES = ("ultrasound", "mammography", "fused")
TRANSFERS = ("mammography-to-ultrasound", "ultrasound-to-mammography")
FIXED_RATE = ("learning_rate", "patience")
SECTIONS: dict[str, tuple[str, ...]] = {
    "model1": ("backbones", "classifiers"),
    "model2": ("backbones", "optimizers", "epochs", "batch_size", *FIXED_RATE),
    "model3": ("optimizer", "epochs", "batch_sizes", *FIXED_RATE),
    "ablation": ("modalities", "optimizer", "epochs", "batch_size", *FIXED_RATE),
    "transfer": ("directions", "optimizer", "epochs", "batch_size", *FIXED_RATE),
}
"""The keys of each section; all are needed, none besides. The baselines have no section: every matrix has them."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to train and judge; all that defines it but the protocol, the seed and the data."""

    name: str
    """``model1/resnet50+svm``, ``model2/resnet50+sgdm``, ``model3/cnn17+e25+b64``, ``ablation/cnn17+ultrasound``,
    ``transfer/cnn17+mammography-to-ultrasound``, ``baseline/modality``."""
    network: str | None
    """None for a baseline, which has none."""
    head: str | None = None
    """Classifier on pooled features (Model 1), or a key of ``BASELINES``; None for a trained network."""
    recipe: Recipe | None = None
    """How the network is trained; None for Model 1, whose network is frozen, and for a baseline."""
    modality: str | None = None
    """The only modality used; None uses all."""
    augmented: bool = True
    """Whether augmented copies are added."""
    tested_on: str | None = None
    """Another modality, whose test rows the cell is judged on; None for the one it is trained on."""

    def definition(self) -> dict[str, Any]:
        """Return the cell as plain data, for its hash; ``tested_on`` only where it is set."""
        plain = asdict(self)
        return plain if self.tested_on else {key: value for key, value in plain.items() if key != "tested_on"}


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A list of cells and what they are run under."""

    name: str
    weights: str
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]

    def select(self, patterns: list[str]) -> tuple[Cell, ...]:
        """Return the cells whose name matches one of ``patterns`` (shell wildcards), or all of them for none.

        The baselines are always among them: no score can be read without what a model reaches that sees nothing.

        Raises:
            UserError: a pattern matches no cell.
        """
        for pattern in patterns:
            if not any(fnmatchcase(cell.name, pattern) for cell in self.cells):
                names = ", ".join(cell.name for cell in self.cells[:3])
                raise UserError(f"--only {pattern!r} matches none of the {len(self.cells)} cells ({names}, ...)")
        return tuple(
            c for c in self.cells if not patterns or not c.network or any(fnmatchcase(c.name, p) for p in patterns)
        )


def load_matrix(name: str) -> Matrix:
    """Load a matrix that comes with fusebench (``paper``, ``quick``) or a TOML file of the user's.

    Raises:
        UserError: no such matrix, not TOML, or a key or value that is unknown, missing or out of range.
    """
    path = Path(name) if name.endswith(".toml") else MATRICES / f"{name}.toml"
    if not os.path.isfile(path):  # unlike Path.is_file also false for a name that is too long
        known = ", ".join(sorted(file.stem for file in MATRICES.glob("*.toml")))
        raise UserError(f"matrix {name!r} is unknown; choose from {known}, or give the path of a .toml file")
    if path.stat().st_size > MAXIMUM_BYTES:
        raise UserError(f"{path} is larger than {MAXIMUM_BYTES // 2**10} KiB and can't be a matrix")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, an endless number
        raise UserError(f"{path} is not a TOML file: {one_line(str(error), 200)}") from None
    return read_matrix(table, str(path))


def read_matrix(table: dict[str, Any], where: str) -> Matrix:
    """Make a matrix of a parsed TOML table; ``where`` names it in errors.

    Raises:
        UserError: as ``load_matrix``.
    """
    _check_keys(table, {"name", "weights", "protocols", "seeds"}, set(SECTIONS), where)
    for key in ("name", "weights"):
        if not isinstance(table[key], str) or not table[key]:
            raise UserError(f"{where}: {key} = {_short(table[key])} is not a text")
    cells: list[Cell] = []
    for section, keys in SECTIONS.items():
        if section in table:
            if not isinstance(table[section], dict):
                raise UserError(f"{where}: [{section}] is not a table")
            _check_keys(table[section], set(keys), set(), f"{where}: [{section}]")
            cells += _CELLS[section](table[section], f"{where}: [{section}]")
    if not cells:
        raise UserError(f"{where}: no cells; give at least one of {', '.join(f'[{s}]' for s in SECTIONS)}")
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise UserError(f"{where}: the cell {next(n for n in names if names.count(n) > 1)} occurs more than once")
    cells += [Cell(name=f"baseline/{name}", network=None, head=name) for name in BASELINES]
    return Matrix(
        name=table["name"],
        weights=table["weights"],
        protocols=tuple(_choices(table, "protocols", PROTOCOLS, where)),
        seeds=tuple(_integers(table, "seeds", 0, MAXIMUM_SEED, where)),
        cells=tuple(cells),
    )


def _model1(section: dict[str, Any], where: str) -> Iterator[Cell]:
    networks = _choices(section, "backbones", tuple(BACKBONES), where)
    for network, head in product(networks, _choices(section, "classifiers", tuple(HEADS), where)):
        yield Cell(name=f"model1/{network}+{head}", network=network, head=head)


def _model2(section: dict[str, Any], where: str) -> Iterator[Cell]:
    networks = _choices(section, "backbones", MODELS, where)
    for network, optimizer in product(networks, _choices(section, "optimizers", tuple(OPTIMIZERS), where)):
        recipe = _recipe(section, where, optimizer, section["epochs"], section["batch_size"])
        yield Cell(name=f"model2/{network}+{optimizer}", network=network, recipe=recipe)


def _model3(section: dict[str, Any], where: str) -> Iterator[Cell]:
    for epochs, batch in product(_list(section, "epochs", where), _list(section, "batch_sizes", where)):
        recipe = _recipe(section, where, section["optimizer"], epochs, batch)
        yield Cell(name=f"model3/cnn17+e{epochs}+b{batch}", network="cnn17", recipe=recipe)


def _ablation(section: dict[str, Any], where: str) -> Iterator[Cell]:
    recipe = _recipe(section, where, section["optimizer"], section["epochs"], section["batch_size"])
    for modality in _choices(section, "modalities", ABLATION_MODALITIES, where):
        only = None if modality == "fused" else modality
        yield Cell(name=f"ablation/cnn17+{modality}", network="cnn17", recipe=recipe, modality=only, augmented=False)


def _transfer(section: dict[str, Any], where: str) -> Iterator[Cell]:
    recipe = _recipe(section, where, section["optimizer"], section["epochs"], section["batch_size"])
    for direction in _choices(section, "directions", TRANSFERS, where):
        here, _, there = direction.partition("-to-")
        yield Cell(
            name=f"transfer/cnn17+{direction}",
            network="cnn17",
            recipe=recipe,
            modality=here,
            augmented=False,
            tested_on=there,
        )


_CELLS = {"model1": _model1, "model2": _model2, "model3": _model3, "ablation": _ablation, "transfer": _transfer}


def _recipe(section: dict[str, Any], where: str, optimizer: Any, epochs: Any, batch_size: Any) -> Recipe:
    try:
        return Recipe(
            optimizer=optimizer,
            learning_rate=section["learning_rate"],
            epochs=epochs,
            batch_size=batch_size,
            patience=section["patience"],
        )
    except ValueError as error:
        raise UserError(f"{where}: {one_line(str(error), 200)}") from None


def _check_keys(table: dict[str, Any], needed: set[str], optional: set[str], where: str) -> None:
    for key in sorted(table.keys() - needed - optional):
        raise UserError(f"{where}: {_short(key)} is unknown; choose from {', '.join(sorted(needed | optional))}")
    for key in sorted(needed - table.keys()):
        raise UserError(f"{where}: {key!r} is missing")


def _list(table: dict[str, Any], key: str, where: str) -> list[Any]:
    values = table[key]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {key} = {_short(values)} is not a list with at least one value")
    if len(values) > MAXIMUM_VALUES:
        raise UserError(f"{where}: {key} has {len(values)} values; the limit is {MAXIMUM_VALUES}")
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _choices(table: dict[str, Any], key: str, allowed: tuple[str, ...], where: str) -> list[str]:
    for value in _list(table, key, where):
        if value not in allowed:
            raise UserError(f"{where}: {key}: {_short(value)} is unknown; choose from {', '.join(allowed)}")
    return table[key]


def _integers(table: dict[str, Any], key: str, low: int, high: int, where: str) -> list[int]:
    for value in _list(table, key, where):
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{where}: {key}: {_short(value)} is not a whole number from {low} to {high}")
    return table[key]
