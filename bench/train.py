"""Training one network: mixed precision, early stopping that restores the best weights, a history of every epoch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.augment import Rows
from fusion.errors import UserError
from fusion.loaders import Loader
from fusion.split import Split

L2 = 1e-4
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float], torch.optim.Optimizer]] = {
    "sgdm": lambda weights, rate: torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=L2),
    "adam": lambda weights, rate: torch.optim.Adam(weights, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=L2),
    "rmsprop": lambda weights, rate: torch.optim.RMSprop(weights, lr=rate, alpha=0.9, eps=1e-8, weight_decay=L2),
}
"""The paper's optimizers; what it leaves out is filled by the defaults of the authors' toolbox (trainingOptions), but
that L2 decays biases as well."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PREDICT_BATCH = 64


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


def choose_precision(device: torch.device) -> str:
    """Return bf16 where the GPU has it, fp16 where not, fp32 on the CPU."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def train(
    model: nn.Module,
    loader: Loader,
    split: Split,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    precision: str,
    progress: Callable[[Epoch], None],
) -> list[Epoch]:
    """Train ``model`` in place and leave it with the weights of the epoch of the lowest validation loss.

    Args:
        model: on the device it is to be trained on.
        loader: serves the pixels of a row.
        split: the rows to train on and the rows to watch.
        labels: [N] label of each image, 0 or 1.
        recipe: optimizer, rate, epochs, batch size and patience.
        seed: draws the order of the rows in each epoch.
        precision: a key of ``PRECISIONS``; fp16 scales the loss.
        progress: called after every epoch.

    Raises:
        UserError: the loss is not a finite number.
    """
    device = next(model.parameters()).device
    optimizer = OPTIMIZERS[recipe.optimizer](list(model.parameters()), recipe.learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    history: list[Epoch] = []
    best_loss, best_epoch, best_weights = math.inf, 0, {}
    for epoch in range(1, recipe.epochs + 1):
        drawn = epoch if split.fresh_augmentation else 0
        order = np.random.default_rng([seed, epoch]).permutation(len(split.train))
        if len(order) % recipe.batch_size == 1:
            order = order[:-1]  # batch normalisation can't learn from a batch of one row
        rows = split.train[order]
        model.train()
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), device=device)
        for start, images in _batches(loader, rows, recipe.batch_size, drawn):
            target = _labels(labels, rows, start, len(images), device)
            with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), target)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss_sum += loss.detach() * len(images)
            correct += (logits.argmax(1) == target).sum()
        validation = predict_logits(model, loader, split.validation, precision=precision)
        target = torch.from_numpy(labels[split.validation.image])
        record = Epoch(
            epoch=epoch,
            train_loss=float(loss_sum) / len(rows),
            train_accuracy=float(correct) / len(rows),
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
    return history


@torch.inference_mode()
def predict_logits(model: nn.Module, loader: Loader, rows: Rows, *, precision: str) -> Tensor:
    """Return the [R, 2] float32 logits, on the CPU, of ``rows``, augmented as in epoch 0."""
    model.eval()
    device = next(model.parameters()).device
    outputs = []
    for _, images in _batches(loader, rows, PREDICT_BATCH, 0):
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            outputs.append(model(images).float())
    return torch.cat(outputs).cpu()


def _batches(loader: Loader, rows: Rows, batch_size: int, epoch: int) -> Iterator[tuple[int, Tensor]]:
    start = 0
    for images in loader.batches(rows, batch_size, epoch=epoch):
        yield start, images
        start += len(images)


def _labels(labels: np.ndarray, rows: Rows, start: int, count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(labels[rows.image[start : start + count]]).to(device)
