"""The text of ``index.html``: whole, escaped, linked, and readable in both themes."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from page_runs import ALERT, FAILED, GOOD, HOSTILE_CELL, REASON, SOURCE, Page, write_hostile_run
from report_rows import scores, tables_of, write_cell, write_run

from bench.report import audit_tables, write_report
from bench.report.page.provenance import Anchors
from bench.report.page.render import embedded_json
from fusion.text import one_line


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
    of_the_paper = len(audit_tables())  # whose numbers rest on no data of ours
    assert len(shown) >= tables - of_the_paper > 8
    assert any(text.startswith("phantom data: busi") for text in page.texts)


# -- whole runs -------------------------------------------------------------------------------------------------------


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
