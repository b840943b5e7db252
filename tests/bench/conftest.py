"""A small data set of two textures, prepared at 32 px, and the smallest matrix that has a cell of every kind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fusion.prepare import Prepared, load_prepared, prepare
from fusion.sources.folder import read_folder

TINY = """
name = "tiny"
weights = "random"
protocols = ["paper"]
seeds = [0]

[model1]
backbones = ["mobilenet_v2"]
classifiers = ["lr", "nb", "svm"]

[model2]
backbones = ["mobilenet_v2"]
optimizers = ["sgdm"]
learning_rate = 0.001
epochs = 1
batch_size = 30
patience = 5

[model3]
optimizer = "sgdm"
learning_rate = 0.001
epochs = [1, 2]
batch_sizes = [8]
patience = 5

[ablation]
modalities = ["ultrasound", "mammography", "fused"]
optimizer = "sgdm"
learning_rate = 0.001
epochs = 1
batch_size = 8
patience = 5
"""


def write_textures(root: Path, seed: int, per_class: int = 15) -> Path:
    """Write ``root/{ultrasound,mammography}/{benign,malignant}/``: blobs are benign, grains malignant."""
    draw = np.random.default_rng(seed)
    for modality in ("ultrasound", "mammography"):
        for name, blur in (("benign", 4.0), ("malignant", 1.0)):
            folder = root / modality / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                field = gaussian_filter(draw.standard_normal((40, 40)), blur)
                grey = 128 + 40 * field / field.std()
                Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root


def prepare_textures(folder: Path, seed: int) -> Path:
    records, notes = read_folder("tiny", write_textures(folder / "raw", seed))
    prepare(records, folder / "data", image_size=32, decoder="torchvision", notes=notes, progress=lambda *_: None)
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared data set: 60 images, 15 of every modality and class."""
    return prepare_textures(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def tiny_prepared(tiny_data: Path) -> Prepared:
    return load_prepared(tiny_data)


@pytest.fixture(scope="session")
def other_prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A data set of the same counts and other pixels."""
    return load_prepared(prepare_textures(tmp_path_factory.mktemp("other"), seed=1))


@pytest.fixture(scope="session")
def tiny_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix of three cells of Model 1, one of Model 2, two of Model 3, and the ablation."""
    path = tmp_path_factory.mktemp("matrix") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path
