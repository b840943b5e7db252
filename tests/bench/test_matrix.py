import copy
import re
import tomllib
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench.matrix import MATRICES, MAXIMUM_BYTES, Matrix, load_matrix, read_matrix
from bench.paper import paper_metrics
from bench.train import Recipe
from fusion.errors import UserError

BASELINE_CELLS = [f"baseline/{name}" for name in ("majority", "modality", "source", "thumbnail")]
BACKBONES = ("efficientnet_b0", "inception_v3", "mobilenet_v2", "resnet101", "resnet50")


def changed(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``table`` with ``section__key`` set to its value, or gone for ``None``."""
    table = copy.deepcopy(table)
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = table
        for section in sections:
            place = place[section]
        place[key] = value
        if value is None:
            del place[key]
    return table


@pytest.fixture
def tiny(tiny_toml: Path) -> dict[str, Any]:
    return tomllib.loads(tiny_toml.read_text(encoding="utf-8"))


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        read_matrix(table, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml")
    assert "\n" not in message
    return message


# -- the matrices that come with fusebench ---------------------------------------------------------------------------


def test_the_papers_matrix_has_the_papers_cells() -> None:
    matrix = load_matrix("paper")
    names = [cell.name for cell in matrix.cells]
    models = {"model1": 15, "model2": 15, "model3": 4, "ablation": 3, "transfer": 2, "baseline": 4}
    assert Counter(name.partition("/")[0] for name in names) == models
    printed = [name for name in names if not name.startswith(("transfer/", "baseline/"))]
    assert set(printed) == set(paper_metrics()["cell"])
    assert len(set(names)) == len(names)
    assert (matrix.name, matrix.weights, matrix.protocols, matrix.seeds) == (
        "paper",
        "imagenet",
        ("paper", "clean"),
        (0,),
    )


def test_the_papers_recipes() -> None:
    cells = {cell.name: cell for cell in load_matrix("paper").cells}
    for backbone, head in product(BACKBONES, ("lr", "nb", "svm")):
        cell = cells[f"model1/{backbone}+{head}"]
        assert (cell.network, cell.head, cell.recipe, cell.modality, cell.augmented) == (
            backbone,
            head,
            None,
            None,
            True,
        )
    for backbone, optimizer in product(BACKBONES, ("sgdm", "adam", "rmsprop")):
        cell = cells[f"model2/{backbone}+{optimizer}"]
        recipe = Recipe(optimizer=optimizer, learning_rate=0.001, epochs=30, batch_size=30, patience=5)
        assert (cell.network, cell.head, cell.recipe, cell.modality, cell.augmented) == (
            *(backbone, None, recipe),
            *(None, True),
        )
    for epochs, batch in product((25, 30), (32, 64)):
        cell = cells[f"model3/cnn17+e{epochs}+b{batch}"]
        recipe = Recipe(optimizer="sgdm", learning_rate=0.001, epochs=epochs, batch_size=batch, patience=5)
        assert (cell.network, cell.head, cell.recipe, cell.modality, cell.augmented) == (
            *("cnn17", None, recipe),
            *(None, True),
        )
    recipe = Recipe(optimizer="sgdm", learning_rate=0.001, epochs=25, batch_size=64, patience=5)
    for name, modality in (("ultrasound", "ultrasound"), ("mammography", "mammography"), ("fused", None)):
        cell = cells[f"ablation/cnn17+{name}"]
        assert (cell.network, cell.recipe, cell.modality, cell.augmented) == ("cnn17", recipe, modality, False)
    for here, there in (("ultrasound", "mammography"), ("mammography", "ultrasound")):
        cell = cells[f"transfer/cnn17+{here}-to-{there}"]
        assert (cell.network, cell.recipe, cell.modality, cell.tested_on) == ("cnn17", recipe, here, there)
        assert not cell.augmented


def test_a_definition_names_another_modality_only_where_one_is_tested_on() -> None:
    cells = load_matrix("paper").cells
    assert {cell.name for cell in cells if "tested_on" in cell.definition()} == {
        "transfer/cnn17+mammography-to-ultrasound",
        "transfer/cnn17+ultrasound-to-mammography",
    }


def test_the_quick_matrix_has_the_same_cells() -> None:
    paper, quick = load_matrix("paper"), load_matrix("quick")
    assert quick.weights == "random"
    assert [cell.name for cell in quick.cells] == [cell.name for cell in paper.cells]
    for small, large in zip(quick.cells, paper.cells, strict=True):
        assert (small.network, small.head) == (large.network, large.head)
        assert (small.modality, small.tested_on) == (large.modality, large.tested_on)
        if small.recipe and large.recipe:
            assert small.recipe.optimizer == large.recipe.optimizer
            assert small.recipe.epochs <= large.recipe.epochs


@pytest.mark.parametrize("path", sorted(MATRICES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_matrix_fits_on_one_screen(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


# -- the user's own --------------------------------------------------------------------------------------------------


def test_a_file_of_the_users_is_read(tiny_toml: Path) -> None:
    matrix = load_matrix(str(tiny_toml))
    assert [cell.name for cell in matrix.cells] == [
        "model1/mobilenet_v2+lr",
        "model1/mobilenet_v2+nb",
        "model1/mobilenet_v2+svm",
        "model2/mobilenet_v2+sgdm",
        "model3/cnn17+e1+b8",
        "model3/cnn17+e2+b8",
        "ablation/cnn17+ultrasound",
        "ablation/cnn17+mammography",
        "ablation/cnn17+fused",
        "transfer/cnn17+mammography-to-ultrasound",
        "transfer/cnn17+ultrasound-to-mammography",
        *BASELINE_CELLS,
    ]


def test_the_cnn_may_be_trained_as_model2(tiny: dict[str, Any]) -> None:
    matrix = read_matrix(changed(tiny, {"model2__backbones": ["cnn17"]}), "my.toml")
    assert "model2/cnn17+sgdm" in [cell.name for cell in matrix.cells]


def test_sections_may_be_left_out_but_not_all(tiny: dict[str, Any]) -> None:
    for section in ("model1", "model2", "ablation", "transfer"):
        del tiny[section]
    assert len(read_matrix(tiny, "my.toml").cells) == 2 + len(BASELINE_CELLS)
    del tiny["model3"]
    assert "no cells; give at least one of [model1], [model2], [model3], [ablation], [transfer]" in refusal(tiny)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"colour": 1},
            ["'colour' is unknown; choose from", "ablation, model1, model2, model3, name, protocols, seeds, transfer"],
        ),
        ({"model1__epochs": 1}, ["[model1]: 'epochs' is unknown; choose from backbones, classifiers"]),
        ({"model2__momentum": 0.9}, ["[model2]: 'momentum' is unknown; choose from", "learning_rate"]),
        ({"name": None}, ["'name' is missing"]),
        ({"seeds": None}, ["'seeds' is missing"]),
        ({"model3__batch_sizes": None}, ["[model3]: 'batch_sizes' is missing"]),
        ({"ablation__patience": None}, ["[ablation]: 'patience' is missing"]),
        ({"model1__backbones": ["resnet5O"]}, ["[model1]: backbones: 'resnet5O' is unknown; choose from", "resnet50"]),
        ({"model1__backbones": ["cnn17"]}, ["'cnn17' is unknown; choose from efficientnet_b0"]),
        ({"model2__backbones": ["vgg16"]}, ["[model2]: backbones: 'vgg16' is unknown; choose from", "cnn17"]),
        ({"model1__classifiers": ["knn"]}, ["classifiers: 'knn' is unknown; choose from lr, nb, svm"]),
        ({"model2__optimizers": ["lion"]}, ["optimizers: 'lion' is unknown; choose from sgdm, adam, rmsprop"]),
        ({"model3__optimizer": "lion"}, ["[model3]: optimizer 'lion' is unknown; choose from sgdm, adam, rmsprop"]),
        ({"model3__optimizer": ["sgdm"]}, ["[model3]: optimizer ['sgdm'] is unknown; choose from sgdm"]),
        ({"ablation__optimizer": {}}, ["[ablation]: optimizer {} is unknown; choose from sgdm"]),
        ({"protocols": ["dirty"]}, ["protocols: 'dirty' is unknown; choose from paper, clean"]),
        ({"ablation__modalities": ["mri"]}, ["'mri' is unknown; choose from ultrasound, mammography, fused"]),
        ({"name": 5}, ["name = 5 is not a text"]),
        ({"weights": ""}, ["weights = '' is not a text"]),
        ({"model1": 3}, ["[model1] is not a table"]),
        ({"protocols": "paper"}, ["protocols = 'paper' is not a list"]),
        ({"protocols": []}, ["protocols = [] is not a list with at least one value"]),
        ({"seeds": []}, ["seeds = [] is not a list with at least one value"]),
        ({"seeds": 0}, ["seeds = 0 is not a list"]),
        ({"seeds": [-1]}, ["seeds: -1 is not a whole number from 0 to 4294967295"]),
        ({"seeds": [2**32]}, ["seeds: 4294967296 is not a whole number from 0 to 4294967295"]),
        ({"seeds": [True]}, ["seeds: True is not a whole number"]),
        ({"seeds": ["0"]}, ["seeds: '0' is not a whole number"]),
        ({"model1__classifiers": []}, ["classifiers = [] is not a list with at least one value"]),
        ({"model2__optimizers": [["sgdm"]]}, ["optimizers: ['sgdm'] is unknown"]),
        ({"model2__epochs": 0}, ["[model2]: epochs 0 is not a whole number from 1"]),
        ({"model2__epochs": True}, ["epochs True is not a whole number"]),
        ({"model2__epochs": 1.0}, ["epochs 1.0 is not a whole number"]),
        ({"model3__epochs": 1}, ["[model3]: epochs = 1 is not a list"]),
        ({"model3__epochs": ["1"]}, ["[model3]: epochs '1' is not a whole number"]),
        ({"model3__batch_sizes": [1]}, ["batch_size 1 is not a whole number from 2"]),
        ({"model2__patience": -1}, ["patience -1 is not a whole number from 0"]),
        ({"model2__learning_rate": 0}, ["learning_rate 0 is not a number above 0"]),
        ({"model2__learning_rate": True}, ["learning_rate True is not a number above 0"]),
        ({"model2__learning_rate": "fast"}, ["learning_rate 'fast' is not a number above 0"]),
        ({"model2__learning_rate": float("inf")}, ["learning_rate inf is not a number above 0"]),
        ({"model2__learning_rate": float("nan")}, ["learning_rate nan is not a number above 0"]),
        ({"transfer__directions": ["up"]}, ["[transfer]: directions: 'up' is unknown; choose from mammography-to-"]),
        ({"transfer__epochs": 0}, ["[transfer]: epochs 0 is not a whole number from 1"]),
        ({"transfer__modalities": []}, ["[transfer]: 'modalities' is unknown; choose from batch_size, directions"]),
        ({"model3__epochs": [1, 1]}, ["the cell model3/cnn17+e1+b8 occurs more than once"]),
        ({"model1__classifiers": ["lr", "lr"]}, ["the cell model1/mobilenet_v2+lr occurs more than once"]),
    ],
)
def test_a_faulty_matrix_is_refused_with_value_and_choices(
    tiny: dict[str, Any], changes: dict[str, Any], parts: list[str]
) -> None:
    message = refusal(changed(tiny, changes))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"name = ", "is not a TOML file"),
        (b"\xff\xfe", "is not a TOML file"),
        (b"a = " + b"[" * 10_000, "is not a TOML file"),
        (b"seeds = [" + b"1" * 5000 + b"]", "is not a TOML file"),
        (b"name = 'x'\nname = 'y'", "is not a TOML file"),
        (b"#" * (MAXIMUM_BYTES + 1), "is larger than 16 KiB"),
        (b"", "'name' is missing"),
    ],
    ids=["cut", "not-utf8", "deep", "huge-number", "twice", "huge-file", "empty"],
)
def test_a_file_that_is_no_matrix_is_refused_on_one_line(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(part)) as caught:
        load_matrix(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["papers", "", "nowhere.toml", "x" * 300, "x" * 300 + ".toml"])
def test_an_unknown_matrix_is_refused_with_the_choices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"matrix {name!r} is unknown; choose from paper, quick, or give")):
        load_matrix(name)


def test_a_folder_is_no_matrix(tmp_path: Path) -> None:
    (tmp_path / "my.toml").mkdir()
    with pytest.raises(UserError, match=r"my\.toml' is unknown; choose from paper, quick"):
        load_matrix(str(tmp_path / "my.toml"))


# -- choosing cells --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load_matrix("paper")


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        ([], 39),
        (["*"], 39),
        (["model2/*"], 15),
        (["model?/resnet50+*"], 6),
        (["model1/*+svm", "model1/resnet50+svm", "model3/*"], 9),
        (["model2/resnet50+sgdm"], 1),
        (["model3/cnn17+e[23]5+b64"], 1),
        (["baseline/*"], 0),
    ],
)
def test_wildcards_select_each_cell_once_in_order(matrix: Matrix, patterns: list[str], count: int) -> None:
    names = [cell.name for cell in matrix.select(patterns)]
    assert len(names) == len(set(names)) == count + len(BASELINE_CELLS)  # they are in every leaderboard
    assert names[-len(BASELINE_CELLS) :] == BASELINE_CELLS
    assert names == [cell.name for cell in matrix.cells if cell.name in names]


@pytest.mark.parametrize("pattern", ["model9/*", "MODEL1/*", "resnet50", ""])
def test_a_pattern_that_matches_nothing_is_refused(matrix: Matrix, pattern: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--only {pattern!r} matches none of the 43 cells (model1/")):
        matrix.select(["model1/*", pattern])


MODEL3 = """
name = "mine"
weights = "random"
protocols = ["paper"]
seeds = [0]

[model3]
optimizer = "sgdm"
learning_rate = 0.001
epochs = {epochs}
batch_sizes = {batches}
patience = 5
"""


def test_a_list_without_end_is_refused_before_its_products_are_made(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    values = list(range(1, 1_500))
    path.write_text(MODEL3.format(epochs=values, batches=values), encoding="utf-8")
    with pytest.raises(UserError, match="epochs has 1499 values; the limit is 100"):
        load_matrix(str(path))
    path.write_text(MODEL3.format(epochs=[1], batches=["x" * 9_000]), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_matrix(str(path))
    assert len(str(caught.value)) < 500
