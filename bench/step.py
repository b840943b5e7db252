"""One pass over rows: launched batch by batch from Python, or replayed as one CUDA graph per batch.

Both do the same arithmetic in the same order. In a graph the row numbers of an epoch lie on the device, and each replay
takes the next batch of them, so the host neither touches a pixel nor waits before the pass has ended.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.augment import Rows
from fusion.errors import UserError
from fusion.loaders import Loader, ResidentLoader
from fusion.models.backbones import CLASSES

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STEPS = (
    "eager",  # every operation is launched from Python: the plain path, and the reference
    "graph",  # the whole step is captured once as a CUDA graph
    "compiled",  # the same, of the network as torch.compile makes it
)
FASTEST: dict[str, str] = {}
"""The faster of ``graph`` and ``compiled`` for each network, where a GPU has been measured; elsewhere ``graph``."""
PREDICT_BATCH = 64
WARM_UP_STEPS = 3
"""Steps before the capture: cuDNN chooses its algorithms, Triton compiles. They leave no trace in the weights."""


class Steps(Protocol):
    """Passes over rows with one network, optimizer and loader."""

    setup_s: float
    """Seconds of warm-up, compilation and capture before the first pass."""

    def train(self, rows: Rows, epoch: int) -> tuple[float, float]:
        """Train on ``rows`` in order; return the mean loss in nats and the accuracy."""
        ...

    def predict(self, rows: Rows) -> Tensor:
        """Return the [R, 2] float32 logits of ``rows``, on the CPU, augmented as in epoch 0."""
        ...


def graph_obstacle(*, loader: str, device: torch.device, precision: str) -> str:
    """Return why a training step can't be captured as a graph; nothing where it can."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if loader != "resident":
        return f"the loader {loader!r} works on the host"
    if precision == "fp16":
        return "fp16 scales the loss on the host"
    return ""


def choose_step(wanted: str, network: str, *, loader: str, device: torch.device, precision: str) -> str:
    """Return how the training steps of a network are made; ``auto`` is ``eager`` where there can't be a graph.

    Raises:
        UserError: a graph is asked for by name where there can't be one.
    """
    obstacle = graph_obstacle(loader=loader, device=device, precision=precision)
    if wanted == "auto":
        return "eager" if obstacle else FASTEST.get(network, "graph")
    if wanted != "eager" and obstacle:
        raise UserError(f"step {wanted!r} is not possible: {obstacle}; choose 'auto' or 'eager'")
    return wanted


class EagerSteps:
    """Launches every operation from Python, with any loader."""

    setup_s = 0.0

    def __init__(
        self,
        model: nn.Module,
        loader: Loader,
        labels: np.ndarray,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        precision: str,
    ) -> None:
        self.model, self.loader, self.labels, self.optimizer = model, loader, labels, optimizer
        self.batch_size, self.precision = batch_size, precision
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def train(self, rows: Rows, epoch: int) -> tuple[float, float]:
        """Train on ``rows``; see ``Steps``."""
        self.model.train()
        loss_sum, correct = torch.zeros(2, device=self.device)
        targets = torch.from_numpy(self.labels[rows.image]).to(self.device)
        for start, images in _batches(self.loader, rows, self.batch_size, epoch):
            target = targets[start : start + len(images)]
            loss, hits = _learn(self.model, images, target, self.optimizer, self.scaler, self.precision)
            loss_sum += loss
            correct += hits
        return float(loss_sum) / len(rows), float(correct) / len(rows)

    def predict(self, rows: Rows) -> Tensor:
        """Return the logits of ``rows``; see ``Steps``."""
        return predict_logits(self.model, self.loader, rows, precision=self.precision)


class GraphSteps:
    """Replays a training step and a prediction, each captured once as a CUDA graph.

    The last batch of a training pass, where it is smaller, is launched from Python. Off the GPU nothing is captured and
    the same code runs as it is, so that tests can follow it.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: ResidentLoader,
        labels: np.ndarray,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        precision: str,
        capacity: int,
        compiled: bool = False,
    ) -> None:
        """Warm up and capture; the weights stay as they are.

        Args:
            model: on the loader's device.
            loader: holds the images.
            labels: [N] label of each image, 0 or 1.
            optimizer: of the model's parameters, able to be captured.
            batch_size: rows of a training step.
            precision: ``fp32`` or ``bf16``.
            capacity: rows of the longest pass.
            compiled: let torch.compile make the network's kernels.
        """
        self.model, self.optimizer = model, optimizer
        self.batch_size, self.precision = batch_size, precision
        self.scaler = torch.amp.GradScaler(loader.spec.device.type, enabled=False)
        if compiled:
            torch.compiler.reset()  # earlier networks of the class count against Dynamo's limit of compilations
        self.forward: nn.Module = torch.compile(model, dynamic=False) if compiled else model  # type: ignore[assignment]
        self.feed = RowFeed(loader, labels, -(-max(capacity, batch_size) // PREDICT_BATCH) * PREDICT_BATCH)
        device = loader.spec.device
        self.loss_sum, self.correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self.logits = torch.zeros(len(self.feed.image), CLASSES, device=device)
        started = time.perf_counter()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.train()
        self.replay_training = self._captured(lambda: self._train_batch(self.forward, batch_size))
        model.eval()
        self.replay_prediction = self._captured(self._predict_batch)
        model.load_state_dict(before)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()
        if device.type == "cuda":
            torch.cuda.synchronize()
        self.setup_s = time.perf_counter() - started

    def train(self, rows: Rows, epoch: int) -> tuple[float, float]:
        """Train on ``rows``; see ``Steps``."""
        self.model.train()
        self.loss_sum.zero_()
        self.correct.zero_()
        self.feed.load(rows, epoch)
        for _ in range(len(rows) // self.batch_size):
            self.replay_training()
        if rest := len(rows) % self.batch_size:
            self._train_batch(self.model, rest)
        return float(self.loss_sum) / len(rows), float(self.correct) / len(rows)

    def predict(self, rows: Rows) -> Tensor:
        """Return the logits of ``rows``; see ``Steps``."""
        self.model.eval()
        self.feed.load(rows, 0)
        for _ in range(-(-len(rows) // PREDICT_BATCH)):  # what the last batch predicts past the end is not read
            self.replay_prediction()
        return self.logits[: len(rows)].cpu()

    def _train_batch(self, forward: nn.Module, count: int) -> None:
        _, images, target = self.feed.take(count)
        loss, hits = _learn(forward, images, target, self.optimizer, self.scaler, self.precision)
        self.loss_sum += loss
        self.correct += hits

    @torch.no_grad()
    def _predict_batch(self) -> None:
        index, images, _ = self.feed.take(PREDICT_BATCH)
        with _autocast(images.device, self.precision):
            logits = self.forward(images)
        self.logits.index_copy_(0, index, logits.float())

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.logits.device.type != "cuda":
            return work
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # gradients and the optimizer's state come into being here
            for _ in range(WARM_UP_STEPS):
                self.feed.rewind()
                work()
        torch.cuda.current_stream().wait_stream(side)
        self.feed.rewind()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


class RowFeed:
    """The rows of a pass, on the device; every ``take`` gives the next batch of them without the host."""

    def __init__(self, loader: ResidentLoader, labels: np.ndarray, capacity: int) -> None:
        device = loader.spec.device
        self.loader = loader
        self.labels = torch.from_numpy(np.array(labels)).to(device)
        self.image, self.copy = torch.zeros(2, capacity, dtype=torch.int64, device=device)
        self.counted = torch.arange(capacity, device=device)
        self.cursor, self.epoch = torch.zeros(2, dtype=torch.int64, device=device)

    def load(self, rows: Rows, epoch: int) -> None:
        """Put ``rows`` on the device, to be taken from the first, augmented as in ``epoch``."""
        self.image[: len(rows)].copy_(torch.from_numpy(rows.image))
        self.copy[: len(rows)].copy_(torch.from_numpy(rows.copy))
        self.epoch.fill_(epoch)
        self.rewind()

    def rewind(self) -> None:
        """Go back to the first row."""
        self.cursor.zero_()

    def take(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next ``count`` rows: where they stand in the pass, their pixels and their labels."""
        index = self.cursor + self.counted[:count]
        self.cursor += count
        image = self.image[index]
        return index, self.loader.batch(image, self.copy[index], epoch=self.epoch), self.labels[image]


@torch.inference_mode()
def predict_logits(model: nn.Module, loader: Loader, rows: Rows, *, precision: str) -> Tensor:
    """Return the [R, 2] float32 logits, on the CPU, of ``rows``, augmented as in epoch 0."""
    model.eval()
    device = next(model.parameters()).device
    outputs = []
    for _, images in _batches(loader, rows, PREDICT_BATCH, 0):
        with _autocast(device, precision):
            outputs.append(model(images).float())
    return torch.cat(outputs).cpu()


def _learn(
    forward: nn.Module,
    images: Tensor,
    target: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Make one training step; return the summed loss and the number of correct rows, on the device."""
    with _autocast(images.device, precision):
        logits = forward(images)
    loss = F.cross_entropy(logits.float(), target)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss.detach() * len(images), (logits.detach().argmax(1) == target).sum()


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def _batches(loader: Loader, rows: Rows, batch_size: int, epoch: int) -> Iterator[tuple[int, Tensor]]:
    start = 0
    for images in loader.batches(rows, batch_size, epoch=epoch):
        yield start, images
        start += len(images)
