import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from run_folders import BASELINES, SMALL
from scipy.io import savemat
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_score, recall_score, roc_auc_score

import bench.data_path
import bench.worker
from bench.cli import app

TABLES = (
    *("table1", "table2", "table3", "table4", "table5", "table6", "engines", "leaderboard"),
    *("comparisons", "subsets", "baselines", "leakage_gap", "duplicates", "transfer", "explanations"),
)


Call = Callable[..., tuple[int, str, str]]
Refusal = Callable[..., str]


# -- help ------------------------------------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_help_names_every_command_and_the_order_of_work(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert {"phantom", "prepare", "run", "report"} <= set(COMMANDS)
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", out)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_help_of_a_command_names_and_explains_its_options(call: Call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    usage = next(line for line in out.splitlines() if "Usage:" in line)
    for parameter in COMMANDS[command].params:
        assert getattr(parameter, "help", ""), parameter.name
        if parameter.param_type_name == "option":
            assert all(option in out for option in parameter.opts)
        else:
            assert re.search(rf"\b{parameter.name}\b", usage, re.IGNORECASE)


# -- bad input -------------------------------------------------------------------------------------------------------


def write_png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(len(str(path))).integers(0, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(grey).save(path)


def write_file(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of faulty inputs, each named for its fault."""
    root = tmp_path_factory.mktemp("bad")
    (root / "empty").mkdir()
    for name in ("benign", "malignant"):
        (root / "hollow" / name).mkdir(parents=True)
        write_png(root / "strange" / name / f"{name} (1).png")
        write_png(root / "good" / name / "1.png")
        write_file(root / "unreadable" / name / "1.png", b"\x89PNG\r\n\x1a\nrubbish")
    write_png(root / "strange" / "benign" / "holiday.png")
    write_png(root / "one-unreadable" / "benign" / "1.png")
    write_file(root / "one-unreadable" / "malignant" / "broken.png", b"")

    write_file(root / "text.mat", "not a mat file")
    write_file(root / "v73.mat", "MATLAB 7.3 MAT-file")
    savemat(root / "other.mat", {"speed": 1.0})
    savemat(root / "no-class.mat", {"data": {"id": "a1", "rf1": np.ones((50, 4), np.int16), "rf2": 1}})
    write_file(root / "cut.mat", (root / "other.mat").read_bytes()[:150])

    for name, header, line in (
        ("csv-no-label", "path,kind", "1.png,benign"),
        ("csv-bad-label", "path,label", "1.png,cyst"),
        ("csv-no-rows", "path,label", ""),
        ("csv-no-file", "path,label", "2.png,benign"),
    ):
        write_png(root / name / "1.png")
        write_file(root / name / "labels.csv", f"{header}\n{line}\n")
    for name, header, line in (
        ("rsna-no-patient", "image_id,cancer", "2,1"),
        ("rsna-no-cancer", "patient_id,image_id", "1,2"),
        ("rsna-conflict", "patient_id,image_id,cancer", "1,2,0"),
    ):
        write_png(root / name / "train" / ("1" if name == "rsna-conflict" else "all") / "1_2.png")
        write_file(root / name / "train.csv", f"{header}\n{line}\n")
    write_png(root / "rsna-no-ids" / "1" / "scan.png")
    write_png(root / "rsna-no-labels" / "1_2.png")

    write_file(root / "file", "in the way")
    for name, line in (
        ("no-model", 'backbones = ["alexnet"]\nclassifiers = ["lr"]'),
        ("no-head", 'backbones = ["resnet50"]\nclassifiers = ["forest"]'),
        ("no-key", 'backbones = ["resnet50"]'),
        ("extra-key", 'backbones = ["resnet50"]\nclassifiers = ["lr"]\nclasifiers = ["lr"]'),
    ):
        head = f'name = "{name}"\nweights = "random"\nprotocols = ["paper"]\nseeds = [0]\n'
        write_file(root / f"{name}.toml", f"{head}[model1]\n{line}\n")
    write_file(root / "broken.toml", "name = ")
    write_file(root / "no-manifest" / "manifest.json", "{")
    return root


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        # a folder or file that is missing
        ("--busi {bad}/nowhere", ["no such folder: {bad}/nowhere"]),
        ("--rsna {bad}/nowhere", ["no such folder: {bad}/nowhere"]),
        ("--folder mine={bad}/nowhere", ["mine: no such folder: {bad}/nowhere"]),
        ("--oasbud {bad}/nowhere.mat", ["{bad}/nowhere.mat: cannot be read: No such file", "expected a .mat file"]),
        ("--busi {bad}/file", ["{bad}/file is a file; expected the data set's folder"]),
        # an empty folder
        ("--busi {bad}/empty", ["{bad}/empty has no subfolders benign and malignant", "Dataset_BUSI_with_GT"]),
        ("--busi {bad}/hollow", ["no images in {bad}/hollow/benign; expected names like 'benign (1).png'"]),
        ("--rsna {bad}/empty", ["no images in {bad}/empty; expected e.g. train/1/<patient_id>_<image_id>.png"]),
        ("--folder mine={bad}/empty", ["{bad}/empty holds no images in a known layout; expected one csv file"]),
        ("--folder mine={bad}/hollow", ["no images in {bad}/hollow; expected files of .png .jpg"]),
        # an unreadable file
        (
            "--folder mine={bad}/unreadable",
            ["none of the 2 files can be read; the first: {bad}/unreadable/benign/1.png"],
        ),
        ("--folder mine={bad}/one-unreadable --strict", ["{bad}/one-unreadable/malignant/broken.png", "--strict"]),
        ("--busi {bad}/strange", ["{bad}/strange/benign/holiday.png is neither image nor mask by its name"]),
        # a wrong .mat
        ("--oasbud {bad}/text.mat", ["{bad}/text.mat is not a MATLAB v5-v7 .mat file"]),
        ("--oasbud {bad}/v73.mat", ["{bad}/v73.mat is a MATLAB v7.3 (HDF5) file; re-save it with save -v7"]),
        ("--oasbud {bad}/other.mat", ["{bad}/other.mat has no variable 'data'; it holds speed"]),
        ("--oasbud {bad}/no-class.mat", ["has no field 'class'; its fields are id, rf1, rf2"]),
        ("--oasbud {bad}/cut.mat", ["{bad}/cut.mat is truncated or damaged", "download it again"]),
        ("--oasbud {bad}/empty", ["{bad}/empty: cannot be read: Is a directory; expected a .mat file"]),
        # a csv without a needed column
        (
            "--folder mine={bad}/csv-no-label",
            ["csv-no-label/labels.csv: no column 'label'; the columns are path, kind"],
        ),
        ("--folder mine={bad}/csv-no-rows", ["labels.csv: holds no rows; expected a header with path, label"]),
        ("--folder mine={bad}/csv-no-file", ["labels.csv: line 2: no such file: '2.png'"]),
        ("--rsna {bad}/rsna-no-patient", ["train.csv: no column 'patient_id'; the columns are image_id, cancer"]),
        (
            "--rsna {bad}/rsna-no-cancer",
            ["train.csv has no column 'cancer' and {bad}/rsna-no-cancer/train/all/1_2.png"],
        ),
        (
            "--rsna {bad}/rsna-no-labels",
            ["1_2.png has no label; expected {bad}/rsna-no-labels/train.csv or class folders"],
        ),
        # labels that contradict each other or mean nothing
        ("--rsna {bad}/rsna-conflict", ["train/1/1_2.png lies in folder 1, but train.csv says cancer 0"]),
        ("--folder mine={bad}/csv-bad-label", ["line 2: label 'cyst' is not benign, malignant, 0 or 1"]),
        # no patient ids
        (
            "--rsna {bad}/rsna-no-ids",
            ["scan.png has no patient id; expected <patient_id>_<image_id>", "--allow-ungrouped"],
        ),
        # options
        ("", ["no data is given; choose at least one of --busi, --oasbud, --rsna, --folder NAME=DIR"]),
        ("--folder {bad}/good", ["--folder '{bad}/good' is not of the form NAME=DIR"]),
        ("--folder mine=", ["--folder 'mine=' is not of the form NAME=DIR"]),
        ("--folder busi={bad}/good", ["'busi' cannot name a data set", "not busi, oasbud, rsna"]),
        ("--folder a={bad}/good --folder a={bad}/good", ["--folder 'a' is given more than once"]),
        (
            "--folder a={bad}/good --decoder magic",
            ["--decoder 'magic' is unknown; choose from auto, dali, torchvision"],
        ),
        (
            "--folder a={bad}/good --oasbud-groups age",
            ["--oasbud-groups 'age' is unknown; choose from patient, lesion"],
        ),
        ("--folder a={bad}/good --image-size 4", ["image size 4 is outside 8..2048"]),
        ("--folder a={bad}/good --negatives 0", ["--negatives 0 is below 1"]),
    ],
)
def test_prepare_refuses_bad_input_on_one_line(
    refusal: Refusal, bad: Path, tmp_path: Path, arguments: str, parts: list[str]
) -> None:
    line = refusal("prepare", tmp_path / "out", *arguments.format(bad=bad).split())
    for part in parts:
        assert part.format(bad=bad) in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_unreadable_files_are_counted_and_listed(call: Call, bad: Path, tmp_path: Path) -> None:
    arguments = ["prepare", tmp_path, "--folder", f"mine={bad}/one-unreadable", "--image-size", 32]
    code, out, _ = call(*arguments, "--decoder", "torchvision")
    assert code == 0
    assert f"1 unreadable files (see {tmp_path / 'quarantine.csv'})" in out
    (line,) = pd.read_csv(tmp_path / "quarantine.csv").to_dict("records")
    assert line["path"] == f"{bad}/one-unreadable/malignant/broken.png"
    assert line["reason"]


def test_images_without_patient_ids_are_taken_when_asked(call: Call, bad: Path, tmp_path: Path) -> None:
    arguments = ["prepare", tmp_path, "--rsna", bad / "rsna-no-ids", "--image-size", 32, "--decoder", "torchvision"]
    code, out, _ = call(*arguments, "--allow-ungrouped")
    assert code == 0
    assert "1 images without patient id, each its own group: may leak" in out


def test_prepare_does_not_mix_two_data_sets(refusal: Refusal, bad: Path, tiny_data: Path) -> None:
    line = refusal("prepare", tiny_data, "--folder", f"mine={bad}/good", "--image-size", 32)
    assert f"{tiny_data} already holds another prepared data set (60 images at 32 px)" in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("papers --data {data}", ["matrix 'papers' is unknown; choose from paper, quick, or give the path"]),
        ("{bad}/no.toml --data {data}", ["matrix '{bad}/no.toml' is unknown; choose from paper, quick"]),
        ("{bad}/broken.toml --data {data}", ["{bad}/broken.toml is not a TOML file"]),
        ("{bad}/no-model.toml --data {data}", ["backbones: 'alexnet' is unknown; choose from", "resnet50, resnet101"]),
        ("{bad}/no-head.toml --data {data}", ["classifiers: 'forest' is unknown; choose from lr, nb, svm"]),
        ("{bad}/no-key.toml --data {data}", ["{bad}/no-key.toml: [model1]: 'classifiers' is missing"]),
        ("{bad}/extra-key.toml --data {data}", ["'clasifiers' is unknown; choose from backbones, classifiers"]),
        ("{tiny} --data {data} --only model9/*", ["--only 'model9/*' matches none of the 15 cells (model1/mobilenet"]),
        ("{tiny} --data {data} --protocol dirty", ["--protocol 'dirty' is unknown; choose from paper, clean, both"]),
        (
            "{tiny} --data {data} --loader fast",
            ["loader 'fast' is unknown; choose from auto, resident, dali, torchvision"],
        ),
        (
            "{tiny} --data {data} --device cpu --step graph",
            ["step 'graph' is not possible: the device is cpu; choose 'auto' or 'eager'"],
        ),
        ("{tiny} --data {data} --step slow", ["step 'slow' is unknown; choose from auto, eager, graph, compiled"]),
        ("{tiny} --data {data} --device tpu", ["device 'tpu' is unknown; choose from auto, cpu, cuda"]),
        ("{tiny} --data {data} --precision fp8", ["precision 'fp8' is unknown; choose from auto, fp32, bf16, fp16"]),
        ("{tiny} --data {data} --seed -1", ["--seed -1 is not a whole number from 0 to 4294967295"]),
        ("{tiny} --data {data} --seed 0 --seed 4294967296", ["--seed 4294967296 is not a whole number from 0 to"]),
        ("{tiny} --data {bad}/nowhere", ["{bad}/nowhere/manifest.json is missing", "fusebench prepare"]),
        ("{tiny} --data {bad}/empty", ["{bad}/empty/manifest.json is missing", "fusebench prepare"]),
        ("{tiny} --data {bad}/no-manifest", ["{bad}/no-manifest/manifest.json can't be read as JSON"]),
    ],
)
def test_run_refuses_bad_input_on_one_line(
    refusal: Refusal, bad: Path, tiny_toml: Path, tiny_data: Path, tmp_path: Path, arguments: str, parts: list[str]
) -> None:
    filled = arguments.format(bad=bad, tiny=tiny_toml, data=tiny_data).split()
    line = refusal("run", *filled, "--out", tmp_path / "out")
    for part in parts:
        assert part.format(bad=bad) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("phantom {bad}/new --scale 0", "scale 0.0 is not above 0 and at most 10"),
        ("phantom {bad}/new --seed -1", "seed -1 is negative; give 0 or more"),
        ("phantom {bad}/new --workers 0", "workers 0 is not 1 or more"),
        ("phantom {bad}/good", "{bad}/good: exists and is not a finished phantom folder"),
        ("report {bad}/nowhere", "{bad}/nowhere: no run.json; give a folder written by 'fusebench run'"),
        ("report {bad}/empty", "{bad}/empty: no run.json"),
        # an output that can't be written, even by an administrator: it would lie below a file
        ("phantom {bad}/file/out --scale 0.01", "{bad}/file/out: cannot be written (Not a directory)"),
        ("prepare {bad}/file/out --folder a={bad}/good", "can't create the folder {bad}/file/out: Not a directory"),
        ("run {tiny} --data {data} --out {bad}/file/out", "can't create the folder {bad}/file/out: Not a directory"),
        ("report {bad}/file/out", "{bad}/file/out: no run.json"),
    ],
)
def test_the_other_commands_refuse_bad_input_on_one_line(
    refusal: Refusal, bad: Path, tiny_toml: Path, tiny_data: Path, arguments: str, part: str
) -> None:
    line = refusal(*arguments.format(bad=bad, tiny=tiny_toml, data=tiny_data).split())
    assert part.format(bad=bad) in line
    assert not (bad / "new").exists()


def test_tables_that_cannot_be_written_are_refused(
    call: Call, refusal: Refusal, tiny_toml: Path, tiny_data: Path, tmp_path: Path
) -> None:
    arguments = ["run", tiny_toml, "--data", tiny_data, "--out", tmp_path / "out", "--only", "model3/*e1*"]
    arguments.append("--no-measure")
    assert call(*arguments, "--device", "cpu")[0] == 0
    for table in (tmp_path / "out" / "tables").iterdir():
        table.unlink()
    (tmp_path / "out" / "tables").rmdir()
    write_file(tmp_path / "out" / "tables", "in the way")
    line = refusal("report", tmp_path / "out")
    assert f"can't create the folder {tmp_path / 'out' / 'tables'}: File exists" in line


def test_a_message_is_one_line_whatever_it_quotes(refusal: Refusal, bad: Path, tmp_path: Path) -> None:
    long_name = "a  b\n[bold]" * 30
    line = refusal("prepare", tmp_path, "--folder", f"{long_name}={bad}/good")
    assert "[bold]" in line
    assert "cannot name a data set" in line


# -- cells that fail -------------------------------------------------------------------------------------------------


def test_a_failed_cell_is_told_kept_in_the_tables_and_ends_with_1(
    call: Call, tiny_toml: Path, tiny_data: Path, tmp_path: Path
) -> None:
    weights, out = tmp_path / "weights", tmp_path / "run"
    weights.mkdir()
    arguments = ["run", tiny_toml, "--data", tiny_data, "--out", out, "--device", "cpu", "--weights", weights]
    arguments.append("--no-measure")
    code, text, err = call(*arguments, "--only", "model2/*", "--only", "model3/*")
    assert code == 1
    assert "6 cells done, 0 found finished, 1 failed" in text
    reason = f"{weights}/mobilenetv2_100.ra_in1k.safetensors is missing"
    assert f"failed: paper/0/model2/mobilenet_v2+sgdm: {reason}" in text
    assert f"paper/0/model2/mobilenet_v2+sgdm failed: {reason}" in err
    (row,) = pd.read_csv(out / "tables" / "table3.csv").to_dict("records")
    assert row["status"] == "failed"
    assert reason in row["reason"]
    assert "failed" in (out / "tables" / "leaderboard.md").read_text(encoding="utf-8")
    code, text, _ = call(*arguments, "--only", "model2/*", "--only", "model3/*")
    assert (code, "0 cells done, 6 found finished, 1 failed" in text) == (1, True)


# -- from nothing to the tables --------------------------------------------------------------------------------------

METRICS = {
    "sensitivity": lambda t: recall_score(t["label"], t["decision"], zero_division=np.nan),
    "specificity": lambda t: recall_score(t["label"], t["decision"], pos_label=0, zero_division=np.nan),
    "ppv": lambda t: precision_score(t["label"], t["decision"], zero_division=np.nan),
    "npv": lambda t: precision_score(t["label"], t["decision"], pos_label=0, zero_division=np.nan),
    "accuracy": lambda t: accuracy_score(t["label"], t["decision"]),
    "kappa": lambda t: cohen_kappa_score(t["label"], t["decision"]),
    "auc": lambda t: roc_auc_score(t["label"], t["probability"]),
}


def check_tables(out: Path) -> int:
    """Compare every score in every table with scikit-learn on the stored predictions; return how many there were."""
    checked = 0
    for name in ("table2", "table3", "table4", "table6", "leaderboard"):
        for row in pd.read_csv(out / "tables" / f"{name}.csv").to_dict("records"):
            folders = (out / "cells" / str(row["protocol"])).glob(f"*/{row['cell']}/predictions.parquet")
            stored = [pd.read_parquet(path) for path in folders]
            for metric, by_scikit_learn in METRICS.items():
                key = f"{metric}_ours" if f"{metric}_ours" in row else metric
                if key in row:
                    expected = np.mean([by_scikit_learn(one) for one in stored]) if stored else np.nan
                    assert row[key] == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), (name, row, metric)
                    checked += len(stored) > 0
    return checked


def test_from_phantoms_to_the_tables(
    call: Call, tiny_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, data, out = tmp_path / "raw", tmp_path / "data", tmp_path / "run"
    code, text, _ = call("phantom", raw, "--scale", 0.01)
    assert code == 0
    assert "rsna_positive 12" in text

    # the line it prints is the next command
    (hint,) = re.findall(r"next: fusebench (prepare .*)", text)
    prepare = [str(data) if word == "data/NAME" else word for word in hint.split()]
    code, text, _ = call(*prepare, "--image-size", 32, "--decoder", "torchvision")
    assert code == 0
    assert "48 images of 32 px" in text
    assert "phantom data: busi, oasbud, rsna" in text
    assert f"next: fusebench run paper --data {data} --out" in text

    run = ["run", tiny_toml, "--data", data, "--out", out, "--device", "cpu", "--no-measure"]
    code, text, err = call(*run)
    assert code == 0
    assert "15 cells done, 0 found finished, 0 failed" in text
    assert len(re.findall(r"^paper/0/.* done in \d+ s$", err, re.MULTILINE)) == 15
    written = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    files = [f"{table}.{ending}" for table in TABLES for ending in ("csv", "md", "tex")]
    assert sorted(written) == sorted(["SHA256SUMS", *files])
    for table in TABLES:
        for ending in ("md", "tex"):
            assert "synthetic images, not patients" in written[f"{table}.{ending}"].decode()
            assert "not pre-trained" in written[f"{table}.{ending}"].decode()
    # Tables 2 to 4: six cells of six scores; Table 6: three accuracies; leaderboard: these six and the four
    # baselines, of seven scores.
    assert check_tables(out) == 6 * 6 + 3 + 10 * 7

    code, text, _ = call("report", out)
    assert code == 0
    for part in ("Table 1", "Table 2", "Table 3", "Table 4", "Table 6", "Leaderboard"):
        assert part in " ".join(text.split())
    assert {path.name: path.read_bytes() for path in (out / "tables").iterdir()} == written

    with monkeypatch.context() as patch:
        patch.setattr(bench.worker, "compute", None)
        code, text, err = call(*run)
    assert (code, err) == (0, "")
    assert "0 cells done, 15 found finished, 0 failed" in text
    assert {path.name: path.read_bytes() for path in (out / "tables").iterdir()} == written


def test_seeds_and_protocols_are_added_to_a_run_and_averaged(
    call: Call, tiny_toml: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = ["run", tiny_toml, "--data", tiny_data, "--out", tmp_path, "--device", "cpu", "--only", "model3/*"]
    run += ["--no-measure", "--no-explain"]
    assert "6 cells done, 0 found finished, 0 failed" in call(*run)[1]
    code, text, _ = call(*run, "--protocol", "both", "--seed", 0, "--seed", 5)
    assert code == 0
    assert "18 cells done, 6 found finished, 0 failed" in text
    assert {path.parent.relative_to(tmp_path / "cells").as_posix() for path in tmp_path.rglob("rows.csv")} == {
        f"{where}/{cell}" for where in ("paper/0", "paper/5", "clean/0", "clean/5") for cell in [*SMALL, *BASELINES]
    }
    said = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (said["protocols"], said["seeds"]) == (["paper", "clean"], [0, 5])
    table4 = pd.read_csv(tmp_path / "tables" / "table4.csv")
    assert list(zip(table4["protocol"], table4["seeds"], strict=True)) == [("paper", 2)] * 2 + [("clean", 2)] * 2
    assert check_tables(tmp_path) == 2 * (2 * 6 + 6 * 7)
