"""Model 1's features: the pooled output of a frozen backbone, computed once and used by every classifier."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from torch import nn

from bench.step import predict_logits
from fusion.augment import Rows, expand
from fusion.checksums import require_intact
from fusion.errors import UserError
from fusion.files import content_hash, replacing_folder
from fusion.loaders import Loader
from fusion.prepared import Prepared

BACKBONE = "backbone.safetensors"
log = logging.getLogger(__name__)


def features_folder(run: Path, definition: dict[str, Any]) -> Path:
    """Return where in the folder of a run the features of a cell of Model 1 are kept.

    Args:
        run: the run's folder.
        definition: of the cell, see ``bench.cell.definition``; what decides its features names the folder.
    """
    identity = {key: definition[key] for key in ("format", "seed", "data_hash", "constants", "loader", "precision")}
    network = definition["cell"]["network"]
    identity |= {"network": network, "weights": definition["weights"]["start"]}
    return run / "features" / f"{network}-{content_hash(identity)[:12]}"


def features_of(
    model: nn.Module, loader: Loader, prepared: Prepared, rows: Rows, folder: Path, *, precision: str
) -> np.ndarray:
    """Return the [R, D] float32 features of ``rows``.

    The features of every row of the data set are computed at the first call and kept in ``folder``, with the backbone's
    weights beside them.

    Args:
        model: backbone without a classifier.
        loader: serves the pixels of a row.
        prepared: the data set.
        rows: rows wanted.
        folder: named by the hash of all that decides the features.
        precision: a key of ``bench.step.PRECISIONS``.

    Raises:
        UserError: the features can't be written.
    """
    everything = expand(prepared.catalog, np.arange(len(prepared.catalog)), augmented=True)
    path = folder / "features.safetensors"
    if not _intact(path):
        features = predict_logits(model, loader, everything, precision=precision).numpy()
        with replacing_folder(folder) as partial:
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_torch(state, partial / BACKBONE)
            save_file({"features": features}, partial / path.name)
    features = load_file(path)["features"]
    first = np.flatnonzero(everything.copy == 0)
    return features[first[rows.image] + rows.copy]


def _intact(path: Path) -> bool:
    """Return whether the features are there as they were written; damaged ones are computed again."""
    if not path.exists():
        return False
    try:
        require_intact(path, way_out="computed again")
    except UserError as error:
        log.warning("note: %s", error)
        return False
    return True
