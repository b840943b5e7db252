"""Training one network: mixed precision, early stopping that restores the best weights, a history of every epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bench.step import EagerSteps, GraphSteps, Steps
from fusion.errors import UserError
from fusion.loaders import Loader, ResidentLoader
from fusion.split import Split

DEVICES = ("auto", "cpu", "cuda")
L2 = 1e-4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgdm": partial(torch.optim.SGD, momentum=0.9, weight_decay=L2),
    "adam": partial(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-8, weight_decay=L2),
    "rmsprop": partial(torch.optim.RMSprop, alpha=0.9, eps=1e-8, weight_decay=L2),
}
"""The paper's optimizers; what it leaves out is filled by the defaults of the authors' toolbox (trainingOptions), but
that L2 decays biases as well."""
ON_GPU: dict[str, dict[str, bool]] = {
    "sgdm": {"fused": True},
    "adam": {"fused": True, "capturable": True},
    "rmsprop": {"foreach": True, "capturable": True},  # torch has no fused one
}
"""How each is computed there: few launches, and able to be captured in a graph."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Raises:
        ValueError: a value is of the wrong type or out of range.
    """

    optimizer: str
    """A key of ``OPTIMIZERS``."""
    learning_rate: float
    epochs: int
    """At most so many passes over the training rows."""
    batch_size: int
    patience: int
    """Epochs without a better validation loss before training stops; 0 never stops early."""

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, str) or self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r} is unknown; choose from {', '.join(OPTIMIZERS)}")
        if type(self.learning_rate) not in (float, int) or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate {self.learning_rate!r} is not a number above 0")
        for name, low, high in (("epochs", 1, 100_000), ("batch_size", 2, 65_536), ("patience", 0, 100_000)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} {value!r} is not a whole number from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of a history; losses are mean cross-entropies in nats, accuracies are in 0..1."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float


def choose_device(name: str) -> torch.device:
    """Return the device ``cpu``, ``cuda`` or ``auto``: the GPU where there is one.

    Raises:
        UserError: the name is unknown, or there is no GPU.
    """
    if name not in DEVICES:
        raise UserError(f"device {name!r} is unknown; choose from {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is asked for, but torch sees no GPU here; choose 'cpu' or 'auto'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(device: torch.device) -> str:
    """Return bf16 where the GPU has it, fp16 where not, fp32 on the CPU."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to, beside the weights."""

    history: list[Epoch]
    steps: Steps
    """Predicts with the weights the training ended with."""


def train(
    model: nn.Module,
    loader: Loader,
    split: Split,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    precision: str,
    step: str = "eager",
    progress: Callable[[Epoch], None],
) -> Trained:
    """Train ``model`` in place and leave it with the weights of the epoch of the lowest validation loss.

    Args:
        model: on the device it is to be trained on.
        loader: serves the pixels of a row.
        split: the rows to train on and the rows to watch.
        labels: [N] label of each image, 0 or 1.
        recipe: optimizer, rate, epochs, batch size and patience.
        seed: draws the order of the rows in each epoch.
        precision: a key of ``PRECISIONS``; fp16 scales the loss.
        step: one of ``STEPS``, as ``choose_step`` says.
        progress: called after every epoch.

    Raises:
        UserError: the loss is not a finite number.
    """
    capacity = max(len(split.train), len(split.validation), len(split.test))
    steps = make_steps(model, loader, labels, recipe, precision=precision, step=step, capacity=capacity)
    history: list[Epoch] = []
    best_loss, best_epoch, best_weights = math.inf, 0, {}
    for epoch in range(1, recipe.epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(split.train))
        if len(order) % recipe.batch_size == 1:
            order = order[:-1]  # batch normalisation can't learn from a batch of one row
        train_loss, train_accuracy = steps.train(split.train[order], epoch if split.fresh_augmentation else 0)
        validation = steps.predict(split.validation)
        target = torch.from_numpy(labels[split.validation.image])
        record = Epoch(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=float(F.cross_entropy(validation, target)),
            validation_accuracy=float((validation.argmax(1) == target).double().mean()),
            learning_rate=recipe.learning_rate,
        )
        if not (math.isfinite(record.train_loss) and math.isfinite(record.validation_loss)):
            raise UserError(
                f"the loss is not finite in epoch {epoch} (training {record.train_loss}, validation "
                f"{record.validation_loss}); a lower learning rate than {recipe.learning_rate} may help"
            )
        history.append(record)
        progress(record)
        if record.validation_loss < best_loss:
            best_loss, best_epoch = record.validation_loss, epoch
            best_weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        elif recipe.patience and epoch - best_epoch >= recipe.patience:
            break
    model.load_state_dict(best_weights)
    return Trained(history=history, steps=steps)


def make_steps(
    model: nn.Module,
    loader: Loader,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    precision: str,
    step: str,
    capacity: int,
) -> Steps:
    """Return what makes the passes of a training, with the recipe's optimizer.

    Args:
        model: on the device it is to be trained on.
        loader: serves the pixels of a row; the resident one where ``step`` is not ``eager``.
        labels: [N] label of each image, 0 or 1.
        recipe: optimizer, rate and batch size.
        precision: a key of ``PRECISIONS``.
        step: one of ``STEPS``.
        capacity: rows of the longest pass.
    """
    how = ON_GPU[recipe.optimizer] if next(model.parameters()).is_cuda else {}
    optimizer = OPTIMIZERS[recipe.optimizer](list(model.parameters()), lr=recipe.learning_rate, **how)
    if step == "eager":
        return EagerSteps(model, loader, labels, optimizer, batch_size=recipe.batch_size, precision=precision)
    assert isinstance(loader, ResidentLoader)  # choose_step has seen to it
    return GraphSteps(
        model,
        loader,
        labels,
        optimizer,
        batch_size=recipe.batch_size,
        precision=precision,
        capacity=capacity,
        compiled=step == "compiled",
    )
