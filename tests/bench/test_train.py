import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.step import PREDICT_BATCH, predict_logits
from bench.train import L2, ON_GPU, OPTIMIZERS, Epoch, Recipe, choose_precision, train
from fusion.augment import Rows
from fusion.errors import UserError
from fusion.split import Split

SIDE = 4


class MemoryLoader:
    """Serves images from memory and notes every call; copies are served like their image."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.calls: list[tuple[int, int]] = []
        self.served: list[list[int]] = []
        self.batch_sizes: list[list[int]] = []

    def batches(self, rows: Rows, batch_size: int, *, epoch: int) -> Iterator[Tensor]:
        self.calls.append((batch_size, epoch))
        self.served.append(rows.image.tolist())
        self.batch_sizes.append([])
        for start in range(0, len(rows), batch_size):
            batch = self.images[torch.from_numpy(rows.image[start : start + batch_size])]
            self.batch_sizes[-1].append(len(batch))
            yield batch


class Pooled(nn.Sequential):
    """Global pooling and a linear layer, started from a seed."""

    def __init__(self, *middle: nn.Module, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *middle, nn.Linear(1, 2))


def textures(rows: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Return [R, 1, S, S] images whose mean tells their label."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    images = draw.standard_normal((rows, 1, SIDE, SIDE)) + (2 * labels - 1)[:, None, None, None]
    return torch.from_numpy(images.astype(np.float32)), labels


def rows_of(images: range) -> Rows:
    return Rows(np.array(images, dtype=np.int64), np.zeros(len(images), dtype=np.int64))


def split_of(train_rows: range, validation: range, *, fresh: bool = False) -> Split:
    watched = rows_of(validation)
    return Split(train=rows_of(train_rows), validation=watched, test=watched, fresh_augmentation=fresh)


def recipe_of(**changes: Any) -> Recipe:
    return Recipe(**{**dict(optimizer="sgdm", learning_rate=0.1, epochs=5, batch_size=8, patience=0), **changes})  # noqa: C408


def fit(
    model: nn.Module, loader: MemoryLoader, split: Split, labels: np.ndarray, recipe: Recipe, **changes: Any
) -> list[Epoch]:
    told: list[Epoch] = []
    trained = train(
        model, loader, split, labels, recipe, **{"seed": 0, "precision": "fp32", "progress": told.append, **changes}
    )
    history = trained.history
    assert told == history
    assert trained.steps.setup_s == 0
    assert [epoch.epoch for epoch in history] == list(range(1, len(history) + 1))
    return history


def validation_loss(model: nn.Module, loader: MemoryLoader, split: Split, labels: np.ndarray) -> float:
    logits = predict_logits(model, loader, split.validation, precision="fp32")
    return float(F.cross_entropy(logits, torch.from_numpy(labels[split.validation.image])))


# -- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "rate"), [("sgdm", 0.1), ("adam", 0.05), ("rmsprop", 0.05)])
def test_every_optimizer_learns(optimizer: str, rate: float) -> None:
    images, labels = textures(64)
    recipe = recipe_of(optimizer=optimizer, learning_rate=rate)
    history = fit(Pooled(), MemoryLoader(images), split_of(range(48), range(48, 64)), labels, recipe)
    assert history[-1].train_loss < 0.8 * history[0].train_loss
    assert history[-1].train_accuracy > 0.9
    assert history[-1].validation_accuracy > 0.9
    assert {epoch.learning_rate for epoch in history} == {rate}


def test_a_history_holds_means_over_all_rows() -> None:
    images, labels = textures(14)
    model = Pooled()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loader, split = MemoryLoader(images), split_of(range(10), range(10, 14))
    recipe = recipe_of(epochs=1, batch_size=4, learning_rate=1e-12)
    (epoch,) = fit(model, loader, split, labels, recipe)
    model.load_state_dict(before)
    logits = predict_logits(model, loader, rows_of(range(14)), precision="fp32")
    losses = F.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()
    hits = logits.argmax(1).numpy() == labels
    assert loader.batch_sizes[0] == [4, 4, 2]
    assert asdict(epoch) == pytest.approx(
        {
            "epoch": 1,
            "train_loss": losses[:10].mean(),
            "train_accuracy": hits[:10].mean(),
            "validation_loss": losses[10:].mean(),
            "validation_accuracy": hits[10:].mean(),
            "learning_rate": 1e-12,
        },
        rel=1e-5,
    )


def overfitting() -> tuple[MemoryLoader, Split, np.ndarray, Pooled]:
    """Validation labels are wrong in one of five, and the start is wrong: its loss first falls and then rises."""
    images, labels = textures(140)
    labels[100::5] = 1 - labels[100::5]
    model = Pooled()
    with torch.no_grad():
        model[-1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    return MemoryLoader(images), split_of(range(100), range(100, 140)), labels, model


@pytest.mark.parametrize("patience", [1, 4])
def test_training_stops_after_patience_and_restores_the_best_weights(patience: int) -> None:
    loader, split, labels, model = overfitting()
    recipe = recipe_of(epochs=200, batch_size=50, learning_rate=0.3, patience=patience)
    history = fit(model, loader, split, labels, recipe)
    losses = [epoch.validation_loss for epoch in history]
    best = int(np.argmin(losses))
    assert best > 0
    assert len(history) == best + 1 + patience
    assert losses[-1] > losses[best]
    assert validation_loss(model, loader, split, labels) == pytest.approx(losses[best], rel=1e-6)


def test_without_patience_training_goes_on_to_the_end_and_still_restores() -> None:
    loader, split, labels, model = overfitting()
    history = fit(model, loader, split, labels, recipe_of(epochs=40, batch_size=50, learning_rate=0.3))
    losses = [epoch.validation_loss for epoch in history]
    assert len(history) == 40
    assert np.argmin(losses) < 30
    assert validation_loss(model, loader, split, labels) == pytest.approx(min(losses), rel=1e-6)


def test_batch_statistics_are_restored_with_the_weights() -> None:
    images, labels = textures(40)
    loader, split = MemoryLoader(images), split_of(range(30), range(30, 40))
    labels[30:] = 1 - labels[30:]
    model = Pooled(nn.BatchNorm1d(1))
    history = fit(model, loader, split, labels, recipe_of(epochs=6, batch_size=10))
    assert min(range(6), key=lambda i: history[i].validation_loss) < 5
    assert int(model[2].num_batches_tracked) < 6 * 3
    losses = [epoch.validation_loss for epoch in history]
    assert validation_loss(model, loader, split, labels) == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("spoilt", [0, 9])
def test_a_loss_that_is_not_finite_is_refused(value: float, spoilt: int) -> None:
    images, labels = textures(12)
    images[spoilt] = value
    with pytest.raises(UserError, match=r"loss is not finite in epoch 1 .* lower learning rate than 0\.1 may help"):
        fit(Pooled(), MemoryLoader(images), split_of(range(8), range(8, 12)), labels, recipe_of())


# -- what the loader is asked for ------------------------------------------------------------------------------------


def test_a_last_batch_of_one_row_is_left_out_of_training_alone() -> None:
    images, labels = textures(9 + PREDICT_BATCH + 1)
    loader, split = MemoryLoader(images), split_of(range(9), range(9, 9 + PREDICT_BATCH + 1))
    fit(Pooled(nn.BatchNorm1d(1)), loader, split, labels, recipe_of(epochs=4, batch_size=4))
    assert loader.batch_sizes == [[4, 4], [PREDICT_BATCH, 1]] * 4
    trained = loader.served[::2]
    assert all(len(set(rows)) == 8 for rows in trained)
    assert len({*range(9)} - set.intersection(*map(set, trained))) > 1  # not the same row every time
    assert all(rows == list(range(9, 9 + PREDICT_BATCH + 1)) for rows in loader.served[1::2])


def test_every_row_is_trained_on_once_an_epoch_in_an_order_of_its_own() -> None:
    images, labels = textures(20)
    loader = MemoryLoader(images)
    fit(Pooled(), loader, split_of(range(16), range(16, 20)), labels, recipe_of(epochs=3, batch_size=6))
    orders = loader.served[::2]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(("fresh", "trained"), [(True, [1, 2, 3]), (False, [0, 0, 0])])
def test_augmentation_is_fresh_in_training_and_never_in_prediction(fresh: bool, trained: list[int]) -> None:
    images, labels = textures(12)
    loader = MemoryLoader(images)
    fit(Pooled(), loader, split_of(range(8), range(8, 12), fresh=fresh), labels, recipe_of(epochs=3, batch_size=4))
    assert loader.calls[::2] == [(4, epoch) for epoch in trained]
    assert loader.calls[1::2] == [(PREDICT_BATCH, 0)] * 3


def test_predictions_are_in_the_order_of_the_rows_and_leave_the_model_as_it_is() -> None:
    images, _ = textures(2 * PREDICT_BATCH + 3)
    model = Pooled(nn.BatchNorm1d(1), nn.Dropout(0.5))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    order = np.random.default_rng(0).permutation(len(images))
    logits = predict_logits(model, MemoryLoader(images), rows_of(range(len(images)))[order], precision="fp32")
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, model.eval()(images[order]), atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# -- repeating -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    images, labels = textures(40)
    split = split_of(range(30), range(30, 40))

    def once(seed: int) -> tuple[list[Epoch], Tensor]:
        model = Pooled()
        return fit(model, MemoryLoader(images), split, labels, recipe_of(), seed=seed), model[-1].weight

    (first, weight), (again, same), (other, _) = once(3), once(3), once(4)
    assert first == again
    assert torch.equal(weight, same)
    assert first != other


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, r"optimizer 'lion' is unknown; choose from sgdm, adam, rmsprop"),
        ({"optimizer": ["sgdm"]}, r"optimizer \['sgdm'\] is unknown; choose from sgdm, adam, rmsprop"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 is not a number above 0"),
        ({"learning_rate": -1}, "learning_rate -1 is not a number above 0"),
        ({"learning_rate": math.inf}, "learning_rate inf is not a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate nan is not a number above 0"),
        ({"learning_rate": "0.1"}, "learning_rate '0.1' is not a number above 0"),
        ({"learning_rate": True}, "learning_rate True is not a number above 0"),
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 to 100000"),
        ({"epochs": 1.0}, "epochs 1.0 is not a whole number"),
        ({"epochs": True}, "epochs True is not a whole number"),
        ({"batch_size": 1}, "batch_size 1 is not a whole number from 2 to 65536"),
        ({"batch_size": "8"}, "batch_size '8' is not a whole number"),
        ({"patience": -1}, "patience -1 is not a whole number from 0"),
    ],
)
def test_a_faulty_recipe_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(**change)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgdm", torch.optim.SGD, {"momentum": 0.9, "dampening": 0, "nesterov": False}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}),
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-8, "momentum": 0, "centered": False}),
    ],
)
def test_the_optimizers_are_the_papers(
    name: str, kind: type[torch.optim.Optimizer], settings: dict[str, object]
) -> None:
    optimizer = OPTIMIZERS[name]([nn.Parameter(torch.zeros(1))], lr=0.001)
    assert type(optimizer) is kind
    assert ON_GPU[name].keys() <= optimizer.defaults.keys()
    assert L2 == 1e-4
    for key, value in {"lr": 0.001, "weight_decay": 1e-4, **settings}.items():
        assert optimizer.defaults[key] == value, key


# -- precision -------------------------------------------------------------------------------------------------------


def test_the_cpu_is_fp32_unless_asked() -> None:
    assert choose_precision(torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_is_bf16_where_it_has_it(monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert choose_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_computation(precision: str, dtype: torch.dtype) -> None:
    images, labels = textures(64)
    model, loader, split = Pooled(), MemoryLoader(images), split_of(range(48), range(48, 64))
    seen = set()
    model.register_forward_hook(lambda _model, _inputs, output: seen.add(output.dtype))
    history = fit(model, loader, split, labels, recipe_of(), precision=precision)
    assert seen == {dtype}
    assert history[-1].train_loss < 0.8 * history[0].train_loss
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert predict_logits(model, loader, split.test, precision=precision).dtype == torch.float32
