"""Decoding and resizing files to 300 x 300: DALI against a torchvision DataLoader of two worker processes.

Run both in one go and compare their ratio: ``make benchmark BUSI=DIR``.
"""

from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as tv

from fusion.decode import BATCH, HAVE_DALI, decode_and_resize

SIZE = 300
ROUNDS = 5


class Files(Dataset[Tensor]):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:  # torchvision's own decoder is deprecated in favour of others
            return tv.resize(tv.pil_to_tensor(image.convert("L")), [SIZE, SIZE], antialias=True)


@pytest.mark.benchmark(group="decode and resize")
def test_torchvision_two_workers(benchmark, busi_files):
    loader = DataLoader(Files(busi_files), batch_size=BATCH, num_workers=2, persistent_workers=True)
    images = benchmark.pedantic(lambda: sum(len(batch) for batch in loader), rounds=ROUNDS, warmup_rounds=1)
    assert images == len(busi_files)
    benchmark.extra_info["images"] = images


@pytest.mark.benchmark(group="decode and resize")
@pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")
def test_dali(benchmark, busi_files):
    def read_all() -> int:
        return sum(len(batch) for batch in decode_and_resize(busi_files, SIZE, "dali"))

    images = benchmark.pedantic(read_all, rounds=ROUNDS, warmup_rounds=1)
    assert images == len(busi_files)
    benchmark.extra_info["images"] = images
