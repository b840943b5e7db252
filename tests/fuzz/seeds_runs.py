"""Valid files of our own: a matrix, a prepared data set, a run's folder with its cells, an exported model, weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bench.explanation_rows import EXPLANATION_COLUMNS, EXPLANATION_METRICS, IMAGE_COLUMNS, explanation_folder
from bench.extract import features_folder
from bench.image_files import images_folder
from bench.matrix import MATRICES
from bench.store import HISTORY_COLUMNS, PREDICTION_COLUMNS
from fusion.checksums import record, write_checksums
from fusion.prepare import prepare
from fusion.sources.busi import read_busi
from fusion.straddling import COLUMNS, KINDS
from tests.fuzz.seeds_images import grey, write_busi

sys.path.append(str(Path(__file__).parents[1] / "bench"))  # pytest finds these there, a campaign must be told

from measured_rows import engine, measure, network, refused
from report_rows import DATA_HASH, failed, predictions, scores, write_cell, write_run
from small_onnx import small_onnx

SIZE = 32
CELL, HEADED, FAILED = "model3/cnn17+e25+b64", "model1/mobilenet_v2+lr", "model2/resnet50+sgdm"
CONSTANTS = {"augmentation": {"noise": 0.1}, "folds": 5}


def write_matrix(folder: Path) -> None:
    """Write the quick matrix as a file of the user's."""
    (folder / "mine.toml").write_bytes((MATRICES / "quick.toml").read_bytes())


def write_prepared(folder: Path) -> None:
    """Write a prepared data set of four images with masks, at 16 px."""
    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir()
    write_busi(raw)
    records, notes = read_busi(raw)
    prepare(records, folder, image_size=16, decoder="torchvision", notes=notes, progress=lambda *_: None)


def write_report_run(folder: Path) -> None:
    """Write a run's folder with all that a report reads: three cells, measurements, maps, counts of duplicates."""
    write_run(folder, cells=[CELL, HEADED, FAILED], weights="random")
    for cell, value in ((CELL, 0.9), (HEADED, 0.8)):
        write_cell(folder, cell, scores(value))
    history = pd.DataFrame(
        [[epoch, 0.7 / epoch, 0.5, 0.8, 0.5, 1e-3] for epoch in (1, 2)], columns=list(HISTORY_COLUMNS)
    )
    path = folder / "cells" / "paper" / "0" / CELL / "history.csv"
    history.to_csv(path, index=False)
    record(path)
    write_cell(folder, FAILED, failed("out of memory"))
    measured = [*network(), *engine("onnxruntime-cpu", p50={1: 9.0}), refused("onnxruntime-cuda", "no GPU here")]
    measure(folder, CELL, measured)
    counts = [("paper", 0, kind, "all", 9, 20, 1, 2, 3, 40) for kind in KINDS]
    pd.DataFrame(counts, columns=list(COLUMNS)).to_csv(folder / "straddling.csv", index=False)
    record(folder / "straddling.csv")
    _explain(folder)


def _explain(folder: Path) -> None:
    place = explanation_folder(folder, "paper", 0, CELL)
    place.mkdir(parents=True)
    common = {"cell": CELL, "protocol": "paper", "seed": 0, "weights": "random", "data_hash": DATA_HASH}
    rows = [
        {**common, "metric": metric, "value": 0.5, "unit": unit, "low": 0.4, "high": 0.6, "n": 2}
        for metric, unit in EXPLANATION_METRICS.items()
    ]
    pd.DataFrame(rows, columns=list(EXPLANATION_COLUMNS)).to_csv(place / "rows.csv", index=False)
    images = predictions(2).assign(row=[0, 1], mask_area=0.1, mask_share=0.2, pointing_hit=1, zero_map=0, shown=[1, 0])
    images[list(IMAGE_COLUMNS)].to_csv(place / "images.csv", index=False)
    Image.fromarray(grey()).convert("RGB").save(place / "00000.png")
    write_checksums(place)


def write_cells(folder: Path) -> None:
    """Write a run's folder with two cells as ``measure`` finds them: definition, weights, predictions, images."""
    from safetensors.numpy import save_file
    from safetensors.torch import save_file as save_torch

    from fusion.models.backbones import build_backbone
    from fusion.models.cnn17 import Cnn17

    for cell in (CELL, HEADED):
        place = folder / "cells" / "paper" / "0" / cell
        place.mkdir(parents=True)
        name = cell.partition("/")[2].partition("+")[0]
        defined = {"format": 1, "protocol": "paper", "seed": 0, "data_hash": DATA_HASH, "constants": CONSTANTS}
        defined |= {"loader": "resident", "precision": "fp32", "weights": {"start": "random"}}
        head = "lr" if cell == HEADED else None
        defined |= {"cell": {"name": cell, "network": name, "head": head, "modality": None, "augmented": True}}
        (place / "cell.json").write_text(json.dumps(defined), encoding="utf-8")
        predicted = predictions(4)[list(PREDICTION_COLUMNS)]
        predicted.to_parquet(place / "predictions.parquet", index=False)
        if head:
            features = features_folder(folder, defined)
            features.mkdir(parents=True)
            state = build_backbone(name, "random", classes=0).state_dict()
            save_torch({key: value.contiguous() for key, value in state.items()}, features / "backbone.safetensors")
            save_file({"coef": np.ones((1, 1280)), "intercept": np.zeros(1)}, place / "model.safetensors")
        else:
            save_torch(Cnn17(SIZE).state_dict(), place / "model.safetensors")
        images = images_folder(folder, place, predicted)
        for part in ("test", "calibration", "mask"):
            (images / part).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            Image.fromarray(grey(number, SIZE, SIZE)).save(images / "test" / f"{number:05}.png")
        for part in (place, images):
            write_checksums(part)
    write_checksums(features)


def write_weights(folder: Path) -> None:
    """Write a folder of weights with the file of MobileNetV2."""
    from safetensors.torch import save_file

    from fusion.models.backbones import BACKBONES, build_backbone

    state = build_backbone("mobilenet_v2", "random").state_dict()
    save_file(dict(state), folder / f"{BACKBONES['mobilenet_v2'].timm_name}.safetensors")


def write_onnx(folder: Path) -> None:
    """Write an exported model and an image for it."""
    (folder / "model.onnx").write_bytes(small_onnx(SIZE).SerializeToString())
    Image.fromarray(grey()).save(folder / "image.png")
