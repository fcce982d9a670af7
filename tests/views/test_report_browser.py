"""The report's page in a real browser: it asks for nothing, says no error, draws its charts, and its tables sort."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands.report import report
from tests.helpers import report_helpers

CHARTS = 7  # error against time, test errors, four learning curves, cost; parity and memory are further down


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium here: `apt-get install chromium`"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = report_helpers.write_run(tmp_path_factory.mktemp("run") / 'decoder\'s "run" & more')
    report_helpers.add_pictures(run_dir)
    return report(run_dir, formats=["html"]).pages[0]


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def opened(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The page, what it has asked for beyond itself, and what it has complained of."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda each: said.append(str(each)))
    page.goto(page_file.as_uri())
    yield page, asked, said
    context.close()


def test_the_page_is_whole(opened: tuple[Any, list[str], list[str]], page_file: Path) -> None:
    page, asked, said = opened
    assert page.locator(".lead").first.inner_text().startswith("With routing 1, TensorFlow is 1.25 times as fast")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out at the side
    for chart in page.locator(".chart").all():  # each is drawn as it comes near
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    assert page.locator(".chart").count() == CHARTS + 2

    table = page.locator("#trials table")
    column = [head.inner_text() for head in table.locator("thead th").all()].index("s/epoch")
    cells = table.locator(f"tbody td:nth-child({column + 1})")
    before = [float(text) for text in cells.all_inner_texts()]
    button = table.locator("thead button").nth(column)
    button.focus()
    page.keyboard.press("Enter")
    assert [float(text) for text in cells.all_inner_texts()] == sorted(before) != before
    assert table.locator("th[aria-sort=ascending]").inner_text() == "s/epoch"
    page.keyboard.press("Enter")
    assert [float(text) for text in cells.all_inner_texts()] == sorted(before, reverse=True)

    page.locator("button.picture").first.click()
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()

    page.emulate_media(color_scheme="light", media="print")
    assert not page.locator("nav").is_visible()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]


def test_values_show_under_the_pointer(browser: Any, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    point = chart.locator(".scatterlayer .point").first
    point.wait_for()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = chart.locator(".hoverlayer .hovertext")
    hover.first.wait_for()
    assert "test error 0.31%" in hover.first.text_content()
    page.close()


def test_without_the_charts_library_the_tables_are_there(
    browser: Any, page_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.views.report.document._plotly", lambda: None)
    plain = report(page_file.parents[1], page_file.parent / "plain", ["html"]).pages[0]
    page = browser.new_page()
    page.goto(plain.as_uri())
    assert page.get_by_text("Charts need plotly").count() == 1
    assert page.locator(".chart").count() == 0
    assert page.locator("figure details[open]").count() == CHARTS + 2
    page.close()
