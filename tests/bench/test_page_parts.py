"""The sections of ``index.html``, its tables, pictures and colours."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from page_runs import SOURCE, Page
from report_rows import tables_of

from bench.report import read_results
from bench.report.figures import Figure
from bench.report.page import explanation_pictures
from bench.report.page.findings import findings
from bench.report.page.render import MOST_PICTURES, Picture, render
from bench.report.page.sections import SECTIONS, section_of, tables_in_order
from bench.report.page.views import NUMBER, view


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """Let the bands of the ROC curves, of which only the presence matters here, be made in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.intervals.RESAMPLES", 20)
        yield


# -- tables and sections ---------------------------------------------------------------------------------------------


def test_numbers_are_sorted_by_what_their_column_shows(scored_run: Path) -> None:
    for table in tables_of(scored_run).values():
        shown = view(table, (), {}, scored_run)
        for place, (heading, numeric) in enumerate(shown.headings):
            cells = [row.cells[place] for row in shown.rows if row.cells[place].value is not None] if numeric else []
            for cell in cells:
                found = NUMBER.search(cell.text)
                assert found, (table.name, heading, cell)
                decimals = len(found[0].partition(".")[2])
                scale = 1e9 if heading == "GMACs" else 1
                assert float(found[0].replace("−", "-")) == pytest.approx(cell.value / scale, abs=0.51 * 10**-decimals)


def test_a_table_no_section_names_is_not_lost(scored_run: Path) -> None:
    tables = tables_of(scored_run)
    new = replace(tables["table1"], name="something_new", title="Something new")
    audit = replace(tables["table1"], name="audit_scores", title="An audit")
    text = render(
        scored_run,
        read_results(scored_run),
        {**tables, new.name: new, audit.name: audit},
        said={"audit": ["A verdict.", "A detail."]},
    )
    order = [text.index(f'id="{name}"') for name in ("leaderboard", "table-audit_scores", "table-something_new")]
    assert order == sorted(order)
    assert text.count("A verdict.") == 2  # among the findings, too
    assert text.count("A detail.") == 1
    assert section_of("no_name_at_all", "tables") == "other"
    assert section_of("no_name_at_all", "figures") == "figures"
    shown = [table.name for section in SECTIONS for table in tables_in_order(tables, section)]
    assert sorted(shown) == sorted(tables)


def test_a_table_without_rows_says_so(scored_run: Path) -> None:
    tables = tables_of(scored_run)
    empty = replace(tables["engines"], frame=tables["engines"].frame[:0], display=tables["engines"].display[:0])
    text = render(scored_run, read_results(scored_run), {**tables, "engines": empty})
    assert "no row</td>" in text
    assert "No engine was measured." in text


def test_subsets_of_the_test_rows_are_left_to_rows_csv(scored_run: Path) -> None:
    results = read_results(scored_run)
    twice = pd.concat([results.rows.assign(subset="all"), results.rows.assign(subset="source=busi", value=0.123456)])
    text = render(scored_run, replace(results, rows=twice), tables_of(scored_run))
    assert "0.1235" not in text


# -- pictures --------------------------------------------------------------------------------------------------------


def test_figures_and_pictures_are_part_of_the_page(scored_run: Path) -> None:
    folder = scored_run / "figures"
    folder.mkdir()
    drawing = folder / "training_model2.svg"
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', encoding="utf-8")
    photo = folder / "00001.png"
    photo.write_bytes(b"\x89PNG")
    figures = [
        Figure(name="training_model2", title="Losses of <b>", caption="", svg=drawing),
        Figure(name="samples", title="Samples", caption="", reason="images.parquet is missing"),
    ]
    pictures = [Picture(path=photo, caption=f"picture {number}") for number in range(MOST_PICTURES + 2)]
    text = render(scored_run, read_results(scored_run), tables_of(scored_run), figures, pictures)
    page = Page(text)
    assert [image["src"].partition(",")[0] for image in page.all("img")] == [
        *["data:image/png;base64"] * MOST_PICTURES,
        "data:image/svg+xml;base64",
    ]
    assert "2 more pictures lie in the folder explanations/." in page.texts
    assert "Samples: left out, as images.parquet is missing" in page.texts
    assert "Losses of <b>" in page.texts


class Explained:
    """What the page asks of the explanations of a cell."""

    def __init__(self, folder: Path) -> None:
        common = {"modality": "ultrasound", "source": SOURCE, "mask_share": math.nan}
        self.lines = [
            {**common, "file": folder / f"{row:05}.png", "label": label, "probability": probability}
            for row, (label, probability) in enumerate([(0, 0.4), (0, 0.1), (1, 0.9)])
        ]
        self.lines[2]["mask_share"] = 0.25

    def captions(self) -> list[dict[str, object]]:
        return self.lines


def test_pictures_are_taken_from_the_cells_and_classes_in_turn(tmp_path: Path) -> None:
    found = explanation_pictures({("clean", 0, name): Explained(tmp_path / name) for name in ("a", "b")})
    order = [(picture.path.parent.name, picture.path.stem) for picture in found]
    assert order == [(cell, row) for row in ("00002", "00000", "00001") for cell in ("a", "b")]
    assert found[0].caption == (
        f"a, protocol clean, seed 0: malignant ultrasound of {SOURCE}, probability of malignancy 0.90, "
        "25% of the map lies in the lesion"
    )
    assert found[2].caption.endswith("probability of malignancy 0.40")
    assert explanation_pictures({}) == []


def test_a_shared_place_is_told(scored_run: Path) -> None:
    tables = tables_of(scored_run)
    board = tables["leaderboard"]

    def told(ranks: list[int]) -> bool:
        few = board.frame[: len(ranks)].assign(rank=ranks)
        return any(
            "2 others share its place" in text
            for text in findings({**tables, "leaderboard": replace(board, frame=few)})
        )

    assert told([1, 1, 1, 4])
    assert not told([1, 2, 2, 2])


# -- looks -----------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_have_contrast_in_both_themes(theme: int) -> None:
    css = files("bench.report.page").joinpath("page.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", css)
    colours = {name: values[theme] for name, *values in pairs}
    assert len(colours) == 20
    for ink in ("ink", "quiet", "link", "bad", "good", "unsure"):
        for paper in ("paper", "panel", "mark"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast(colours["warn-ink"], colours["warn-paper"]) >= 4.5
    for number in range(1, 9):
        assert contrast(colours[f"series-{number}"], colours["paper"]) >= 3  # of lines, WCAG 1.4.11
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
