"""Models that see almost nothing: what a score is worth is what it is above theirs.

They are cells like all others, trained on the same rows and judged on the same, and every run has them. The mammograms
come from one source and the ultrasound images from others, with their own share of malignant images: a model that only
knows where an image is from has learnt no anatomy, and yet has a score.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusion.augment import Rows
from fusion.catalog import MODALITIES
from fusion.loaders import BatchSpec, make_loader
from fusion.prepared import Prepared
from fusion.split import Split

THUMBNAIL = 8
"""Side of the thumbnail in pixels."""
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Where the rows of a run come from."""

    prepared: Prepared
    loader: str
    """A key of ``LOADERS``."""
    device: torch.device
    seed: int


def _nothing(source: Source, rows: Rows) -> np.ndarray:  # noqa: ARG001
    return np.zeros((len(rows), 1))


def _modality(source: Source, rows: Rows) -> np.ndarray:
    return _one_hot(source.prepared.catalog["modality"].to_numpy()[rows.image], MODALITIES)


def _source(source: Source, rows: Rows) -> np.ndarray:
    names = source.prepared.catalog["source"].to_numpy()
    return _one_hot(names[rows.image], sorted(set(names)))


def _thumbnail(source: Source, rows: Rows) -> np.ndarray:
    """Return the [R, 64] means of 8 x 8 tiles, in 0..1, of the pixels the loader gives for the rows."""
    spec = BatchSpec(seed=source.seed, mean=(0.0,), std=(1.0,), device=source.device)
    batches = make_loader(source.loader, source.prepared, spec).batches(rows, BATCH, epoch=0)
    return np.concatenate([F.adaptive_avg_pool2d(batch, THUMBNAIL).flatten(1).cpu().numpy() for batch in batches])


def _one_hot(values: np.ndarray, names: Any) -> np.ndarray:
    return (values[:, None] == np.array(names, dtype=object)).astype(np.float64)


def _regression() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a baseline sees of a row, and what learns from it."""

    features: Callable[[Source, Rows], np.ndarray]
    """[R, F] of rows."""
    estimator: Callable[[], Any]


BASELINES = {
    "majority": Baseline(features=_nothing, estimator=lambda: DummyClassifier(strategy="prior")),
    "modality": Baseline(features=_modality, estimator=_regression),
    "source": Baseline(features=_source, estimator=_regression),
    "thumbnail": Baseline(features=_thumbnail, estimator=_regression),
}
"""The share of malignant training rows; which modality; which data set; the image at 8 x 8 pixels."""


def fit_baseline(name: str, source: Source, split: Split) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Fit the baseline ``name`` on the training rows.

    As Model 1, it sees every training row once, with the augmentation of epoch 0.

    Returns:
        The probability of malignancy, [R] float64, of each test row, and what was learnt as named arrays:
        ``class_prior`` of the majority; ``mean``, ``scale``, ``coef`` and ``intercept`` of the others.
    """
    baseline = BASELINES[name]
    labels = source.prepared.catalog["label"].to_numpy()[split.train.image]
    train, test = (baseline.features(source, rows).astype(np.float64) for rows in (split.train, split.test))
    fitted = baseline.estimator().fit(train, labels)
    return fitted.predict_proba(test)[:, 1].astype(np.float64), _learnt(fitted)


def _learnt(fitted: Any) -> dict[str, np.ndarray]:
    if isinstance(fitted, DummyClassifier):
        arrays = {"class_prior": fitted.class_prior_}
    else:
        scaler, regression = (step for _, step in fitted.steps)
        arrays = {"mean": scaler.mean_, "scale": scaler.scale_}
        arrays |= {"coef": regression.coef_, "intercept": regression.intercept_}
    return {key: np.ascontiguousarray(value, dtype=np.float64) for key, value in arrays.items()}


def baseline_constants(name: str) -> list[Any]:
    """Return what decides the numbers of a baseline and is written in the code, for the hash of its cells."""
    return [repr(BASELINES[name].estimator()), THUMBNAIL]
