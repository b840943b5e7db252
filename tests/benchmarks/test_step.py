"""A training pass of a few batches: every network, every kind of step, the loader beside a batch that is already there.

Networks start random and the images are noise, which cost what any others cost. A pass ends by reading its loss, so it
waits for the GPU. Graph and compiled steps are captured before the timing starts.
"""

import math

import numpy as np
import pytest
import torch

from bench.loader_bound import StaticLoader
from bench.step import EagerSteps, GraphSteps
from bench.train import ON_GPU, OPTIMIZERS
from fusion.augment import Rows

BATCHES = 4
ROUNDS = 5
OPTIMIZER = "sgdm"

gpu_only = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.mark.parametrize("source", ["resident", "static"])
@pytest.mark.parametrize(
    "kind", ["eager", pytest.param("graph", marks=gpu_only), pytest.param("compiled", marks=gpu_only)]
)
def test_training_pass(benchmark, timed, network, model, noise_prepared, resident, precision, kind, source):
    gpu = resident.spec.device.type == "cuda"
    batch_size = 30 if gpu else 8
    benchmark.group = f"training: {network}, {BATCHES} batches of {batch_size} at {resident.images_u8.shape[-1]} px"
    image = np.arange(BATCHES * batch_size)
    rows, labels = Rows(image, np.ones_like(image)), noise_prepared.catalog["label"].to_numpy()
    loader = resident if source == "resident" else StaticLoader(noise_prepared, resident.spec, batch_size)
    optimizer = OPTIMIZERS[OPTIMIZER](list(model.parameters()), lr=1e-4, **(ON_GPU[OPTIMIZER] if gpu else {}))
    how = {"batch_size": batch_size, "precision": precision}
    if kind == "eager":
        steps = EagerSteps(model, loader, labels, optimizer, **how)
    else:
        steps = GraphSteps(model, loader, labels, optimizer, capacity=len(rows), compiled=kind == "compiled", **how)
    loss, _ = timed(lambda: steps.train(rows, epoch=0), rounds=ROUNDS)
    assert math.isfinite(loss)
    benchmark.extra_info["setup_s"] = steps.setup_s
