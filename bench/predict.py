"""An exported model on image files from anywhere, through the preprocessing it was trained with."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from bench.classify import BatchClassifier, decode
from bench.metrics import decide
from bench.onnx_file import CLASSES, read_onnx
from bench.report.notes import RANDOM_WEIGHTS, phantom_notes
from bench.sessions import RefusedError, open_onnx
from bench.store import DEFINITION
from fusion.checksums import require_intact
from fusion.cores import cpu_count
from fusion.errors import UserError

BATCH = 32
COLUMNS = ("file", "probability", "decision", "reason")


def predict(
    model: Path, files: Sequence[Path], progress: Callable[[int], None] = lambda _: None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Classify image files with an exported model, on the CPU.

    Args:
        model: a file of ``fusebench measure``.
        files: images of any size, of any format ``fusion.images`` reads.
        progress: called with the number of files that are done.

    Returns:
        One line per file in their order, with ``COLUMNS``: the probability of malignancy and the decision, benign or
        malignant; for a file that can't be read neither, but the reason. And what must be known of the model.

    Raises:
        UserError: the model is not what an exported file promises to be, or can't be run.
    """
    if (model.parent / DEFINITION).exists():  # in the cell's folder; a file that was copied elsewhere has no checksum
        require_intact(model, way_out="delete it and call 'fusebench measure' again")
    exported = read_onnx(model)
    try:
        session = open_onnx(exported.path, "onnxruntime-cpu", exported.precision, exported.image_size)
        classifier = BatchClassifier(session, min(BATCH, max(len(files), 1)), exported.image_size)
    except (RefusedError, RuntimeError, MemoryError) as error:
        raise UserError(f"{model}: can't be run: {' '.join(str(error).split())[:200]}") from None
    lines: list[dict[str, object]] = []
    with ThreadPoolExecutor(cpu_count()) as threads:
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            decoded = list(threads.map(lambda file: _decoded(file, exported.image_size), part))
            images = [one for one in decoded if isinstance(one, np.ndarray)]
            given = classifier.probabilities([np.stack(images)] if images else [])
            if not ((given >= 0) & (given <= 1)).all():
                raise UserError(f"{model}: its answers are not all probabilities")
            answers = iter(given)
            for file, one in zip(part, decoded, strict=True):
                if isinstance(one, str):
                    lines.append({"file": str(file), "probability": np.nan, "decision": "", "reason": one})
                else:
                    probability = next(answers)
                    decision = CLASSES[int(decide(probability))]
                    lines.append(
                        {"file": str(file), "probability": float(probability), "decision": decision, "reason": ""}
                    )
            progress(start + len(part))
    sources = exported.facts.get("synthetic_sources", "").split()
    notes = (
        *phantom_notes(sources),
        *([RANDOM_WEIGHTS] if exported.facts.get("weights") == "random" else []),
        f"model {exported.facts.get('cell', '')}, {exported.precision}, {exported.image_size} × {exported.image_size} "
        f"pixels; decided {CLASSES[1]} when the probability is ≥ 0.5",
        "research software, not a medical device",
    )
    return pd.DataFrame(lines, columns=list(COLUMNS)), notes


def _decoded(file: Path, image_size: int) -> np.ndarray | str:
    try:
        return decode(file, image_size)
    except UserError as error:
        return str(error).removeprefix(f"{file}: ")
