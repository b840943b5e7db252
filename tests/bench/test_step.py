"""Captured steps must give what eager ones give. Off the GPU their code runs uncaptured; the GPU tests capture it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.step import PREDICT_BATCH, EagerSteps, GraphSteps, RowFeed, choose_step, graph_obstacle, predict_logits
from bench.train import ON_GPU, OPTIMIZERS, Recipe, train
from fusion.augment import Rows, expand
from fusion.errors import UserError
from fusion.loaders import BatchSpec, ResidentLoader
from fusion.models.cnn17 import Cnn17
from fusion.prepared import Prepared
from fusion.split import Split

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
BATCH = 8
LOSS_TOLERANCE = 1e-5
"""Relative, of the mean loss of each of 20 steps, in fp32 on the CPU, where both do the same additions."""
GPU_LOSS_TOLERANCE = {"sgdm": 1e-3, "adam": 1e-2, "rmsprop": 1e-2}
"""On a GPU other algorithms sum in another order; what is near zero changes its sign, which the last two follow."""
BF16_LOSS_TOLERANCE = 0.05


@pytest.fixture(autouse=True)
def exact_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32, and on a GPU the same sums in the same order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def parts_of(prepared: Prepared, device: torch.device, precision: str = "fp32") -> tuple[ResidentLoader, np.ndarray]:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    spec = BatchSpec(seed=3, mean=(0.5,), std=(0.5,), device=device, dtype=dtype)
    return ResidentLoader(prepared, spec), prepared.catalog["label"].to_numpy()


def rows_of(prepared: Prepared, count: int) -> Rows:
    everything = expand(prepared.catalog, np.arange(len(prepared.catalog)), augmented=True)
    return everything[np.random.default_rng(0).integers(len(everything), size=count)]


def network(device: torch.device) -> nn.Module:
    torch.manual_seed(5)
    return Cnn17(32).to(device).to(memory_format=torch.channels_last)


def steps_of(
    kind: str, prepared: Prepared, device: torch.device, *, optimizer: str = "sgdm", precision: str = "fp32"
) -> Any:
    model = network(device)
    loader, labels = parts_of(prepared, device, precision)
    how = ON_GPU[optimizer] if device.type == "cuda" else {}
    made = OPTIMIZERS[optimizer](list(model.parameters()), lr=0.001, **how)
    common = {"batch_size": BATCH, "precision": precision}
    if kind == "eager":
        return EagerSteps(model, loader, labels, made, **common)  # type: ignore[arg-type]
    return GraphSteps(model, loader, labels, made, capacity=200, compiled=kind == "compiled", **common)  # type: ignore[arg-type]


def losses(steps: Any, rows: Rows, count: int) -> list[float]:
    """Return the loss of each of ``count`` single steps, each a pass of one batch."""
    return [steps.train(rows[i * BATCH : (i + 1) * BATCH], epoch=i)[0] for i in range(count)]


@pytest.mark.parametrize(
    "device", [CPU, pytest.param(CUDA, marks=[pytest.mark.gpu, needs_gpu])], ids=lambda one: one.type
)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_twenty_steps_have_the_losses_of_eager_ones(
    tiny_prepared: Prepared, device: torch.device, optimizer: str
) -> None:
    rows = rows_of(tiny_prepared, 20 * BATCH)
    eager, graph = (
        losses(steps_of(kind, tiny_prepared, device, optimizer=optimizer), rows, 20) for kind in ("eager", "graph")
    )
    tolerance = LOSS_TOLERANCE if device.type == "cpu" else GPU_LOSS_TOLERANCE[optimizer]
    assert graph == pytest.approx(eager, rel=tolerance)
    assert len(set(eager)) == 20
    assert min(eager[-3:]) < eager[0]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("default")  # what the compiler has to say
@pytest.mark.parametrize("kind", ["graph", "compiled"])
def test_twenty_mixed_steps_have_the_losses_of_eager_ones(tiny_prepared: Prepared, kind: str) -> None:
    rows = rows_of(tiny_prepared, 20 * BATCH)
    eager, captured = (
        losses(steps_of(one, tiny_prepared, CUDA, optimizer="adam", precision="bf16"), rows, 20)
        for one in ("eager", kind)
    )
    assert captured == pytest.approx(eager, rel=BF16_LOSS_TOLERANCE)


@pytest.mark.parametrize("count", [2, BATCH - 1, BATCH, 3 * BATCH + 5])
def test_a_pass_of_any_length_is_that_of_eager_steps(tiny_prepared: Prepared, count: int) -> None:
    rows = rows_of(tiny_prepared, count)
    eager, graph = (steps_of(kind, tiny_prepared, CPU) for kind in ("eager", "graph"))
    for epoch in range(2):
        assert graph.train(rows, epoch) == pytest.approx(eager.train(rows, epoch), rel=LOSS_TOLERANCE)
    for one, other in zip(graph.model.state_dict().values(), eager.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, PREDICT_BATCH, PREDICT_BATCH + 1])
def test_predictions_are_those_of_eager_steps(tiny_prepared: Prepared, count: int) -> None:
    rows = rows_of(tiny_prepared, count)
    graph = steps_of("graph", tiny_prepared, CPU)
    before = copy.deepcopy(graph.model.state_dict())
    expected = predict_logits(graph.model, graph.feed.loader, rows, precision="fp32")
    torch.testing.assert_close(graph.predict(rows), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in graph.model.state_dict().items())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_warm_up_and_capture_leave_no_trace(tiny_prepared: Prepared, optimizer: str) -> None:
    graph = steps_of("graph", tiny_prepared, CUDA, optimizer=optimizer)
    assert graph.setup_s > 0
    for one, other in zip(graph.model.state_dict().values(), network(CUDA).state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert all(not value.any() for state in graph.optimizer.state.values() for value in state.values())


@pytest.mark.gpu
@needs_gpu
def test_a_whole_training_is_that_of_eager_steps(tiny_prepared: Prepared) -> None:
    loader, labels = parts_of(tiny_prepared, CUDA)
    rows = rows_of(tiny_prepared, 100)
    split = Split(train=rows[:77], validation=rows[77:], test=rows[77:], fresh_augmentation=True)
    recipe = Recipe(optimizer="adam", learning_rate=0.001, epochs=3, batch_size=BATCH, patience=0)
    eager, graph = (
        train(
            network(CUDA), loader, split, labels, recipe, seed=0, precision="fp32", step=step, progress=lambda _: None
        ).history
        for step in ("eager", "graph")
    )
    for one, other in zip(graph, eager, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-2)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=5e-2)


def test_the_feed_serves_every_row_once_in_order(tiny_prepared: Prepared) -> None:
    loader, labels = parts_of(tiny_prepared, CPU)
    feed, rows = RowFeed(loader, labels, 50), rows_of(tiny_prepared, 23)
    for epoch in (0, 7):
        feed.load(rows, epoch)
        taken = [feed.take(count) for count in (10, 10, 3)]
        index, images, target = (torch.cat(parts) for parts in zip(*taken, strict=True))
        assert index.tolist() == list(range(23))
        assert target.tolist() == labels[rows.image].tolist()
        expected: Tensor = torch.cat(list(loader.batches(rows, 10, epoch=epoch)))
        assert torch.equal(images, expected)


@pytest.mark.parametrize(
    ("device", "loader", "precision", "obstacle"),
    [
        ("cpu", "resident", "fp32", "the device is cpu"),
        ("cuda", "dali", "bf16", "the loader 'dali' works on the host"),
        ("cuda", "torchvision", "bf16", "the loader 'torchvision' works on the host"),
        ("cuda", "resident", "fp16", "fp16 scales the loss on the host"),
        ("cuda", "resident", "bf16", ""),
        ("cuda", "resident", "fp32", ""),
    ],
)
def test_steps_are_captured_where_they_can_be(device: str, loader: str, precision: str, obstacle: str) -> None:
    where: dict[str, Any] = {"loader": loader, "device": torch.device(device), "precision": precision}
    assert graph_obstacle(**where) == obstacle
    assert choose_step("auto", "resnet50", **where) == ("eager" if obstacle else "graph")
    assert choose_step("eager", "resnet50", **where) == "eager"
    for wanted in ("graph", "compiled"):
        if obstacle:
            with pytest.raises(UserError, match=f"step '{wanted}' is not possible: {obstacle}; choose 'auto' or"):
                choose_step(wanted, "resnet50", **where)
        else:
            assert choose_step(wanted, "resnet50", **where) == wanted
