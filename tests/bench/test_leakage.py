"""The leakage gap and the groups on both sides of a split: numbers, words, and files that say what can't be."""

import math
from pathlib import Path

import pandas as pd
import pytest
from report_rows import failed, row_of, scores, shown_in, tables_of, write_cell, write_run

from bench.report import read_results
from bench.report.leakage import duplicate_sentences, gap_sentences
from bench.report.read_straddling import STRADDLING, read_straddling
from bench.report.summary import summarise
from fusion.checksums import record
from fusion.errors import UserError
from fusion.straddling import COLUMNS

LR, CNN, FAILS = "model1/resnet50+lr", "model3/cnn17+e25+b32", "model2/resnet50+adam"
COUNTS = {
    "copies": ("all", 647, 647, 0, 333, 415),
    "known": ("busi", 124, 275, 6, 92, 178),
    "identical": ("all", 1, 2, 1, 0, 0),
    "similar": ("all", 45, 98, 2, 32, 52),
    "joined": ("all", 124, 275, 6, 92, 178),
    "any": ("all", 496, 647, 6, 286, 421),
}
"""What the real BUSI has under protocol paper and seed 0."""


@pytest.fixture
def two_protocols(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run", cells=[LR, CNN, FAILS], protocols=["paper", "clean"])
    for cell, paper, clean in ((LR, 0.9, 0.7), (CNN, 0.8, 0.82)):
        write_cell(folder, cell, scores(paper))
        write_cell(folder, cell, scores(clean), "clean")
    write_cell(folder, FAILS, scores(0.9))
    write_cell(folder, FAILS, failed("out of memory"), "clean")
    return folder


def write_counts(folder: Path, seeds: int = 1) -> Path:
    rows = []
    for protocol in ("paper", "clean"):
        for seed in range(seeds):
            for kind, (source, *numbers, straddling, leaked) in COUNTS.items():
                split = (min(straddling + seed, numbers[0]), leaked, 431) if protocol == "paper" else (0, 0, 126)
                rows.append((protocol, seed, kind, source, *numbers, *split))
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / STRADDLING, index=False)
    record(folder / STRADDLING)
    return folder / STRADDLING


# -- the gap ---------------------------------------------------------------------------------------------------------


def test_the_gap_is_paper_minus_clean_with_an_interval(two_protocols: Path) -> None:
    table = tables_of(two_protocols)["leakage_gap"]
    row = row_of(table, LR)
    assert (row["accuracy_under_paper"], row["accuracy_under_clean"]) == (0.9, 0.7)
    # both intervals reach 0.05 to each side
    ends = [row[f"accuracy_gap{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([0.2, 0.2 - math.hypot(0.05, 0.05), 0.2 + math.hypot(0.05, 0.05)])
    assert list(shown_in(table, LR)) == [
        *(LR, "0.900", "0.700", "+0.200 (+0.129 to +0.271)"),
        *("0.900", "0.700", "+0.200"),  # no interval of the AUC is in these rows
    ]
    assert shown_in(table, CNN)["Acc. gap"] == "−0.020 (−0.091 to +0.051)"


def test_a_cell_that_failed_once_has_no_gap_but_a_reason(two_protocols: Path) -> None:
    table = tables_of(two_protocols)["leakage_gap"]
    assert list(shown_in(table, FAILS))[1:4] == ["0.900", "failed", "–"]
    assert (row_of(table, FAILS)["status_paper"], row_of(table, FAILS)["status_clean"]) == ("done", "failed")
    assert any("failed (out of memory): model2/resnet50+adam [clean]" in note for note in table.notes)


def test_the_sentence_counts_the_cells_that_are_sure(two_protocols: Path) -> None:
    results = read_results(two_protocols)
    (sentence,) = gap_sentences(summarise(results.run, results.rows))
    assert sentence == (
        "leakage gap: over 2 cells of Models 1 to 3 accuracy under protocol paper differs from that under clean by "
        "+0.090 on average, and at most by +0.200 (+0.129 to +0.271) (model1/resnet50+lr); the interval of 1 of them "
        "lies above 0"
    )
    assert sentence in tables_of(two_protocols)["leakage_gap"].notes


def test_one_protocol_alone_says_how_to_get_the_other(scored_run: Path) -> None:
    table = tables_of(scored_run)["leakage_gap"]
    assert table.frame.empty
    assert any("protocol clean was not run" in note and "--protocol both" in note for note in table.notes)


# -- groups on both sides --------------------------------------------------------------------------------------------


def test_groups_on_both_sides_are_counted_by_kind_and_protocol(two_protocols: Path) -> None:
    write_counts(two_protocols)
    table = tables_of(two_protocols)["duplicates"]
    frame = table.frame.set_index(["protocol", "kind"])
    assert (frame.loc["clean"]["straddling"] == 0).all()
    assert frame.loc[("paper", "known"), "straddling"] == 92
    assert frame.loc[("paper", "any"), "leaked_share"] == pytest.approx(421 / 431)
    shown = table.display.set_index(["Protocol", "Kind"])
    assert list(shown.loc[("paper", "known")]) == ["busi", "124", "275", "6", "92", "178 of 431 (41%)"]


def test_several_seeds_are_a_mean_and_a_range(two_protocols: Path) -> None:
    write_counts(two_protocols, seeds=3)
    shown = tables_of(two_protocols)["duplicates"].display.set_index(["Protocol", "Kind"])
    assert shown.loc[("paper", "known"), "On both sides"] == "93 (92–94)"
    assert shown.loc[("clean", "known"), "On both sides"] == "0"


def test_a_sentence_for_each_protocol_and_one_for_identical_images(two_protocols: Path) -> None:
    write_counts(two_protocols)
    paper, clean, same = duplicate_sentences(read_results(two_protocols))
    assert paper.startswith("duplicates: under protocol paper 98% of the test rows show an image, or one of its group")
    assert "92 of 124 groups of images that belong together and 333 of 647 images" in paper
    assert "under protocol clean 0% of the test rows" in clean
    assert same == "duplicates: 1 group of images has identical pixels, 1 of two classes"


def test_an_older_run_says_how_to_count(two_protocols: Path) -> None:
    table = tables_of(two_protocols)["duplicates"]
    assert table.frame.empty
    assert any("call the same 'fusebench run' again" in note for note in table.notes)


def test_a_split_that_was_not_possible_is_told(two_protocols: Path) -> None:
    path = write_counts(two_protocols)
    path.write_text(path.read_text(encoding="utf-8").replace(",0,0,126", ",,,"), encoding="utf-8")
    record(path)
    results = read_results(two_protocols)
    assert "duplicates: under protocol clean the data set can't be split" in duplicate_sentences(results)
    shown = tables_of(two_protocols)["duplicates"].display.set_index(["Protocol", "Kind"])
    assert list(shown.loc[("clean", "known")])[-2:] == ["–", "–"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("groups", "group", "its columns are not protocol, seed"),
        ("clean,0,any", "fair,0,any", "protocol 'fair' is not one of paper, clean"),
        ("clean,0,any", "clean,0,all", "kind 'all' is not one of copies"),
        ("124,275", "many,275", "groups 'many' is not a whole number"),
        ("124,275", "1.5,275", "groups '1.5' is not a whole number"),
        ("124,275", "-1,275", "groups '-1' is not a whole number"),
        ("124,275", "inf,275", "groups 'inf' is not a whole number"),
        ("124,275", ",275", "groups '' is not a whole number"),
        (",92,178,431", ",,178,431", "a count is missing"),
        (",92,178,431", ",92.5,178,431", "a count is not a whole number"),
        (",92,178,431", ",92,0,0", "there is no test row"),
        (",92,178,431", ",92,432,431", "a count is larger than its whole"),
        (",92,178,431", ",125,178,431", "a count is larger than its whole"),
        ("paper,0,joined,all", "paper,0,known,busi", "a line occurs twice"),
        ("paper,0,any,all", "paper,0,known,oasbud", "a line of 'any' is missing"),
        ("paper,0,copies", '"paper,0,copies', "EOF inside string"),
    ],
)
def test_counts_that_can_not_be_are_refused_on_one_line(two_protocols: Path, old: str, new: str, reason: str) -> None:
    path = write_counts(two_protocols)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    record(path)
    with pytest.raises(UserError) as caught:
        read_straddling(two_protocols)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged (")
    assert reason in message
    assert "call the same 'fusebench run' again" in message
    assert "\n" not in message


def test_a_file_that_is_no_text_is_refused(two_protocols: Path) -> None:
    (two_protocols / STRADDLING).write_bytes(b"\xff\xfe\x00")
    record(two_protocols / STRADDLING)
    with pytest.raises(UserError, match="is damaged"):
        read_straddling(two_protocols)
