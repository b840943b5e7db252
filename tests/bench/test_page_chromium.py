"""``index.html`` in a real browser: what its scripts do, and that nothing foreign runs or is fetched."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_runs import FAILED, GOOD, HOSTILE_CELL, write_hostile_run

from bench.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    "--force-prefers-reduced-motion",  # scrolling is done when the call returns
)
FITS = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with chromedriver here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # the path of the driver is given, so that selenium asks no network for one
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_hostile_run(tmp_path_factory.mktemp("chromium") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.intervals.RESAMPLES", 20)  # bands are only looked for here
        write_report(run_dir)
    return run_dir / "index.html"


@pytest.fixture
def page(browser: Any, index: Path) -> Iterator[Any]:
    """The page of the hostile run, newly opened at 1600 pixels; it has then said nothing and asked for nothing."""
    width(browser, 1600)
    browser.get(index.as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"]
    assert urls
    assert [url for url in urls if not url.startswith((index.as_uri(), "data:"))] == []


def width(browser: Any, pixels: int) -> None:
    size = {"width": pixels, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def find(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def column(page: Any, table: str, heading: str) -> list[str]:
    """Return the texts of a column, of the rows that are shown."""
    return page.execute_script(
        """const table = document.getElementById(arguments[0]);
        const place = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === arguments[1]);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[place].textContent);""",
        table,
        heading,
    )


def heading(page: Any, table: str, text: str) -> Any:
    found = page.find_elements(By.CSS_SELECTOR, f"#{table} thead th")
    return next(cell for cell in found if cell.get_attribute("textContent") == text)


def wait(holds: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def drawn(page: Any, plot: str) -> Any:
    """Bring a plot into view and return its element when it is drawn."""
    place = find(page, f'[data-plot="{plot}"]')
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", place)
    wait(lambda: page.execute_script("return arguments[0].drawn === true", place))
    return place


# -- tables ----------------------------------------------------------------------------------------------------------


def test_a_column_is_sorted_by_its_numbers_and_missing_ones_stand_last(page: Any) -> None:
    cell = heading(page, "table-leaderboard", "p50, ms")
    cell.find_element(By.TAG_NAME, "button").click()
    assert cell.get_attribute("aria-sort") == "descending"
    assert column(page, "table-leaderboard", "p50, ms")[:3] == ["40.0", "9.00", "–"]
    cell.find_element(By.TAG_NAME, "button").click()
    assert cell.get_attribute("aria-sort") == "ascending"
    # as text 40.0 would stand before 9.00
    assert column(page, "table-leaderboard", "p50, ms")[:3] == ["9.00", "40.0", "–"]


def test_a_column_is_sorted_by_the_keyboard(page: Any) -> None:
    cell = heading(page, "table-leaderboard", "Model")
    page.execute_script("arguments[0].focus()", cell.find_element(By.TAG_NAME, "button"))
    page.switch_to.active_element.send_keys(Keys.ENTER)
    names = column(page, "table-leaderboard", "Model")
    assert cell.get_attribute("aria-sort") == "ascending"
    assert [name.partition("/")[0] for name in names] == sorted(name.partition("/")[0] for name in names)
    page.switch_to.active_element.send_keys(Keys.SPACE)
    assert column(page, "table-leaderboard", "Model") == names[::-1]
    # the next press of the tab key goes to the next heading
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Acc."


def test_rows_are_filtered_by_text_and_by_model(page: Any) -> None:
    block = find(page, '[data-table="leaderboard"]')
    box = block.find_element(By.TAG_NAME, "input")
    count = block.find_element(By.CLASS_NAME, "count")
    total = len(column(page, "table-leaderboard", "Model"))
    assert count.text == f"{total} of {total} rows"
    box.send_keys("<SCRIPT> sgdm")
    assert column(page, "table-leaderboard", "Model") == [HOSTILE_CELL]
    assert count.text == f"1 of {total} rows"
    box.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    chips = {chip.text: chip for chip in block.find_elements(By.CLASS_NAME, "chip")}
    assert list(chips) == ["model1", "model2", "model3"]
    chips["model2"].click()
    assert chips["model2"].get_attribute("aria-pressed") == "true"
    assert sorted(column(page, "table-leaderboard", "Model")) == sorted([HOSTILE_CELL, FAILED])
    chips["model1"].send_keys(Keys.SPACE)
    assert GOOD in column(page, "table-leaderboard", "Model")
    for name in ("model1", "model2"):
        chips[name].click()
    assert len(column(page, "table-leaderboard", "Model")) == total


def test_failed_cells_and_engines_not_measured_are_seen(page: Any) -> None:
    assert "✕ failed" in [text.replace("\u202f", " ") for text in column(page, "table-leaderboard", "Status")]
    assert any("not measured" in text for text in column(page, "table-engines", "Status"))


def test_a_number_opens_the_rows_it_was_made_of(page: Any) -> None:
    link = find(page, 'a[href="#cell-paper-model1-resnet50-svm-auc"]')
    page.execute_script("arguments[0].click()", link)
    row = find(page, "#cell-paper-model1-resnet50-svm-auc")
    wait(row.is_displayed)
    assert row.text.split()[:2] == ["auc", "0.9000,"]


# -- hostile names ---------------------------------------------------------------------------------------------------


def test_hostile_names_are_shown_and_not_run(page: Any) -> None:
    assert HOSTILE_CELL in column(page, "table-leaderboard", "Model")
    assert (
        page.execute_script("return document.querySelectorAll('img[src=x], [onerror], [onmouseover], b').length") == 0
    )
    # an alert would have stopped every later call
    assert page.title == "Run run · fusebench"


def test_even_a_script_that_got_into_the_page_would_not_run(browser: Any, index: Path, tmp_path: Path) -> None:
    text = index.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    injected = "<main><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    broken.write_text(text.replace("<main", f"{injected}<main", 1), encoding="utf-8")
    browser.get(broken.as_uri())
    assert browser.title == "Run run · fusebench"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
    browser.get_log("performance")


# -- plots -----------------------------------------------------------------------------------------------------------


def test_a_roc_curve_answers_to_the_pointer_with_its_band_and_name(page: Any) -> None:
    place = drawn(page, "roc-0")
    curves = page.execute_script("return arguments[0].data.length", place)
    x, y = page.execute_script(
        """const [axis, other] = [arguments[0]._fullLayout.xaxis, arguments[0]._fullLayout.yaxis];
        const curve = arguments[0].data[1], box = arguments[0].getBoundingClientRect();
        return [box.left + axis._offset + axis.d2p(curve.x[60]), box.top + other._offset + other.d2p(curve.y[60])];""",
        place,
    )
    actions = ActionChains(page)
    actions.w3c_actions.pointer_action.move_to_location(int(x) - 4, int(y) - 4)
    actions.w3c_actions.pointer_action.move_to_location(int(x), int(y))
    actions.perform()
    wait(lambda: page.execute_script("return arguments[0].data.length", place) == curves + 2)
    label = find(page, '[data-plot="roc-0"] .hoverlayer').text
    assert "AUC" in label
    assert "model1/" in label


def test_a_roc_curve_is_chosen_by_the_keyboard(page: Any) -> None:
    place = drawn(page, "roc-0")
    curves = page.execute_script("return arguments[0].data.length", place)
    select = find(page, '[data-highlight="roc-0"]')
    select.send_keys(Keys.ARROW_DOWN)
    wait(lambda: page.execute_script("return arguments[0].data.length", place) == curves + 2)
    assert page.execute_script("return arguments[0].data.filter((trace) => trace.fill).length", place) == 1
    assert place.get_attribute("role") == "img"
    assert place.get_attribute("aria-label").startswith("ROC curves of model1")


def test_names_in_plots_are_text(page: Any) -> None:
    place = drawn(page, "cost-0")
    select = find(page, '[data-highlight="cost-0"]')
    names = [option.get_attribute("textContent") for option in select.find_elements(By.TAG_NAME, "option")]
    assert HOSTILE_CELL in names
    page.execute_script(
        "Plotly.Fx.hover(arguments[0], [{curveNumber: arguments[1], pointNumber: 0}])", place, names.index(HOSTILE_CELL)
    )
    wait(lambda: find(page, '[data-plot="cost-0"] .hoverlayer').text)
    assert HOSTILE_CELL in find(page, '[data-plot="cost-0"] .hoverlayer').text


# -- looks -----------------------------------------------------------------------------------------------------------


def test_the_theme_is_changed_and_kept_and_plots_follow(page: Any) -> None:
    place = drawn(page, "cost-0")
    ink = "return arguments[0].layout.font.color"
    button = find(page, "#theme")
    assert button.text == "Dark"
    light = (
        page.execute_script("return getComputedStyle(document.body).backgroundColor"),
        page.execute_script(ink, place),
    )
    button.click()
    dark = (
        page.execute_script("return getComputedStyle(document.body).backgroundColor"),
        page.execute_script(ink, place),
    )
    assert light == ("rgb(255, 255, 255)", "rgba(27, 29, 31, 1)")
    assert dark == ("rgb(20, 23, 26)", "rgba(232, 232, 228, 1)")
    page.refresh()
    assert find(page, "#theme").text == "Light"
    find(page, "#theme").click()
    page.execute_script("localStorage.clear()")


def test_the_page_never_scrolls_sideways(page: Any) -> None:
    page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for pixels in (1600, 800, 380, 320):
        width(page, pixels)
        drawn(page, "roc-0")
        wait(lambda: page.execute_script(FITS))
        main = page.execute_script("return document.querySelector('main').clientWidth")
        assert main > 0.8 * pixels
        # a wide table scrolls in a region of its own that the keyboard reaches
        region = find(page, '[data-table="engines"] .scroll')
        assert region.get_attribute("tabindex") == "0"
        if pixels < 1600:
            assert page.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", region)


def test_the_first_tab_offers_to_skip_to_the_results(page: Any) -> None:
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.text == "Skip to the results"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.switch_to.active_element.get_attribute("id") == "main"


def test_print_is_light_without_controls(page: Any) -> None:
    find(page, "#theme").click()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not any(
            one.is_displayed() for one in page.find_elements(By.CSS_SELECTOR, ".controls, .contents, #theme")
        )
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        page.execute_script("localStorage.clear()")


def test_without_scripts_the_page_still_says_everything(browser: Any, index: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(index.as_uri())
        assert HOSTILE_CELL in find(browser, "#table-leaderboard").text
        assert "This plot needs JavaScript" in find(browser, "#roc-0").text
        assert not find(browser, "#theme").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.get_log("browser"), browser.get_log("performance")
