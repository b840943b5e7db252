from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from fusion import models
from fusion.errors import UserError
from fusion.models import MODELS, backbones, build_model, normalisation, require_size
from fusion.models.backbones import BACKBONES, build_backbone, weights_identity
from fusion.models.cnn17 import LAYERS, Cnn17, feature_side

MOBILENET = BACKBONES["mobilenet_v2"].timm_name
FEATURES = {
    "efficientnet_b0": 1280,
    "inception_v3": 2048,
    "mobilenet_v2": 1280,
    "resnet50": 2048,
    "resnet101": 2048,
}


def on_meta(name: str, classes: int = 2) -> nn.Module:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return build_backbone(name, "random", classes=classes).eval()


def output_shape(model: nn.Module, size: int, channels: int = 3) -> tuple[int, ...]:
    return tuple(model(torch.empty(2, channels, size, size, device="meta")).shape)


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Return MobileNetV2 with 1000 classes, as a hub file holds it."""
    torch.manual_seed(5)
    return dict(timm.create_model(MOBILENET, pretrained=False).state_dict())


@pytest.fixture
def folder(tmp_path: Path, trained: dict[str, Tensor]) -> Path:
    save_file(trained, tmp_path / f"{MOBILENET}.safetensors")
    return tmp_path


def test_cnn17_has_the_17_layers_and_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        model = Cnn17(300)
    state = [*model.parameters(), *model.buffers()]
    mebibytes = sum(tensor.numel() * 4 for tensor in state) / 2**20
    assert mebibytes == pytest.approx(678.9, rel=0.01)
    assert feature_side(300) == 68
    built = Counter(type(module).__name__ for module in model.modules() if not list(module.children()))
    assert built == {"Conv2d": 3, "BatchNorm2d": 3, "ReLU": 4, "MaxPool2d": 2, "Linear": 2}
    assert len(LAYERS) == 17
    named = {"Conv2d": "convolution", "BatchNorm2d": "batch normalisation", "ReLU": "ReLU", "MaxPool2d": "max-pooling"}
    names = {**named, "Linear": "fully connected"}
    told = Counter(LAYERS)
    assert {names[kind]: count for kind, count in built.items()} == {name: told[name] for name in names.values()}
    assert all(told[name] == 1 for name in ("input", "softmax", "output"))


@pytest.mark.parametrize("size", [32, 33, 80])
def test_cnn17_runs_forward_and_backward(size: int) -> None:
    torch.manual_seed(0)
    model = build_model("cnn17", "random", size)
    logits = model(torch.randn(3, 1, size, size))
    assert logits.shape == (3, 2)
    logits.sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())
    assert feature_side(size) >= 1


def test_cnn17_refuses_images_that_would_vanish() -> None:
    assert feature_side(31) < 1
    with pytest.raises(UserError, match="cnn17 needs images of 32 px or more; the data set has 31"):
        build_model("cnn17", "random", 31)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_two_outputs_or_pooled_features(name: str) -> None:
    assert output_shape(on_meta(name), 300) == (2, 2)
    assert output_shape(on_meta(name, classes=0), 300) == (2, FEATURES[name])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_are_as_large_as_torchvisions(name: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        expected = parameters_of(torchvision.models.get_model(name, weights=None, **options))
    assert parameters_of(on_meta(name, classes=1000)) == expected


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_take_their_smallest_image_and_no_smaller(name: str) -> None:
    minimum = BACKBONES[name].minimum_size
    assert output_shape(on_meta(name), minimum) == (2, 2)
    require_size(name, minimum)
    with pytest.raises(UserError, match=f"{name} needs images of {minimum} px or more; the data set has {minimum - 1}"):
        build_model(name, "random", minimum - 1)


def test_random_weights_follow_the_seed() -> None:
    first, second, third = (_seeded(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv_stem.weight"], third["conv_stem.weight"])


def _seeded(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("mobilenet_v2", "random", 32)


@pytest.mark.parametrize("name", BACKBONES)
def test_normalisation_is_what_the_weights_were_trained_with(name: str) -> None:
    config = timm.get_pretrained_cfg(BACKBONES[name].timm_name)
    assert config is not None
    assert normalisation(name) == (config.mean, config.std)


def test_normalisation_of_cnn17_is_one_channel() -> None:
    assert normalisation("cnn17") == ((0.5,), (0.5,))


def test_unknown_model() -> None:
    with pytest.raises(UserError, match=r"model 'vgg16' is unknown; choose from .*resnet50.*cnn17"):
        build_model("vgg16", "random", 300)


def test_every_model_has_its_cost() -> None:
    assert set(models.FORWARD_GMACS) == set(MODELS) == {*FEATURES, "cnn17"}


def test_weights_of_a_folder_are_loaded_but_for_the_classifier(folder: Path, trained: dict[str, Tensor]) -> None:
    model = build_backbone("mobilenet_v2", str(folder))
    state = model.state_dict()
    body = [key for key in state if not key.startswith("classifier.")]
    assert len(body) == len(trained) - 2
    assert all(torch.equal(state[key], trained[key]) for key in body)
    assert state["classifier.weight"].shape == (2, 1280)
    features = build_backbone("mobilenet_v2", str(folder), classes=0).eval()
    assert features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280)


def test_a_file_need_not_count_batches_nor_hold_a_classifier(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    kept = {
        key: value
        for key, value in trained.items()
        if not key.endswith("num_batches_tracked") and not key.startswith("classifier.")
    }
    save_file(kept, tmp_path / f"{MOBILENET}.safetensors")
    state = build_backbone("mobilenet_v2", str(tmp_path)).state_dict()
    assert all(torch.equal(state[key], kept[key]) for key in kept)


def refuse(folder: Path, message: str, name: str = "mobilenet_v2") -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(name, str(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_or_file_is_named(folder: Path) -> None:
    refuse(folder / "nowhere", "nowhere' is no folder; choose imagenet, random or a folder of safetensors files")
    refuse(folder / f"{MOBILENET}.safetensors", "is no folder")
    refuse(folder, r"resnet50\.tv_in1k\.safetensors is missing; a folder of weights holds efficientnet", "resnet50")


@pytest.mark.parametrize("key", ["blocks.0.0.bn1.weight", "bn1.num_batches_tracked"])
def test_a_tensor_of_another_shape_is_named(tmp_path: Path, trained: dict[str, Tensor], key: str) -> None:
    path = tmp_path / f"{MOBILENET}.safetensors"
    save_file({**trained, key: torch.zeros(3, 5)}, path)
    refuse(tmp_path, f"{MOBILENET}.safetensors does not fit {MOBILENET}: 1 tensors missing.*'{key}'")


def test_a_missing_tensor_is_named(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / f"{MOBILENET}.safetensors"
    save_file({key: value for key, value in trained.items() if key != "conv_stem.weight"}, path)
    refuse(tmp_path, "1 tensors missing or of another shape, 0 unknown, e.g. 'conv_stem.weight'")


def test_an_unknown_tensor_is_named(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    save_file({**trained, "strange.weight": torch.zeros(2)}, tmp_path / f"{MOBILENET}.safetensors")
    refuse(tmp_path, "0 tensors missing or of another shape, 1 unknown, e.g. 'strange.weight'")


def test_weights_of_another_network_do_not_fit(folder: Path) -> None:
    other = BACKBONES["resnet50"].timm_name
    (folder / f"{MOBILENET}.safetensors").rename(folder / f"{other}.safetensors")
    refuse(folder, f"{other}.safetensors does not fit {other}", "resnet50")


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", b"\xff" * 64, b"\x80\x00\x00\x00\x00\x00\x00\x00{", b"<html>\n" * 40]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{MOBILENET}.safetensors").write_bytes(content)
    refuse(tmp_path, f"{MOBILENET}.safetensors is not a readable safetensors file")


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / f"{MOBILENET}.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    refuse(folder, f"{MOBILENET}.safetensors is not a readable safetensors file")


@pytest.fixture(autouse=True)
def ask_the_hub_anew() -> None:
    backbones._hub_file.cache_clear()


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("a proxy's page")])
def test_without_network_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: str) -> str:
        raise error

    monkeypatch.setattr(backbones, "hf_hub_download", fail)
    with pytest.raises(UserError, match=f"repository timm/{MOBILENET}.*--weights FOLDER") as caught:
        build_model("mobilenet_v2", "imagenet", 300)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_come_from_the_hub(
    folder: Path, trained: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def download(*what: str) -> str:
        asked.append(what)
        return str(folder / f"{MOBILENET}.safetensors")

    monkeypatch.setattr(backbones, "hf_hub_download", download)
    state = build_model("mobilenet_v2", "imagenet", 300).state_dict()
    assert asked == [(f"timm/{MOBILENET}", "model.safetensors")]
    assert torch.equal(state["conv_stem.weight"], trained["conv_stem.weight"])


def test_the_identity_of_weights_is_their_content(folder: Path, trained: dict[str, Tensor]) -> None:
    assert weights_identity("mobilenet_v2", "random") == "random"
    assert weights_identity("mobilenet_v2", "imagenet") == f"imagenet:{MOBILENET}"
    first = weights_identity("mobilenet_v2", str(folder))
    assert weights_identity("mobilenet_v2", str(folder)) == first
    path = folder / f"{MOBILENET}.safetensors"
    save_file({**trained, "bn1.bias": trained["bn1.bias"] + 1}, path)
    assert weights_identity("mobilenet_v2", str(folder)) != first
    with pytest.raises(UserError, match="is missing"):
        weights_identity("resnet50", str(folder))
