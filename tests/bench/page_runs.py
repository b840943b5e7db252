"""Runs whose page is looked at: one with names and reasons that would like to be markup."""

from pathlib import Path

from measured_rows import CPU, engine, measure, network, refused
from report_rows import failed, scores, write_cell, write_run

ALERT = "<script>alert(1)</script>"
HOSTILE_CELL = f"model2/{ALERT}+sgdm"
IMAGE_CELL = 'model1/"><img src=x onerror=alert(2)>+svm'
HOSTILE_CELLS = [HOSTILE_CELL, IMAGE_CELL, "model1/{{ 7 * 7 }}+lr", "model3/]]>-->&lt;b\u2028c\u202ed+e1"]
FAILED, NOT_RUN, GOOD = "model2/resnet50+sgdm", "model3/cnn17+e25+b64", "model1/resnet50+svm"
REASON = f"]]> {ALERT} \u2028\u202eout of memory & more"
CPU_NAME = "<img src=x onerror=alert(3)> CPU"
SOURCE = '<b onmouseover="alert(4)">clinic'


def write_hostile_run(folder: Path) -> Path:
    """Write a run with hostile names, a failed cell, one that was not run, and an engine that was not measured."""
    counts = [{"source": SOURCE, "modality": "ultrasound", "label": 1, "images": 3, "copies": 12}]
    run_dir = write_run(
        folder,
        cells=[GOOD, FAILED, NOT_RUN, *HOSTILE_CELLS, *(f"model3/cnn17+e{epochs}+b8" for epochs in range(1, 9))],
        weights="random",
        matrix={"name": ALERT},
        data={"counts": counts, "synthetic_sources": ["busi"]},
        environments={"ab" * 32: {"cpu": CPU_NAME, "cpu_cores": 2, "gpu": None, ALERT: [ALERT, {"deep": REASON}]}},
    )
    for place, cell in enumerate([GOOD, *HOSTILE_CELLS]):
        write_cell(run_dir, cell, [row | {"config_hash": "c"} for row in scores(0.9 - place / 10)])
    write_cell(run_dir, FAILED, failed(REASON))
    here = CPU | {"cpu": CPU_NAME}
    fast = [*engine("pytorch-cpu", p50={1: 30.0}), *engine("onnxruntime-cpu", p50={1: 9.0}, ratio=3.3)]
    missing = refused("onnxruntime-cuda", f"no GPU {ALERT}", status="not measured")
    measure(run_dir, GOOD, [*network(), *fast, missing], here)
    slow = [*engine("pytorch-cpu", p50={1: 110.0}), *engine("onnxruntime-cpu", p50={1: 40.0}, ratio=2.75)]
    measure(run_dir, HOSTILE_CELL, [*network(100, 20.0), *slow, missing], here)
    return run_dir
