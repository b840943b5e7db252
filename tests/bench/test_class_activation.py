"""Grad-CAM against its formula, and the place of each network's cells against the gradients of the network."""

import pytest
import torch
from torch import Tensor, nn

from bench.class_activation import FEATURE_MAPS, FeatureMap, class_activation, even_map, placed
from fusion.models import MODELS, build_model
from fusion.models.classifier import Body, Classifier, SoftmaxHead, trained_classifier

COPY = FeatureMap(layer="copy", stride=1, first=0)
NETWORKS = ["mobilenet_v2", "resnet50", "efficientnet_b0", "inception_v3", "cnn17"]


class Copying(nn.Module):
    """Two channels, the image and its negative; the malignant logit is ``weight`` times the mean of the first."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.copy = nn.Conv2d(1, 2, 1, bias=False)
        self.copy.weight.data = torch.tensor([1.0, -1.0])[:, None, None, None]
        self.last = nn.Linear(2, 2, bias=False)
        self.last.weight.data = torch.tensor([[0.0, 5.0], [weight, 0.0]])

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.last(self.copy(pixels).mean(dim=(2, 3)))
        return logits


def copying(weight: float) -> Classifier:
    return Classifier(Body(Copying(weight), (0.0,), (1.0,)), SoftmaxHead()).eval()


@pytest.mark.parametrize("weight", [3.0, -3.0])
def test_a_network_that_copies_its_image_is_explained_by_the_image(weight: float) -> None:
    images_u8 = torch.randint(0, 256, (3, 1, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps, even = class_activation(copying(weight), COPY, images_u8)
    assert (even == 1).all()
    expected = images_u8[:, 0] / 255 * max(weight, 0.0) / 49  # the gradient of a mean over 49 pixels
    assert maps.shape == (3, 7, 7)
    torch.testing.assert_close(maps, expected)


def trained(name: str, size: int) -> Classifier:
    torch.manual_seed(0)
    return trained_classifier(name, build_model(name, "random", size).state_dict(), size)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_map_is_the_formula_of_selvaraju(name: str) -> None:
    size, row = 96, FEATURE_MAPS[name]
    classifier = trained(name, size)
    images_u8 = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    kept: list[Tensor] = []
    layer = classifier.body.network.get_submodule(row.layer)
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    features = classifier.body(images_u8)
    logits = classifier.head[0](features) if isinstance(classifier.head, nn.Sequential) else features
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept[0])
    handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cells = torch.relu((weights * kept[0]).sum(dim=1, keepdim=True)).detach()
    torch.testing.assert_close(class_activation(classifier, row, images_u8)[0], placed(cells, row, size))


def test_every_network_has_a_row() -> None:
    assert set(FEATURE_MAPS) == set(MODELS)


def evened(network: nn.Module) -> nn.Module:
    """Make a network an average of its pixels: its gradients show the geometry alone."""
    for name, module in list(network.named_modules()):
        kind = type(module).__name__
        parent = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d):
            module.weight.data.fill_(1 / module.weight[0].numel())
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.MaxPool2d):
            pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
            setattr(parent, name.rpartition(".")[2], pool)
        elif kind in ("SqueezeExcite", "ReLU", "SiLU", "BatchNorm2d", "BatchNormAct2d"):
            if isinstance(module, nn.BatchNorm2d) and name.rpartition(".")[2] == "bn2" and parent is network:
                module.register_forward_hook(lambda _module, inputs, _output: inputs[0])  # the layer itself must stay
            else:
                setattr(parent, name.rpartition(".")[2], nn.Identity())
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_lie_where_their_receptive_fields_are_centred(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.functional, "max_pool2d", nn.functional.avg_pool2d)  # which Inception calls
    row, cells = FEATURE_MAPS[name], 13
    size = int(2 * row.first + 1 + row.stride * (cells - 1))  # the middle cell is that of the image, so nothing is cut
    network = evened(build_model(name, "random", size)).eval()
    kept: list[Tensor] = []
    network.get_submodule(row.layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    pixels = torch.rand(1, 1 if name == "cnn17" else 3, size, size, requires_grad=True)
    network(pixels)
    assert kept[0].shape[-1] == cells
    cell = cells // 2
    (gradient,) = torch.autograd.grad(kept[0][0, :, cell, cell].sum(), pixels)
    weights = gradient[0].sum(dim=(0, 1)).abs()
    centre = float((weights * torch.arange(size)).sum() / weights.sum())
    assert centre == pytest.approx(row.first + row.stride * cell, abs=0.1)


def test_a_map_covers_its_cells_and_no_more() -> None:
    expected = torch.zeros(80, 80)
    expected[14:66, 14:66] = 1  # 13 cells of 4 pixels, as the convolutions are not padded
    torch.testing.assert_close(even_map(FEATURE_MAPS["cnn17"], (13, 13), 80), expected)
    torch.testing.assert_close(even_map(FEATURE_MAPS["resnet50"], (10, 10), 300), torch.ones(300, 300))
    assert even_map(FEATURE_MAPS["inception_v3"], (1, 1), 80).sum() == 33**2


def test_a_cell_lies_where_it_is_centred() -> None:
    row = FeatureMap(layer="", stride=4, first=15.5)
    cells = torch.zeros(1, 1, 13, 13)
    cells[0, 0, 3, 6] = 1  # row 3 is centred on pixel 27.5, column 6 on 39.5
    weights = placed(cells, row, 80)[0]
    assert float((weights.sum(dim=1) * torch.arange(80)).sum() / weights.sum()) == pytest.approx(27.5)
    assert float((weights.sum(dim=0) * torch.arange(80)).sum() / weights.sum()) == pytest.approx(39.5)


def test_the_network_predicts_the_same_when_it_is_explained() -> None:
    classifier = trained("mobilenet_v2", 64)
    images_u8 = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    before = classifier(images_u8).detach()
    class_activation(classifier, FEATURE_MAPS["mobilenet_v2"], images_u8)
    assert (classifier(images_u8).detach() == before).all()
