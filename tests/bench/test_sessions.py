"""An engine that does not run where it should is refused, by name; one that does gives what PyTorch gives."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

import bench.sessions
from bench.classify import BatchClassifier, batches_of
from bench.export import BodyGraph, export_onnx
from bench.sessions import (
    ENGINES,
    NotHereError,
    OnnxSession,
    RefusedError,
    TorchSession,
    open_onnx,
    open_session,
    require_machine,
)
from fusion.errors import UserError
from fusion.models.classifier import Classifier, trained_classifier
from fusion.models.cnn17 import Cnn17

SIZE = 32
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return trained_classifier("cnn17", Cnn17(SIZE).state_dict(), SIZE)


@pytest.fixture(scope="module")
def file(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(classifier, path, "cnn17", SIZE, {}, BodyGraph())
    return path


@pytest.fixture(scope="module")
def images_u8() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 1, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(classifier: Classifier, images_u8: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return classifier(torch.from_numpy(images_u8)).numpy()


@pytest.mark.parametrize("name", ["pytorch-cpu", "onnxruntime-cpu"])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_an_engine_gives_the_probabilities_whatever_the_batch(
    name: str, batch: int, classifier: Classifier, file: Path, images_u8: np.ndarray, expected: np.ndarray
) -> None:
    session = open_session(name, "fp32", image_size=SIZE, file=file, load=lambda: classifier)
    answers = BatchClassifier(session, batch, SIZE).probabilities(batches_of(images_u8, batch))
    assert answers.shape == (7,)
    assert np.abs(answers - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["pytorch-cpu", "onnxruntime-cpu"])
def test_a_bound_call_reads_its_buffer_anew(
    name: str, classifier: Classifier, file: Path, images_u8: np.ndarray, expected: np.ndarray
) -> None:
    session = open_session(name, "fp32", image_size=SIZE, file=file, load=lambda: classifier)
    buffer = torch.from_numpy(images_u8[:2].copy())
    call = session.bind(buffer)
    call()
    buffer.copy_(torch.from_numpy(images_u8[2:4]))
    assert np.abs(call().numpy() - expected[2:4]).max() < 1e-5


def test_a_lower_precision_is_one_and_leaves_the_classifier_as_it_is(
    classifier: Classifier, images_u8: np.ndarray, expected: np.ndarray
) -> None:
    session = TorchSession(classifier, ENGINES["pytorch-cpu"], "bf16")
    answers = session.bind(torch.from_numpy(images_u8))().numpy()
    assert 0 < np.abs(answers - expected).max() < 0.05
    assert answers.dtype == np.float32
    assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}


def test_a_missing_provider_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(RefusedError, match=f"{CUDA} is missing: onnxruntime .* has only {CPU}; pip uninstall"):
        OnnxSession(file, CUDA, {}, "cuda")


@without_gpu
@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="onnxruntime without CUDA")
def test_a_missing_library_is_named_and_nothing_falls_back(file: Path) -> None:
    """Really so: the provider is listed, and its driver's library is not on this machine."""
    with pytest.raises(RefusedError, match=rf"{CUDA} can't be loaded: the library libcuda\.so\.1 is missing"):
        OnnxSession(file, CUDA, {}, "cuda")


def test_a_session_that_fell_back_in_silence_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fallen(onnxruntime.InferenceSession):
        def __init__(self, file: Path, settings: onnxruntime.SessionOptions, **_: object) -> None:
            super().__init__(file, settings, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(bench.sessions, "missing_library", lambda _: "")
    with pytest.raises(RefusedError, match=f"{CUDA} can't be loaded: the session runs on {CPU}"):
        OnnxSession(file, CUDA, {}, "cpu")


def test_operators_that_are_placed_elsewhere_are_named(file: Path) -> None:
    session = OnnxSession(file, CPU, {}, "cpu")
    assert session.nodes_elsewhere(CPU) == []
    (line,) = session.nodes_elsewhere(CUDA)
    assert line.startswith(f"{CPU}: ")
    assert "Conv" in line


def test_a_session_with_operators_elsewhere_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = SimpleNamespace(op_type="Resize")
    part = SimpleNamespace(ep_name="Other", get_nodes=lambda: [node])
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "get_provider_graph_assignment_info", lambda _: [part], raising=False
    )
    with pytest.raises(RefusedError, match=f"{CPU} leaves operators to others: Other: Resize"):
        OnnxSession(file, CPU, {}, "cpu")


@without_gpu
@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if engine.device == "cuda"])
def test_without_a_gpu_its_engines_are_not_here(name: str) -> None:
    with pytest.raises(NotHereError, match="torch sees no NVIDIA GPU here"):
        require_machine(name)


def test_images_of_another_size_are_refused(file: Path, classifier: Classifier) -> None:
    with pytest.raises(UserError, match=f"takes images of {SIZE} px, the images have 80"):
        open_session("onnxruntime-cpu", "fp32", image_size=80, file=file, load=lambda: classifier)


def test_a_file_that_onnxruntime_can_not_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RefusedError, match=f"{CPU} can't be loaded: "):
        open_onnx(tmp_path / "model.onnx", "onnxruntime-cpu", "fp32", SIZE)


def test_every_engine_is_a_runtime_that_has_what_it_needs() -> None:
    for name, engine in ENGINES.items():
        assert name.startswith(f"{engine.runtime}-")
        assert bool(engine.provider) == (engine.runtime == "onnxruntime")
        assert engine.options.get("use_tf32", "0") == "0"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if engine.device == "cuda"])
def test_an_engine_of_the_gpu_gives_the_probabilities(
    name: str, classifier: Classifier, file: Path, images_u8: np.ndarray, expected: np.ndarray
) -> None:
    try:
        session = open_session(name, "fp32", image_size=SIZE, file=file, load=lambda: classifier)
    except NotHereError as error:
        pytest.skip(str(error))
    for batch in (1, 3, 7):
        answers = BatchClassifier(session, batch, SIZE).probabilities(batches_of(images_u8, batch))
        assert np.abs(answers - expected).max() < 1e-4
