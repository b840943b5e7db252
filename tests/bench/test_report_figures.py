"""What the figures of a run show, what is left out and why, hostile names, the same bytes from the same run."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from measured_rows import engine, measure, network
from PIL import Image
from report_rows import predictions, scores, write_cell, write_run

import bench.report.figures
from bench.report import write_report
from bench.report.figures import FIGURES, Figure, confusion, leakage, roc, training
from bench.report.figures.style import RC, SERIES
from bench.store import HISTORY_COLUMNS
from fusion.checksums import problems, record
from fusion.errors import UserError

HOSTILE = "model2/<script>$x_{1}$ & _\\frac漢字+sgdm"
CELLS = [
    "model1/resnet50+lr",
    "model1/resnet50+svm",
    "model1/efficientnet_b0+svm",
    "model2/resnet50+adam",
    "model3/cnn17+e25+b64",
    "ablation/cnn17+fused",
    "baseline/modality",
]


def keep_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(bench.report.figures, "FIGURES", {name: FIGURES[name] for name in names})


def history(losses: list[float]) -> pd.DataFrame:
    epochs = np.arange(1, len(losses) + 1)
    values = [epochs, losses, 0.5, losses, 0.5, 0.001]
    return pd.DataFrame(dict(zip(HISTORY_COLUMNS, values, strict=True)))


def write_cells(run_dir: Path, cells: list[str], protocol: str = "paper", seed: int = 0, accuracy: float = 0.8) -> None:
    for cell in cells:
        rows = [row | {"config_hash": "c"} for row in scores(accuracy)]
        path = write_cell(run_dir, cell, rows, protocol, seed)
        if not cell.startswith(("model1/", "baseline/")):
            history([0.9, 0.5, 0.7]).to_csv(path.with_name("history.csv"), index=False)
            record(path.with_name("history.csv"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Figure]]:
    """A run of both protocols with measurements, and its figures by name; only read."""
    run_dir = write_run(
        tmp_path_factory.mktemp("drawn") / "run",
        cells=CELLS,
        protocols=["paper", "clean"],
        weights="random",
        data={"synthetic_sources": ["busi"]},
    )
    write_cells(run_dir, CELLS, "paper", accuracy=0.8)
    write_cells(run_dir, CELLS, "clean", accuracy=0.7)
    measure(run_dir, CELLS[1], [*network(), *engine("onnxruntime-cpu", p50={1: 15.0})])
    measure(run_dir, CELLS[4], [*network(17, 678.6), *engine("onnxruntime-cpu", p50={1: 30.0})])
    return run_dir, {figure.name: figure for figure in write_report(run_dir).figures}


def texts(figure: Figure) -> list[str]:
    assert figure.svg is not None
    root = ElementTree.fromstring(figure.svg.read_text(encoding="utf-8"))
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_figure_is_written_twice_or_left_out_with_a_reason(drawn: tuple[Path, dict[str, Figure]]) -> None:
    run_dir, figures = drawn
    protocols = {name: ("_paper", "_clean") if row.each_protocol else ("",) for name, row in FIGURES.items()}
    names = {name + protocol for name, each in protocols.items() for protocol in each}
    assert set(figures) == names
    captions = (run_dir / "figures" / "captions.md").read_text(encoding="utf-8")
    for figure in figures.values():
        assert figure.title.replace("_", r"\_") in captions
        if figure.reason:
            assert (figure.svg, figure.png, figure.caption) == (None, None, "")
            assert "Left out" in captions
        else:
            assert figure.svg is not None
            assert figure.png is not None
            assert figure.title in " ".join(texts(figure))
            with Image.open(figure.png) as image:
                assert 3.4 <= image.width / 220 <= 7.4
    left_out = {name: figure.reason for name, figure in figures.items() if figure.reason}
    assert set(left_out) == {"roc_transfer_paper", "roc_transfer_clean", "pareto_clean", "augmentation", "samples"}
    assert "fusebench measure" in left_out["pareto_clean"]
    assert "fusebench run" in left_out["augmentation"]
    assert "cell.json" in left_out["samples"]


def test_a_roc_panel_stands_for_a_backbone_with_our_auc_and_the_papers(drawn: tuple[Path, dict[str, Figure]]) -> None:
    shown = texts(drawn[1]["roc_model1_paper"])
    assert {"ResNet50", "EfficientNetB0"} <= set(shown)
    assert shown.count("False positive rate") == 2
    auc = r"\d\.\d{3} \(\d\.\d{3}–\d\.\d{3}\)"
    assert sum(bool(re.fullmatch(rf"(LR|SVM) {auc}(; paper 0\.9275)?", text)) for text in shown) == 3
    assert sum("paper 0.9275" in text for text in shown) == 1  # EfficientNetB0 + SVM
    assert sum(text.startswith("modality alone") for text in shown) == 2
    assert not any("modality alone" in text for text in texts(drawn[1]["roc_ablation_paper"]))


def test_the_epoch_of_the_lowest_validation_loss_is_marked_as_kept(drawn: tuple[Path, dict[str, Figure]]) -> None:
    figure = drawn[1]["training_model3_paper"]
    assert {"17-layer CNN, 25 epochs", "batch 64", "epoch kept", "Loss, nats", "Accuracy"} <= set(texts(figure))
    assert "validation rows are the test rows" in figure.caption
    assert "validation rows are the test rows" not in drawn[1]["training_model3_clean"].caption


def test_the_gap_is_paper_less_clean(drawn: tuple[Path, dict[str, Figure]]) -> None:
    shown = texts(drawn[1]["leakage_gap"])
    assert shown.count("+0.100") == len(CELLS)
    assert set(CELLS) <= set(shown)


def test_a_confusion_matrix_counts_the_predictions(drawn: tuple[Path, dict[str, Figure]]) -> None:
    rows = predictions()
    table = pd.crosstab(rows["label"], rows["decision"]).to_numpy()
    shown = texts(drawn[1]["confusion_paper"])
    for number in table.ravel():
        assert shown.count(str(number)) >= len(CELLS)
    share = f"{100 * table[0, 0] / table[0].sum():.0f} %"
    assert shown.count(share) >= len(CELLS)


def test_the_pareto_plot_names_the_machine_and_every_measured_cell(drawn: tuple[Path, dict[str, Figure]]) -> None:
    figure = drawn[1]["pareto_paper"]
    assert "AMD EPYC, 2 cores" in figure.caption
    assert {CELLS[1], CELLS[4], "15.0 ms", "678.6 MiB", "0.800"} <= set(texts(figure))


def test_what_the_numbers_rest_on_stands_in_every_figure(drawn: tuple[Path, dict[str, Figure]]) -> None:
    for figure in drawn[1].values():
        if figure.svg:
            for said in ("phantom data: busi", "weights: random"):
                assert said in " ".join(texts(figure))
                assert said in figure.caption


def test_the_same_run_gives_the_same_bytes(
    drawn: tuple[Path, dict[str, Figure]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, figures = drawn
    again = ("roc_model1", "training_model2", "pareto", "confusion", "leakage_gap")
    keep_only(monkeypatch, *again)
    of_again = [figure for name, figure in figures.items() if name.startswith(again)]
    files = [file for figure in of_again for file in (figure.svg, figure.png) if file]
    before = [file.read_bytes() for file in files]
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):  # a caller's own style
        write_report(run_dir)
        assert mpl.rcParams["font.size"] == 30
    assert [file.read_bytes() for file in files] == before
    assert not any(b"<dc:date>" in content for content in before)


def test_hostile_names_are_text_and_a_hostile_history_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, "roc_model2", "training_model2", "confusion", "pareto", "leakage_gap")
    turned = HOSTILE.replace("&", "\u202e\x1b[31m")
    run_dir = write_run(tmp_path, cells=[HOSTILE, turned], protocols=["paper", "clean"])
    write_cells(run_dir, [HOSTILE, turned])
    write_cells(run_dir, [HOSTILE], "clean")
    wild = history([float("nan"), 1e308, -1.0, float("inf"), 0.0, 0.5])
    wild["epoch"] = [1, float("inf"), 3, -1e300, 5, 6]
    path = run_dir / "cells" / "paper" / "0" / HOSTILE / "history.csv"
    wild.to_csv(path, index=False)
    record(path)
    measure(run_dir, HOSTILE, [*network(), *engine("onnxruntime-cpu", p50={1: 15.0})])
    figures = {figure.name: figure for figure in write_report(run_dir).figures}
    for name in ("roc_model2_paper", "training_model2_paper", "confusion_paper", "pareto_paper", "leakage_gap"):
        shown = " ".join(texts(figures[name]))
        assert "<script>$x_{1}$" in shown
        assert not {"\u202e", "\x1b"} & set(shown)
    assert "<script>" not in (run_dir / "figures" / "captions.md").read_text(encoding="utf-8")


def test_a_hostile_protocol_makes_no_path(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", cells=[], protocols=["../../x<y>"])
    figures = write_report(run_dir).figures
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", figure.name) for figure in figures)
    assert all(figure.reason for figure in figures)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_too_many_cells_for_a_figure_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, "roc_model1", "training_model2", "confusion", "leakage_gap")
    for part in (confusion, leakage, training):
        monkeypatch.setattr(part, "MOST_CELLS", 1)
    monkeypatch.setattr(roc, "MOST_CURVES", 1)
    cells = [*CELLS[:2], "model2/resnet50+adam", "model2/resnet50+sgdm"]
    run_dir = write_run(tmp_path, cells=cells, protocols=["paper", "clean"])
    for protocol in ("paper", "clean"):
        write_cells(run_dir, cells, protocol)
    for figure in write_report(run_dir).figures:
        assert re.search(r"[24] .*cells.* are more than the 1 a figure shows", figure.reason)


def test_a_figure_that_is_left_out_now_leaves_no_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, "confusion")
    run_dir = write_run(tmp_path, cells=CELLS[:1])
    write_cells(run_dir, CELLS[:1])
    first = {figure.name: figure for figure in write_report(run_dir).figures}
    for file in (run_dir / "cells").rglob("*.*"):
        file.unlink()
    again = {figure.name: figure for figure in write_report(run_dir).figures}
    assert first["confusion_paper"].svg is not None
    assert again["confusion_paper"].reason
    assert problems(run_dir / "figures") == []
    assert sorted(path.name for path in (run_dir / "figures").iterdir()) == ["SHA256SUMS", "captions.md"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, cells=[])
    (run_dir / "figures").write_text("in the way")
    with pytest.raises(UserError, match="figures"):
        write_report(run_dir)


def test_series_differ_in_colour_and_in_line_and_in_marker() -> None:
    for part in zip(*SERIES, strict=True):
        assert len(set(map(str, part))) == len(SERIES)
    assert RC["font.size"] >= 7
