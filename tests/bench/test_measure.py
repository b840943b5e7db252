"""Measuring from the run's folder alone: what is found, found again, refused, and kept beside another machine's."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import bench.measure
import bench.measure_cell
import bench.sessions
from bench.cli_results import measure as cli_measure
from bench.engine_rows import ENGINE_METRICS
from bench.environment import describe_environment
from bench.measure import Plan, Summary, measure
from bench.onnx_file import read_onnx
from bench.predict import predict
from bench.report import read_measurements, write_tables
from bench.sessions import ENGINES
from fusion.checksums import record
from fusion.errors import UserError

SMALL, LARGE = "model3/cnn17+e1+b8", "model1/mobilenet_v2+svm"
CPU_PAIRS = {("pytorch-cpu", "fp32"), ("onnxruntime-cpu", "fp32"), ("onnxruntime-cpu", "int8")}
QUICK: dict[str, Any] = {"batches": (1, 3), "rounds": 2}
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")

Call = Callable[..., tuple[int, str, str]]


def silently(run_dir: Path, **changes: Any) -> Summary:
    return measure(run_dir, Plan(**(QUICK | changes)), progress=lambda *_: None, finished=lambda _: None)


@pytest.fixture(scope="module")
def measured(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a run, with nothing beside it, two cells of which are measured."""
    out = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.copytree(finished_run, out)
    assert silently(out, only=[SMALL, LARGE]) == Summary(measured=2, found=0, failed=())
    return out


@pytest.fixture
def copied(measured: Path, tmp_path: Path) -> Path:
    shutil.copytree(measured, tmp_path / "run")
    return tmp_path / "run"


def rows_of(run_dir: Path, cell: str) -> pd.DataFrame:
    rows = read_measurements(run_dir)
    return rows[rows["cell"] == cell]


@pytest.mark.parametrize("cell", [SMALL, LARGE])
def test_every_number_of_every_engine_is_there(measured: Path, cell: str) -> None:
    rows = rows_of(measured, cell)
    done = rows[rows["status"] == "done"]
    assert (
        set(zip(done["engine"], done["precision"], strict=True)) - {("", ""), ("", "fp32"), ("", "int8")} == CPU_PAIRS
    )
    values = done.set_index(["engine", "precision", "batch", "metric"])["value"].sort_index()
    assert np.isfinite(values).all()
    for pair in CPU_PAIRS:
        for batch in QUICK["batches"]:
            case = done[(done["engine"] == pair[0]) & (done["precision"] == pair[1]) & (done["batch"] == batch)]
            assert {"latency_p50_ms", "latency_p90_ms", "throughput", "ratio"} <= set(case["metric"])
            timed = case[case["metric"] == "latency_p50_ms"].iloc[0]
            assert 0 < timed["low"] <= timed["value"] <= timed["high"]
            assert timed["n"] >= QUICK["rounds"]
        parity = values[(*pair, 0)]
        assert {"probability_difference", "decision_flips", "accuracy", "auc", "end_to_end_s"} <= set(parity.index)
        assert parity["end_to_end_s"] > parity["model_only_s"] > 0
        assert parity["cold_start_s"] > 0
    assert values["pytorch-cpu", "fp32", 0, "probability_difference"] == 0
    assert values["pytorch-cpu", "fp32", 0, "run_difference"] < 1e-4
    assert values["onnxruntime-cpu", "fp32", 0, "probability_difference"] < 1e-4
    assert values["onnxruntime-cpu", "int8", 0, "probability_difference"] > 0
    assert values["pytorch-cpu", "fp32", 1, "ratio"] == 1
    assert set(done["metric"]) <= ENGINE_METRICS.keys()


@pytest.mark.parametrize(("cell", "layers"), [(SMALL, 17), (LARGE, 154)])
def test_layers_and_sizes_are_of_the_whole_network(measured: Path, cell: str, layers: int) -> None:
    values = rows_of(measured, cell).set_index(["engine", "precision", "metric"])["value"].sort_index()
    assert values["", "", "layers"] == layers
    assert values["", "", "parameter_mib"] > 0
    folder = measured / "cells" / "clean" / "0" / cell
    assert values["", "fp32", "file_mib"] == (folder / "model.onnx").stat().st_size / 2**20
    assert values["", "int8", "file_mib"] < values["", "fp32", "file_mib"]


def test_cells_that_were_not_asked_for_have_their_layers_all_the_same(measured: Path) -> None:
    rows = rows_of(measured, "model2/mobilenet_v2+sgdm")
    assert set(rows["engine"]) == {""}
    assert rows.set_index("metric")["value"]["layers"] == 154


@without_gpu
def test_engines_of_a_gpu_that_is_not_there_are_not_measured(measured: Path) -> None:
    rows = rows_of(measured, SMALL)
    absent = rows[rows["status"] == "not measured"]
    wanted = {name for name, engine in ENGINES.items() if engine.device == "cuda" and engine.by_default}
    assert set(absent["engine"]) == wanted
    assert set(absent["reason"]) == {"torch sees no NVIDIA GPU here"}


def test_what_is_measured_is_found_again_and_measured_anew_when_asked(copied: Path) -> None:
    before = rows_of(copied, SMALL)
    assert silently(copied, only=[SMALL, LARGE]) == Summary(measured=0, found=2, failed=())
    pd.testing.assert_frame_equal(rows_of(copied, SMALL), before)
    assert silently(copied, only=[SMALL], again=True).measured == 1
    after = rows_of(copied, SMALL)
    assert len(after) == len(before)
    times = [one.loc[one["metric"] == "latency_p50_ms", "value"].to_numpy() for one in (before, after)]
    assert (times[0] != times[1]).any()


def test_a_cell_that_was_run_again_is_measured_again(copied: Path) -> None:
    """With the same definition, and other probabilities in the last digit, as on a GPU."""
    path = copied / "cells" / "clean" / "0" / SMALL / "predictions.parquet"
    kept = pd.read_parquet(path)
    kept.assign(probability=kept["probability"] + 1e-9).to_parquet(path, index=False)
    record(path)
    assert silently(copied, only=[SMALL]) == Summary(measured=1, found=0, failed=())
    assert silently(copied, only=[SMALL]) == Summary(measured=0, found=1, failed=())


def test_another_batch_is_measured_beside_those_there_are(copied: Path) -> None:
    only = ["pytorch-cpu"]
    assert silently(copied, only=[SMALL], engines=only, batches=(2,)).measured == 1
    rows = rows_of(copied, SMALL)
    assert set(rows["batch"]) == {0, 1, 2, 3}
    assert set(rows[rows["batch"] == 2]["engine"]) == {"pytorch-cpu", "onnxruntime-cpu"}


def test_an_engine_that_appeared_is_measured(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[Any]] = []
    monkeypatch.setattr(bench.measure, "require_machine", lambda _: None)
    monkeypatch.setattr(bench.measure, "measure_cell", lambda *given, **_: tried.append(given[2]) or [])
    silently(copied, only=[SMALL])
    assert len(tried) == (not torch.cuda.is_available())


def test_what_can_not_be_quantized_does_not_keep_the_others_from_being_measured(copied: Path) -> None:
    folder = copied / "cells" / "clean" / "0" / SMALL
    (folder / "model.int8.onnx").unlink()
    for calibration in copied.glob("images/*/calibration"):
        shutil.rmtree(calibration)
    assert silently(copied, only=[SMALL], again=True).measured == 1
    engines = rows_of(copied, SMALL).query("engine != ''")
    (line,) = engines[engines["status"] == "refused"].to_dict("records")
    assert (line["engine"], line["precision"]) == ("onnxruntime-cpu", "int8")
    assert line["reason"].startswith("there are no calibration rows: call the same 'fusebench run' again")
    assert {"pytorch-cpu", "onnxruntime-cpu"} <= set(engines[engines["metric"] == "latency_p50_ms"]["engine"])


def test_a_file_of_another_precision_is_not_taken_by_its_name(copied: Path) -> None:
    folder = copied / "cells" / "clean" / "0" / SMALL
    shutil.copy(folder / "model.onnx", folder / "model.int8.onnx")
    silently(copied, only=[SMALL], again=True)
    assert read_onnx(folder / "model.int8.onnx").precision == "int8"


def test_an_engine_that_answers_otherwise_in_another_batch_is_not_timed(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = bench.sessions.OnnxSession.bind

    def fickle(self: Any, images_u8: torch.Tensor) -> Callable[[], torch.Tensor]:
        call = bind(self, images_u8)
        return (lambda: 0 * call()) if len(images_u8) == 3 else call

    monkeypatch.setattr(bench.sessions.OnnxSession, "bind", fickle)
    silently(copied, only=[SMALL], again=True)
    rows = rows_of(copied, SMALL).query("engine == 'onnxruntime-cpu' and batch == 3")
    assert set(rows["status"]) == {"refused"}
    assert rows["reason"].str.startswith("gives other answers in a batch of 3 than in one of ").all()


def test_rows_of_another_machine_stay(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_of(copied, SMALL)
    elsewhere = {**describe_environment(torch.device("cpu")), "cpu": "Another CPU"}
    monkeypatch.setattr(bench.measure, "describe_environment", lambda _: elsewhere)
    assert silently(copied, only=[SMALL]).measured == 1
    rows = rows_of(copied, SMALL)
    assert rows["machine"].nunique() == 2
    kept = rows[rows["environment_hash"] == before["environment_hash"].iloc[0]]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), before.reset_index(drop=True))
    assert set(write_tables(copied)["engines"].display["Machine"]) == set(rows["machine"])


def test_other_weights_than_the_run_had_are_refused_before_any_timing(copied: Path) -> None:
    path = copied / "cells" / "clean" / "0" / SMALL / "model.safetensors"
    state = load_file(path)
    save_file({key: value * -0.5 if value.ndim == 2 else value for key, value in state.items()}, path)
    record(path)  # with its checksum, as somebody would who means to deceive
    assert silently(copied, only=[SMALL], again=True).measured == 1
    rows = rows_of(copied, SMALL)
    engines = rows[rows["engine"] != ""]
    assert set(engines["status"]) == {"refused"}
    assert engines["reason"].str.startswith("mismatch: the model gives other probabilities than its run").all()


def test_another_preprocessing_than_the_run_had_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says what the network needs, but does otherwise: only the answers give it away."""
    load = bench.measure_cell.load_classifier

    def shifted(*arguments: Any) -> Any:
        classifier = load(*arguments)
        classifier.body.pixel_mean += 0.3
        return classifier

    monkeypatch.setattr(bench.measure_cell, "load_classifier", shifted)
    silently(copied, only=[SMALL], again=True)
    engines = rows_of(copied, SMALL).query("engine != ''")
    assert set(engines["status"]) == {"refused"}
    assert engines["reason"].str.contains("its weights or its preprocessing are not those of the run").all()


def test_an_exported_file_that_was_damaged_is_written_anew_and_it_is_said(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = copied / "cells" / "clean" / "0" / SMALL / "model.onnx"
    before = path.read_bytes()
    path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    silently(copied, only=[SMALL], again=True, engines=["pytorch-cpu", "onnxruntime-cpu"])
    assert f"{path} is damaged: it was changed after it was written" in caplog.text
    assert path.read_bytes() == before


def test_an_engine_with_other_answers_is_kept_and_not_ranked(copied: Path) -> None:
    """The exported file was tampered with, and still says the right things of itself."""
    path = copied / "cells" / "clean" / "0" / SMALL / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            tensor.raw_data = np.frombuffer(tensor.raw_data, dtype=np.float32).__mul__(0.1).astype(np.float32).tobytes()
    path.write_bytes(model.SerializeToString())
    record(path)
    silently(copied, only=[SMALL], again=True, engines=["pytorch-cpu", "onnxruntime-cpu"])
    table = write_tables(copied)["engines"].frame.query(f"cell == '{SMALL}' and engine == 'onnxruntime-cpu'")
    fp32 = table[table["precision"] == "fp32"]
    assert set(fp32["status"]) == {"beyond tolerance"}
    assert fp32["rank"].isna().all()
    assert (fp32["latency_p50_ms"] > 0).all()


def test_a_cell_that_lost_a_file_fails_and_the_others_go_on(copied: Path) -> None:
    (copied / "cells" / "clean" / "0" / SMALL / "model.safetensors").unlink()
    summary = silently(copied, only=[SMALL, LARGE], again=True)
    assert summary.measured == 1
    (failure,) = summary.failed
    assert "model.safetensors" in failure


def test_why_a_cell_could_not_be_measured_is_a_row(copied: Path) -> None:
    shutil.rmtree(copied / "measurements")
    (copied / "cells" / "clean" / "0" / SMALL / "model.safetensors").unlink()
    assert len(silently(copied, only=[SMALL]).failed) == 1
    engines = rows_of(copied, SMALL).query("engine != ''")
    assert set(engines["status"]) == {"refused"}
    assert engines["reason"].str.contains("model.safetensors can't be read", regex=False).all()


def test_a_fault_of_our_own_fails_the_cell_and_keeps_its_traceback(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("an operator\nthat is not known")

    before = rows_of(copied, SMALL)
    monkeypatch.setattr(bench.measure_cell, "_test_set_times", broken)
    summary = silently(copied, only=[SMALL], again=True)
    assert summary.failed == (f"clean/0/{SMALL}: RuntimeError: an operator that is not known",)
    (trace,) = copied.rglob("*.error.txt")
    assert "Traceback" in trace.read_text(encoding="utf-8")
    pd.testing.assert_frame_equal(rows_of(copied, SMALL), before)  # what was measured before stays


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ["tensorflow"]}, "engine 'tensorflow' is unknown; choose from pytorch-cpu"),
        ({"batches": [0]}, "batch 0 is not a whole number from 1 to 1024"),
        ({"rounds": 1}, "rounds 1 is not a whole number from 2 to 1000"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(**changes)


def test_the_help_names_every_engine() -> None:
    assert all(name in str(cli_measure.__doc__) for name in ENGINES)


def test_a_pattern_without_a_cell_is_refused(measured: Path) -> None:
    with pytest.raises(UserError, match=r"no finished cell fits model9/\*; finished are: .*cnn17"):
        silently(measured, only=["model9/*"])


@pytest.mark.parametrize(
    ("cells", "chosen"),
    [
        (["model1/resnet50+svm", "model2/resnet50+adam", "model2/resnet50+rmsprop"], ["model2/resnet50+rmsprop"]),
        (["model1/resnet50+lr", "model1/resnet50+svm"], ["model1/resnet50+svm"]),
        (["model3/cnn17+e25+b64", "model3/cnn17+e30+b32"], ["model3/cnn17+e30+b32"]),
        (["model2/resnet50+adam", "ablation/cnn17+fused"], ["ablation/cnn17+fused", "model2/resnet50+adam"]),
    ],
)
def test_by_default_one_cell_of_each_network_is_measured(cells: list[str], chosen: list[str]) -> None:
    run = {"protocols": ["paper", "clean"], "seeds": [0, 1]}
    done = [
        {"cell": cell, "protocol": protocol, "seed": seed, "network": cell.partition("/")[2].partition("+")[0]}
        for protocol in run["protocols"]
        for seed in run["seeds"]
        for cell in cells
    ]
    found = bench.measure._chosen(run, sorted(done, key=lambda cell: str(cell["network"])), Plan())
    assert [cell["cell"] for cell in found] == chosen
    assert {(cell["protocol"], cell["seed"]) for cell in found} == {("paper", 0)}


def test_measure_tells_prints_and_goes_on(call: Call, copied: Path) -> None:
    shutil.rmtree(copied / "measurements")
    arguments = ["measure", copied, "--only", SMALL, "--batch", 1, "--rounds", 2]
    code, out, err = call(*arguments)
    assert code == 0
    assert f"measure clean/0/{SMALL} done in" in err
    assert "1 cells measured, 0 found measured, 0 failed" in out
    for part in ("Table 5", "PyTorch against ONNX Runtime", "onnxruntime-cpu int8", "not pre-trained"):
        assert part in out
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "0 cells measured, 1 found measured, 0 failed" in out


# -- predict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [SMALL, LARGE])
def test_predict_gives_the_probabilities_of_the_run(measured: Path, cell: str, tiny_data: Path) -> None:
    folder = measured / "cells" / "clean" / "0" / cell
    kept = pd.read_parquet(folder / "predictions.parquet")
    catalog = pd.read_parquet(tiny_data / "catalog.parquet").set_index("image_id")
    raw = tiny_data.parent / "raw"
    files = [
        next(raw.rglob(str(Path(catalog.loc[image_id, "file"]).relative_to(raw)))) for image_id in kept["image_id"]
    ]
    answers, notes = predict(folder / "model.onnx", files)
    assert np.abs(answers["probability"] - kept["probability"]).max() < 1e-4
    assert (answers["decision"] == np.where(kept["decision"] == 1, "malignant", "benign")).all()
    assert any("not pre-trained" in note for note in notes)


def test_predict_names_what_it_can_not_read_and_classifies_the_rest(call: Call, measured: Path, tmp_path: Path) -> None:
    model = measured / "cells" / "clean" / "0" / SMALL / "model.onnx"
    Image.fromarray(np.full((50, 40), 99, np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    csv = tmp_path / "answers.csv"
    files = [tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "nowhere.png"]
    code, out, _ = call("predict", model, *files, "--csv", csv)
    assert code == 1
    answers = pd.read_csv(csv)
    assert list(answers["decision"].isna()) == [False, True, True]
    assert 0 <= answers["probability"][0] <= 1
    assert "not classified" in out
    assert "not a medical device" in out
    assert call("predict", model, files[0])[0] == 0


def test_predict_refuses_answers_that_are_no_probabilities(
    refusal: Callable[..., str], measured: Path, tmp_path: Path
) -> None:
    model = onnx.load(measured / "cells" / "clean" / "0" / SMALL / "model.onnx")
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["probability"]))
    onnx.save(model, tmp_path / "model.onnx")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "1.png")
    message = refusal("predict", tmp_path / "model.onnx", tmp_path / "1.png")
    assert "model.onnx: its answers are not all probabilities" in message


def test_predict_refuses_what_is_no_model(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "1.png")
    assert "is not an ONNX file" in refusal("predict", tmp_path / "model.onnx", tmp_path / "1.png")


def test_the_int8_file_says_what_it_is_and_calibrates_on_training_rows(measured: Path) -> None:
    file = read_onnx(measured / "cells" / "clean" / "0" / SMALL / "model.int8.onnx")
    assert file.precision == "int8"
    assert 0 < int(file.facts["calibration_rows"]) <= 64
    model = onnx.load(file.path)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    assert str(Path(bench.measure.__file__).parents[1]).encode() not in file.path.read_bytes()
