"""Measurements are read with their machine; damaged and foreign files are refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from measured_rows import CNN, CPU, GPU, SVM, engine, measure, two_machines
from report_rows import tables_of

from bench.engine_rows import ENGINE_COLUMNS, ENGINE_METRICS, ENVIRONMENT, MEASUREMENTS, STATUSES, machine_folder
from bench.report import read_measurements, write_tables
from fusion.checksums import record
from fusion.errors import UserError
from fusion.files import content_hash


def test_measurements_are_read_with_their_machine(bare_run: Path) -> None:
    two_machines(bare_run)
    rows = read_measurements(bare_run)
    assert set(rows["machine"]) == {"AMD EPYC, 2 cores", "NVIDIA H100"}
    assert set(rows["status"]) <= set(STATUSES)
    value = rows[rows["metric"].eq("latency_p50_ms") & rows["engine"].eq("pytorch-cuda")].iloc[0]
    assert (value["value"], value["n"], value["batch"], value["seed"]) == (4.0, 200, 1, 0)
    assert rows.loc[rows["status"] != "done", "value"].isna().all()


def test_machines_of_one_name_are_told_apart(bare_run: Path) -> None:
    others = [CPU | {"torch_threads": threads} for threads in (1, 2)]
    for environment in others:
        measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 9.0}), environment)
    assert set(tables_of(bare_run)["engines"].frame["machine"]) == {
        f"AMD EPYC, 2 cores [{content_hash(environment)[:6]}]" for environment in others
    }


def test_a_file_that_is_being_written_is_not_read(bare_run: Path) -> None:
    path = measure(bare_run, SVM, engine("pytorch-cpu"))
    path.with_name(f".{path.name}.123.partial").write_text("half")
    path.with_name(".hidden.csv").write_text("half")
    (bare_run / MEASUREMENTS / "empty").mkdir()
    assert set(read_measurements(bare_run)["cell"]) == {SVM}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(",unit,", ",units,"), "lacks unit and has the unknown units"),
        (lambda text: text.replace("metric,value", "value,metric"), "another order"),
        (lambda text: text.replace(",12.34,", ",12.34 s,"), "value '12.34 s' is not a number"),
        (lambda text: text.replace("fp32,1,done", "fp32,1.5,done"), "batch '1.5' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,-1,done"), "batch '-1' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,inf,done"), "batch 'inf' is not a whole number"),
        (lambda text: text.replace("fp32,1,done", "fp32,,done"), "batch '' is not a whole number"),
        (lambda text: text.replace(",done,", ",failed,", 1), "'failed' is not one of done, refused, not measured"),
        (lambda text: text.replace(",done,", ",refused,", 1), "in a row that is refused; there it is empty"),
        (lambda text: text.replace("end_to_end_s", "speed"), "metric 'speed' is not one of layers, parameters"),
        (lambda text: text.replace(",12.34,s,", ",12.34,min,"), "unit 'min' of end_to_end_s is not 's'"),
        (lambda text: text.replace(",paper,", ",clean,", 1), "protocol 'clean' does not belong here"),
        (lambda text: text.replace(",paper,0,", ",paper,1,", 1), "seed '1' does not belong here"),
        (lambda text: text.replace(SVM, CNN, 1), f"cell '{CNN}' does not belong here"),
        (lambda text: text.replace(content_hash(CPU), content_hash(GPU), 1), "environment_hash '"),
        (lambda text: text + text.splitlines(keepends=True)[1], "metric 'probability_difference' occurs twice"),
        (lambda _: "", "cannot be read as CSV"),
        (lambda text: text + '"', "cannot be read as CSV"),
    ],
)
def test_damaged_rows_are_named(bare_run: Path, damage: Callable[[str], str], message: str) -> None:
    path = measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 9.0}))
    text = path.read_text(encoding="utf-8")
    read_measurements(bare_run)
    assert damage(text) != text
    path.write_text(damage(text), encoding="utf-8")
    record(path)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_measurements(bare_run)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "can't be read as JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "lacks 'gpu'"),
        (json.dumps({"gpu": "H100", "cpu": "a", "cpu_cores": 1}), "gpu: is str, not an object with name"),
        (json.dumps({"gpu": {"name": 5}, "cpu": "a", "cpu_cores": 1}), "gpu: 'name' is int, not str"),
        (json.dumps({"gpu": {}, "cpu": "a", "cpu_cores": 1}), "gpu: lacks 'name'"),
        (json.dumps({"gpu": None, "cpu": ["a"], "cpu_cores": 1}), "'cpu' is list, not str"),
        (json.dumps({"gpu": None, "cpu": "a", "cpu_cores": "two"}), "'cpu_cores' is str, not int"),
        (json.dumps(GPU), "but its folder is named"),
    ],
)
def test_a_damaged_environment_is_named(bare_run: Path, content: str | None, message: str) -> None:
    measure(bare_run, SVM, engine("pytorch-cpu"))
    path = machine_folder(bare_run, CPU) / ENVIRONMENT
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
        record(path)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        write_tables(bare_run)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_renamed_copy_of_a_machine_is_refused(bare_run: Path) -> None:
    measure(bare_run, SVM, engine("pytorch-cpu"))
    folder = machine_folder(bare_run, CPU)
    folder.rename(folder.with_name("my-laptop"))
    with pytest.raises(UserError, match="its folder is named 'my-laptop'; copy a machine's folder as it is"):
        read_measurements(bare_run)


def test_the_readme_describes_every_column_and_metric() -> None:
    readme = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    section = readme.split("## measurements/")[1].split("\n## ")[0]
    for name in (*ENGINE_COLUMNS, *ENGINE_METRICS, *STATUSES):
        assert f"`{name}`" in section, name
