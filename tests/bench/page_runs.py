"""A run with names and reasons that would like to be markup, and a page as a browser without scripts reads it."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from measured_rows import CPU, engine, measure, network, refused
from report_rows import failed, scores, write_cell, write_run

VOID = {"meta", "img", "input", "br", "link", "hr"}
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


class Page(HTMLParser):
    """A page's elements as a browser without scripts reads them; every element but the void ones must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs)
        self.elements.append((tag, found))
        if tag == "script":
            self.scripts.append((found, ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for found, attributes in self.elements if found == tag)

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]
