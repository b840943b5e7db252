"""Every kind of cell must leave as one file whose probabilities are those the run has kept."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

import bench.export
from bench.export import OPSET, BodyGraph, export_onnx, load_classifier
from bench.onnx_file import INPUT, OUTPUT, read_onnx
from fusion.errors import UserError
from fusion.models.classifier import trained_classifier
from fusion.models.cnn17 import Cnn17
from fusion.prepared import Prepared

SIZE = 32
CELLS = [
    *(f"model1/mobilenet_v2+{head}" for head in ("lr", "nb", "svm")),
    *("model2/mobilenet_v2+sgdm", "model3/cnn17+e1+b8"),
]
TOLERANCE = 1e-4


def cell_folder(run_dir: Path, cell: str) -> Path:
    return run_dir / "cells" / "clean" / "0" / cell


def network_of(cell: str) -> str:
    return cell.partition("/")[2].partition("+")[0]


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, paths, graph = tmp_path_factory.mktemp("onnx"), {}, BodyGraph()
    for number, cell in enumerate(CELLS):
        paths[cell] = folder / f"{number}.onnx"
        classifier, network = load_classifier(finished_run, cell_folder(finished_run, cell), SIZE), network_of(cell)
        export_onnx(classifier, paths[cell], network, SIZE, {"cell": cell}, graph)
    return paths


def test_a_network_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[object] = []

    def trace(module: torch.nn.Module, *_: object) -> onnx.ModelProto:
        traced.append(module)
        return onnx.ModelProto()

    monkeypatch.setattr(bench.export, "_traced", trace)
    graph = BodyGraph()
    one, two = (trained_classifier("cnn17", Cnn17(size).state_dict(), size) for size in (SIZE, SIZE + 4))
    for classifier, size in ((one, SIZE), (one, SIZE), (two, SIZE + 4), (two, SIZE + 4)):
        graph.of(classifier, "cnn17", size)
    assert traced == [one.body, two.body]


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_gives_the_probabilities_the_run_has_kept(
    finished_run: Path, exported: dict[str, Path], tiny_prepared: Prepared, cell: str
) -> None:
    kept = pd.read_parquet(cell_folder(finished_run, cell) / "predictions.parquet")
    images = tiny_prepared.catalog.reset_index().set_index("image_id")["index"][kept["image_id"]].to_numpy()
    images_u8 = np.ascontiguousarray(tiny_prepared.images_u8[images])
    (probability,) = session_of(exported[cell]).run([OUTPUT], {INPUT: images_u8})
    assert np.abs(probability - kept["probability"].to_numpy()).max() <= TOLERANCE
    with torch.inference_mode():
        eager = load_classifier(finished_run, cell_folder(finished_run, cell), SIZE)(
            torch.from_numpy(images_u8)
        ).numpy()
    assert np.abs(probability - eager).max() <= TOLERANCE


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_takes_any_batch(exported: dict[str, Path], tiny_prepared: Prepared, cell: str) -> None:
    session = session_of(exported[cell])
    together = session.run([OUTPUT], {INPUT: np.array(tiny_prepared.images_u8[:40])})[0]
    assert together.shape == (40,)
    for count in (1, 3):
        (part,) = session.run([OUTPUT], {INPUT: np.array(tiny_prepared.images_u8[:count])})
        assert np.abs(part - together[:count]).max() <= 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_is_whole_and_says_what_it_is(exported: dict[str, Path], cell: str) -> None:
    path = exported[cell]
    assert [file.name for file in path.parent.glob(f"*{path.stem}.onnx*")] == [
        path.name
    ]  # no external data, nothing left
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [one.version for one in model.opset_import if one.domain == ""] == [OPSET]
    facts = read_onnx(path).facts
    assert facts["cell"] == cell
    assert facts["image_size"] == str(SIZE)
    assert facts["classes"] == '["benign", "malignant"]'
    assert not {"Shape", "BatchNormalization"} & {node.op_type for node in model.graph.node}
    content = path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content  # no paths of the machine
    assert b"site-packages" not in content


def test_the_weights_of_the_file_are_those_of_the_cell(exported: dict[str, Path], finished_run: Path) -> None:
    cell = "model3/cnn17+e1+b8"
    model = onnx.load(exported[cell])
    numbers = sum(np.prod(one.dims) for one in model.graph.initializer)
    kept = sum(
        value.numel() for value in load_classifier(finished_run, cell_folder(finished_run, cell), SIZE).parameters()
    )
    assert numbers == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", None), ("model.safetensors", b"nothing"), ("cell.json", b"{}"), ("cell.json", b"[]")],
)
def test_a_damaged_cell_is_named(finished_run: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    folder: Any = tmp_path / "cell"
    folder.mkdir()
    for file in cell_folder(finished_run, "model3/cnn17+e1+b8").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_classifier(finished_run, folder, SIZE)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
