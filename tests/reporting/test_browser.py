"""The page in a browser: widths, light and dark, what a screen reader gets, print, no requests."""

from __future__ import annotations

import base64
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_batch, write_run

import tsstore

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and its driver are not there"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

AXE = os.environ.get("TSSTORE_AXE")
"""Where the script of npm's axe-core is, which `.ci/run` installs."""

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
]
LAYERS = {"features.0.conv_with_a_rather_long_name": 5, "classifier": 40}

CONTRASTS = """
const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
function paper(element) {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.tagName === "title") continue;
  const style = getComputedStyle(element);
  const inside = element instanceof SVGElement;
  const pair = [numbers(inside ? style.fill : style.color), paper(element)].map(light);
  const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
  found.push([ratio, element.tagName + ": " + element.textContent.trim().slice(0, 40)]);
}
return found;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with all that there can be on one: groups, another run, long names."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(300), "label": np.arange(300) % 3}
    for name in ("run", "other"):
        batch = draw_batch(rng, 300, neurons=LAYERS, columns=columns)
        write_run(folder / name, [batch], neurons=LAYERS)
    tsstore.report(folder / "run", folder / "report.html", by="label", compare=folder / "other")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """One browser for all, with the page open and all of its details as well."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(page.as_uri())
        open_all(driver)
        yield driver
    finally:
        driver.quit()


def open_all(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")


def look(browser, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_nothing_is_asked_of_anybody_and_the_console_stays_empty(browser, page):
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # Beside the page there are those of the browser's own first page.
    asked = [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome")]
    assert page.as_uri() in asked
    assert {url.partition(",")[0] for url in asked} <= {page.as_uri(), "data:image/png;base64"}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_and_all_text_can_be_read(browser, width, scheme):
    look(browser, width, scheme)
    page = "document.documentElement"
    whole, shown = browser.execute_script(f"return [{page}.scrollWidth, {page}.clientWidth]")
    assert whole <= shown <= width
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [(text, ratio) for ratio, text in contrasts if ratio < 4.5] == []
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_who_cannot_see_it_gets_headings_landmarks_and_a_table_for_each_chart(browser):
    look(browser, 1280)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    roles = [role for role, _ in seen]
    assert {"main", "heading", "table", "columnheader", "rowheader"} <= set(roles)
    # A banner and a footer, whose roles have had several names.
    assert {"banner"} & set(roles)
    charts = [name for role, name in seen if role in ("image", "img", "graphics-document")]
    assert len([name for name in charts if "efficiency by label" in name]) == len(LAYERS)
    assert all(charts)
    assert len(charts) == len(LAYERS) * 5
    tables = browser.execute_script(
        "return [...document.querySelectorAll('figure')].map("
        "one => one.querySelectorAll('svg + figcaption + details tbody tr').length)"
    )
    assert len(tables) == len(LAYERS) * 4
    assert all(tables)
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])"
    )
    assert levels[0] == 1
    assert all(later <= level + 1 for level, later in pairwise(levels))


@pytest.mark.skipif(not AXE, reason="TSSTORE_AXE does not name axe.min.js of npm's axe-core")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser, width, scheme):
    look(browser, width, scheme)
    browser.execute_script(Path(AXE).read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    faults = [
        (fault["id"], fault["help"], [node["html"] for node in fault["nodes"][:3]])
        for fault in found["violations"]
    ]
    assert faults == []
    assert len(found["passes"]) > 20


def test_it_prints(browser):
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 10_000
    # A page of A4 with its margins; nothing can be scrolled on paper.
    look(browser, 720)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert too_wide(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def too_wide(browser, kinds="html, table"):
    """Return what begins or ends beside the window."""
    return browser.execute_script(
        f"return [...document.querySelectorAll('{kinds}')].filter(one => one.scrollWidth > "
        "innerWidth || one.getBoundingClientRect().right > innerWidth + 1)"
        ".map(one => one.tagName + ' ' + one.textContent.slice(0, 40))"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_what_notebooks_show_is_no_wider_than_their_page(browser, page, tmp_path, width):
    store = tsstore.open(page.parent / "run")
    grouped = tsstore.analyze(store, by="label")
    views = [store, store["classifier"], grouped, grouped.whole, tsstore.plan(store)]
    views += [tsstore.neurons(store), tsstore.states(store, "classifier")]
    views += [tsstore.compare(store, page.parent / "other")]
    notebook = tmp_path / "notebook.html"
    shown = "<hr>".join(view._repr_html_() for view in views)
    notebook.write_text(f"<!doctype html><meta charset='utf-8'>{shown}", encoding="utf-8")
    look(browser, width)
    browser.get(notebook.as_uri())
    try:
        open_all(browser)
        assert too_wide(browser, "html, body > div, p, svg") == []
        ends = browser.execute_script(
            "return [...document.querySelectorAll('td:not(:first-child)')]"
            ".map(one => getComputedStyle(one).textAlign)"
        )
        assert set(ends) == {"right"}
    finally:
        browser.get(page.as_uri())
        open_all(browser)
