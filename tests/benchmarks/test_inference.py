"""Predicting 128 augmented rows from a resident array, every network; the logits come back, so it waits for the GPU."""

import numpy as np

from bench.step import predict_logits
from fusion.augment import Rows

ROWS = 128
ROUNDS = 3


def test_predict(benchmark, timed, model, resident, precision):
    benchmark.group = f"inference: {ROWS} rows at {resident.images_u8.shape[-1]} px"
    rows = Rows(np.arange(ROWS), np.ones(ROWS, dtype=np.int64))
    logits = timed(lambda: predict_logits(model, resident, rows, precision=precision), rounds=ROUNDS)
    assert logits.shape == (ROWS, 2)
