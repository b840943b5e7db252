"""An epoch of augmented 300 x 300 batches from the same files: the resident array, DALI, torchvision's DataLoader.

Run all in one go and compare their ratios: ``make benchmark BUSI=DIR``. Not counted are the preparation of the array
and a first epoch, which builds DALI's pipeline and starts torchvision's two worker processes.
"""

import numpy as np
import pytest

from bench.step import PRECISIONS
from fusion.augment import expand
from fusion.decode import HAVE_DALI
from fusion.loaders import BatchSpec, make_loader
from fusion.models import normalisation

BATCH = 30
ROUNDS = 3
CPU_ROWS = 600
"""Rows of an epoch on the CPU; a GPU is given all there are."""


@pytest.mark.parametrize(
    "name",
    [
        "resident",
        pytest.param("dali", marks=pytest.mark.skipif(not HAVE_DALI, reason="DALI is not installed")),
        "torchvision",
    ],
)
def test_epoch(benchmark, timed, busi_prepared, device, precision, name):
    mean, std = normalisation("resnet50")
    spec = BatchSpec(seed=0, mean=mean, std=std, device=device, dtype=PRECISIONS[precision])
    loader = make_loader(name, busi_prepared, spec)
    rows = expand(busi_prepared.catalog, np.arange(len(busi_prepared.catalog)), augmented=True)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[: CPU_ROWS if device.type == "cpu" else None]]
    benchmark.group = f"loading: an epoch of {len(rows)} rows at {busi_prepared.image_size} px"
    served = timed(lambda: sum(len(batch) for batch in loader.batches(rows, BATCH, epoch=0)), rounds=ROUNDS)
    assert served == len(rows)
    benchmark.extra_info["rows"] = served
