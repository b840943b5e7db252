"""What the benchmarks share: the device, images, networks, and a timer that waits for the GPU.

Decoding and loading read the real BUSI set in FUSEBENCH_BUSI where it is given, else phantoms of it. Networks read
random images: 300 px on a GPU, small ones on the CPU, so that the suite takes minutes there. Nothing else may run on
the machine: torch's threads wait spinning, and another process slows them tenfold (less under OMP_WAIT_POLICY=passive).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bench.environment import set_numerics
from bench.step import PRECISIONS
from bench.train import choose_precision
from fusion.catalog import ImageRecord, to_frame
from fusion.loaders import BatchSpec, ResidentLoader
from fusion.models import MODELS, build_model, normalisation
from fusion.prepare import prepare
from fusion.prepared import Prepared
from fusion.sources.busi import read_busi
from fusion.sources.phantom import write_phantom


@pytest.fixture(scope="session")
def device() -> torch.device:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_numerics(device)
    return device


@pytest.fixture(scope="session")
def precision(device: torch.device) -> str:
    return choose_precision(device)


@pytest.fixture
def timed(benchmark: Any, device: torch.device) -> Any:
    """Time ``work(rounds=, calls=)``: a round ends when the GPU has done all calls; one round before is not counted."""

    def run(work: Any, calls: int) -> Any:
        for _ in range(calls):
            result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    return lambda work, *, rounds, calls=1: benchmark.pedantic(run, args=(work, calls), rounds=rounds, warmup_rounds=1)


@pytest.fixture(scope="session")
def busi_records(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    root = os.environ.get("FUSEBENCH_BUSI")
    if not root:
        folder = tmp_path_factory.mktemp("phantom") / "data"
        write_phantom(folder, scale=0.1)
        root = str(folder / "busi")
    return read_busi(Path(root))[0]


@pytest.fixture(scope="session")
def busi_files(busi_records: list[ImageRecord]) -> list[Path]:
    """Files of BUSI that DALI decodes directly."""
    return [Path(path) for path in to_frame(busi_records)["path"]]


@pytest.fixture(scope="session")
def busi_prepared(busi_records: list[ImageRecord], tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """BUSI at 300 px."""
    return prepare(busi_records, tmp_path_factory.mktemp("prepared"), progress=lambda *_: None)


@pytest.fixture(scope="session")
def noise_prepared(device: torch.device) -> Prepared:
    """128 random images: 300 px on a GPU; on the CPU 96 px, which every network can take."""
    size = 300 if device.type == "cuda" else 96
    images_u8 = np.random.default_rng(0).integers(256, size=(128, 1, size, size), dtype=np.uint8)
    catalog = pd.DataFrame({"modality": "ultrasound", "label": np.arange(128) % 2})
    masks_u8 = np.zeros((0, *images_u8.shape[2:]), dtype=np.uint8)
    return Prepared(
        root=Path(),
        catalog=catalog,
        images_u8=images_u8,
        masks_u8=masks_u8,
        manifest={},
        duplicates=pd.DataFrame(),
    )


@pytest.fixture(params=MODELS)
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(network: str, noise_prepared: Prepared, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(network, "random", noise_prepared.image_size).to(device, memory_format=torch.channels_last)


@pytest.fixture
def resident(network: str, noise_prepared: Prepared, device: torch.device, precision: str) -> ResidentLoader:
    mean, std = normalisation(network)
    spec = BatchSpec(seed=0, mean=mean, std=std, device=device, dtype=PRECISIONS[precision])
    return ResidentLoader(noise_prepared, spec)
