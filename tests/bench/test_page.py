"""The text of ``index.html``: whole, escaped, linked, and readable in both themes."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from page_runs import ALERT, FAILED, GOOD, HOSTILE_CELL, REASON, SOURCE, write_hostile_run
from report_rows import scores, tables_of, write_cell, write_run

from bench.report import read_results, write_report
from bench.report.figures import Figure
from bench.report.layout import one_line
from bench.report.page.provenance import Anchors
from bench.report.page.render import MOST_PICTURES, Picture, embedded_json, render
from bench.report.page.sections import NUMBER, SECTIONS, section_of, tables_in_order, view

VOID = {"meta", "img", "input", "br", "link", "hr"}


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


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """Let the bands of the ROC curves, of which only the presence matters here, be made in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.intervals.RESAMPLES", 20)
        yield


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_hostile_run(tmp_path_factory.mktemp("page") / "run <i>")
    write_report(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def page(hostile_run: Path) -> Page:
    return Page((hostile_run / "index.html").read_text(encoding="utf-8"))


# -- hostile texts ---------------------------------------------------------------------------------------------------


def test_names_and_reasons_are_text_and_never_markup(page: Page) -> None:
    shown = " ".join(page.texts)
    for text in (HOSTILE_CELL, one_line(REASON), SOURCE, "{{ 7 * 7 }}", "<img src=x onerror=alert(3)> CPU"):
        assert text in shown
    assert {tag for tag, _ in page.elements}.isdisjoint({"b", "object", "iframe", "base", "form"})
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert not [source for source in page.all("img") if not source["src"].startswith("data:image/")]


def test_no_control_or_direction_character_reaches_the_page(hostile_run: Path) -> None:
    markup = (hostile_run / "index.html").read_text(encoding="utf-8").partition("<script")[0]
    assert not re.search("[\u2028\u2029\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", markup)


def test_only_the_two_scripts_of_the_page_may_run(page: Page) -> None:
    code = [text for attributes, text in page.scripts if not attributes]
    data = [json.loads(text) for attributes, text in page.scripts if attributes]
    assert len(code) == 2
    assert all(attributes["type"] == "application/json" for attributes, _ in page.scripts if attributes)
    assert not any(ALERT in text for text in code)
    assert HOSTILE_CELL in {curve["name"] for plot in data for curve in plot.get("curves", [])}
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "a&amp;b"])
def test_embedded_json_holds_no_character_that_html_reads(text: str) -> None:
    found = embedded_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(found)
    assert json.loads(found) == {text: [text]}


def test_embedded_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embedded_json([math.nan])


# -- structure -------------------------------------------------------------------------------------------------------


def test_every_table_stands_once_with_caption_scopes_and_its_files(page: Page, hostile_run: Path) -> None:
    tables = tables_of(hostile_run)
    captions = page.texts
    for name, table in tables.items():
        assert page.ids.count(f"table-{name}") == 1
        assert one_line(table.title) in captions
        assert {f"tables/{name}.{ending}" for ending in ("csv", "md", "tex")} <= {a.get("href") for a in page.all("a")}
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert sum(tag == "caption" for tag, _ in page.elements) == sum(tag == "table" for tag, _ in page.elements)
    assert len(page.ids) == len(set(page.ids))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.elements}
    for region in (found for found in page.all("div") if found.get("role") == "region"):
        assert region["tabindex"] == "0"
        assert region.get("aria-label") or region["aria-labelledby"] in page.ids


def test_every_link_leads_to_a_place_of_the_page_or_a_file_beside_it(page: Page, hostile_run: Path) -> None:
    links = {found["href"] for found in page.all("a")}
    assert len(links) > 30
    for link in links:
        assert re.fullmatch(r"[#\w./%+~=-]+", link)
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (hostile_run / unquote(link)).is_file()


def test_a_number_of_the_leaderboard_leads_to_its_row(hostile_run: Path) -> None:
    text = (hostile_run / "index.html").read_text(encoding="utf-8")
    board = text[text.index('id="table-leaderboard"') : text.index("</table>", text.index('id="table-leaderboard"'))]
    assert '<a href="#cell-paper-model1-resnet50-svm-auc" tabindex="-1">0.900</a>' in board
    row = re.search('<tr id="cell-paper-model1-resnet50-svm-auc">.*?</tr>', text)
    assert row
    assert re.sub("<[^>]+>", " ", row[0]).split() == ["auc", "0.9000,", "n", "100"]


def test_cells_that_share_their_letters_have_ids_of_their_own() -> None:
    rows = pd.DataFrame({"protocol": "paper", "cell": ["model1/a+b", "model1/a-b", "model1/A b", "model1/a+b"]})
    anchors = Anchors(rows)
    assert len(anchors) == len(set(anchors.values())) == 3
    assert all(re.fullmatch("[a-z0-9-]+", anchor) for anchor in anchors.values())


def test_failed_and_missing_cells_are_told_by_word_and_mark(page: Page, hostile_run: Path) -> None:
    text = (hostile_run / "index.html").read_text(encoding="utf-8")
    for word, mark in (("failed", "✕"), ("not run", "○"), ("not measured", "○"), ("done", "✓")):
        kind = word.replace(" ", "-")
        assert re.search(
            f'class="[^"]*status {kind}"[^>]*><span class="mark" aria-hidden="true">{mark}</span>[^<]{{0,9}}{word}',
            text,
        ), word
    assert f"seed 0 failed: {one_line(REASON)}" in page.texts
    assert any("1 failed" in text and "not run" in text for text in page.texts)


def test_warnings_stand_in_the_head_and_beside_every_table_and_plot(page: Page) -> None:
    shown = [text for text in page.texts if text == "random weights"]
    tables = sum(found.get("class") == "table" for found in page.all("div"))
    assert len(shown) >= tables > 8
    assert any(text.startswith("phantom data: busi") for text in page.texts)


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
        scored_run, read_results(scored_run), {**tables, new.name: new, audit.name: audit}, audit=["A verdict."]
    )
    order = [text.index(f'id="{name}"') for name in ("leaderboard", "table-audit_scores", "table-something_new")]
    assert order == sorted(order)
    assert "A verdict." in text
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
    assert "Samples is left out: images.parquet is missing." in page.texts
    assert "Losses of <b>" in page.texts


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


def test_the_page_is_one_file_of_bounded_size(hostile_run: Path) -> None:
    assert (hostile_run / "index.html").stat().st_size < 8 * 2**20
    assert not [path for path in hostile_run.iterdir() if path.name.startswith(".")]


def test_a_run_without_any_result_has_a_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", cells=[GOOD, FAILED])
    write_report(run_dir)
    page = Page((run_dir / "index.html").read_text(encoding="utf-8"))
    assert "No cell has rows." in page.texts
    assert "No engine was measured." in page.texts
    assert not [found for found in page.all("div") if "data-plot" in found]
    assert len(page.scripts) == 1


def test_seeds_stand_side_by_side(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", cells=[GOOD], seeds=[0, 1])
    for seed in (0, 1):
        write_cell(run_dir, GOOD, scores(0.8 + seed / 10), seed=seed)
    tables = write_report(run_dir).tables
    assert tables["leaderboard"].frame["seeds"].tolist() == [2]
    text = (run_dir / "index.html").read_text(encoding="utf-8")
    row = re.search('<tr id="cell-paper-model1-resnet50-svm-accuracy">.*?</tr>', text)
    assert row
    assert re.findall('class="number">([^<]+)<', row[0]) == [
        "0.8000 (0.7500–0.8500), n 100",
        "0.9000 (0.8500–0.9500), n 100",
    ]
