"""No measurements, those of cells that were run again since, and those of other data or weights."""

from pathlib import Path

from measured_rows import CNN, CPU, GPU, SVM, engine, measure, network, shown, write_results
from report_rows import printed, tables_of

from bench.engine_rows import ENGINE_COLUMNS
from bench.report import Table, read_measurements, write_tables
from bench.report.measured import NOTHING


def outdated_notes(table: Table) -> list[str]:
    return [note for note in table.notes if "run again" in note]


def test_without_measurements_the_tables_say_what_to_do(bare_run: Path) -> None:
    tables = write_tables(bare_run)
    assert list(tables)[:8] == [*(f"table{number}" for number in range(1, 7)), "engines", "leaderboard"]
    assert tables["engines"].frame.empty
    assert list(tables["table5"].display["PyTorch, s"]) == ["not measured"] * 3
    for name in ("table5", "engines", "leaderboard"):
        assert NOTHING in tables[name].notes
        assert NOTHING in " ".join(printed(tables[name], 80).split())
    assert read_measurements(bare_run).columns.tolist() == [*ENGINE_COLUMNS, "machine"]


def test_measurements_of_a_cell_that_was_run_again_are_left_out_and_named(bare_run: Path) -> None:
    of_old = {"config_hash": "old", "weights": "random", "data_hash": "f" * 64}
    for environment in (CPU, GPU):
        measure(bare_run, SVM, [*network(), *engine("pytorch-cpu", p50={1: 9.0})], environment, **of_old)
    measure(bare_run, CNN, [*network(), *engine("pytorch-cpu", p50={1: 7.0})])
    measure(bare_run, CNN, engine("pytorch-cpu", p50={1: 1.0}), seed=1, config_hash="old")
    for cell in (SVM, CNN):
        write_results(bare_run, cell, "c")
    write_results(bare_run, CNN, "c", seed=1)
    tables = tables_of(bare_run)
    assert tables["engines"].frame[["machine", "cell", "latency_p50_ms"]].values.tolist() == [
        ["AMD EPYC, 2 cores", CNN, 7.0]
    ]
    assert shown(tables["table5"], cell=SVM)[["PyTorch, s", "Layers"]].values.tolist() == [["not measured", "– / 177"]]
    assert shown(tables["leaderboard"], cell=SVM)[["p50, ms", "MiB"]].values.tolist() == [["–", "–"]]
    for name in ("table5", "engines", "leaderboard"):
        assert outdated_notes(tables[name]) == [
            f"measured before the cell was run again, and left out: {SVM}, {CNN}; run 'fusebench measure'"
        ]
    for name, table in tables.items():  # what is left out gives no marks either
        assert "other data" not in "\n".join(table.notes), name
        assert set(table.frame["weights"]) <= {"imagenet"}, name


def test_when_all_that_was_measured_is_outdated_nothing_else_is_said(bare_run: Path) -> None:
    cells = [f"model2/resnet50+{number}" for number in range(3)]
    for cell in cells:
        measure(bare_run, cell, engine("pytorch-cpu", p50={1: 9.0}))
        write_results(bare_run, cell, "new")
    tables = tables_of(bare_run)
    assert tables["engines"].frame.empty
    for name in ("table5", "engines", "leaderboard"):
        assert NOTHING not in tables[name].notes
        (note,) = outdated_notes(tables[name])
        assert "left out: 3 cells; run" in note


def test_measurements_of_cells_as_they_are_or_without_results_are_shown(bare_run: Path) -> None:
    for cell in (SVM, CNN):
        measure(bare_run, cell, engine("pytorch-cpu", p50={1: 9.0}))
    write_results(bare_run, SVM, "c")
    tables = tables_of(bare_run)
    assert list(tables["engines"].frame["cell"]) == [SVM, CNN]
    assert not any(outdated_notes(table) for table in tables.values())


def test_a_cell_that_failed_when_it_was_run_again_has_no_measurements(bare_run: Path) -> None:
    measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 9.0}))
    nothing = {"status": "failed", "metric": "", "value": "", "low": "", "high": "", "n": 0, "reason": "no luck"}
    write_results(bare_run, SVM, "new", **nothing)
    table = tables_of(bare_run)["engines"]
    assert table.frame.empty
    assert len(outdated_notes(table)) == 1


def test_measurements_on_other_data_or_random_weights_are_named(bare_run: Path) -> None:
    labels = {"weights": "random", "synthetic_sources": "busi", "data_hash": "f" * 64}
    measure(bare_run, SVM, engine("pytorch-cpu", p50={1: 9.0}), **labels)
    for name, table in tables_of(bare_run).items():
        notes = "\n".join(table.notes)
        assert "phantom data: busi" in notes, name
        assert "weights: random" in notes, name
        assert "other data (ffffffffffff)" in notes, name
