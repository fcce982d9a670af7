"""The demo's page in a real browser: held to the specification, drawn on, and quiet."""

from __future__ import annotations

import base64
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.demo.document import document
from harness.demo.frameworks import contestants, running
from harness.demo.model import examples, requested
from harness.demo.server import application, listening, serve
from harness.prediction.trained import Trained
from harness.spec import ModelSpec
from harness.weights import initial_weights
from harness.weights.files import save_weights
from tests.demo.test_demo import specified, wait_for
from tests.views.test_browser import FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOLERANCE = 1e-4
SMALL = {"conv_channels": 6, "primary_types": 3, "primary_dim": 4, "digit_dim": 5, "decoder_units": (8, 12)}
MODELS: dict[str, dict[str, Any]] = {  # what the shipped weights do not have
    "two digits": {"image": (36, 36, 1), "classes": 10, "overlaid": 2, "routing": 2},
    "released code": {"image": (28, 28, 1), "classes": 10, "profile": "official", "none_of_the_above": True},
    "no decoder": {"image": (30, 26, 1), "classes": 4, "decoder": False, "routing": 1, "kernel": 7},
}
FORWARD = """(layers) => {
  const found = capsbench.net.forward(layers.map((text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0))));
  const routing = found.routing.map(({ c, v, agreement }) => [c, v, agreement].map((each) => [...each]));
  return { lengths: [...found.lengths], digit: [...found.digit], coupling: [...found.routing.at(-1).c], classes: found.classes,
           reconstruction: found.reconstruction.flatMap((each) => [...each]), routing };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium here: `apt-get install chromium`"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield browser
        browser.close()


Opened = Callable[..., "Page"]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens an address. Afterwards: nothing in the console, no request but to where the page came from."""
    said: list[str] = []
    asked: list[str] = []
    places: list[str] = []
    contexts: list[Any] = []

    def opens(url: str, **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        places.append(url)
        page.goto(url)
        until(page, "globalThis.capsbench")
        return page

    yield opens
    for context in contexts:
        context.close()
    assert not said
    assert not [each for each in asked if not each.startswith((*places, "data:", "blob:"))]


def until(page: Page, condition: str) -> None:
    """Waits for it; Playwright's own way of waiting evaluates text in the page, which the page's policy forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition) and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert page.evaluate(condition), condition


def written(trained: Trained, folder: Path) -> str:
    """The address of the page as a file."""
    path = folder / "index.html"
    path.write_text(document(trained, folder))
    return path.as_uri()


def agrees(page: Page, trained: Trained, images: np.ndarray) -> None:
    """Whether the page computes what the specification does of each image (N, K, H, W, C)."""
    model = trained.model
    expected = specified(trained, images.reshape(-1, *model.several, *model.image))
    for index, image in enumerate(images):
        found = page.evaluate(FORWARD, [base64.b64encode(layer.tobytes()).decode() for layer in image])
        for name in ("lengths", "digit", "coupling", "reconstruction"):
            wanted = getattr(expected, name)
            flat = np.zeros(0) if wanted is None else np.ravel(wanted[index])
            np.testing.assert_allclose(found[name], flat, rtol=0, atol=TOLERANCE, err_msg=name)
        assert found["classes"] == np.argsort(-expected.lengths[index], kind="stable")[: model.overlaid].tolist()
        assert len(found["routing"]) == model.routing


def test_the_page_computes_what_the_specification_does(opened: Opened, tmp_path: Path) -> None:
    trained = requested([], None)
    agrees(opened(written(trained, tmp_path)), trained, examples(trained).images[::4])


@pytest.mark.parametrize("name", MODELS)
def test_so_it_does_for_every_form_of_the_model(name: str, opened: Opened, tmp_path: Path) -> None:
    model = ModelSpec(**{**SMALL, **MODELS[name]})
    weights = initial_weights(model, 3)
    weights["digit.w"] *= 4  # so that routing has something to decide
    save_weights(tmp_path / "small.safetensors", weights, {"model": model.model_dump(mode="json")})
    trained = requested([], str(tmp_path / "small.safetensors"))
    images = np.random.default_rng(0).integers(0, 256, (2, model.overlaid, *model.image), np.uint8)
    agrees(opened(written(trained, tmp_path)), trained, images)


def test_a_digit_is_drawn_and_moved_without_a_server(opened: Opened, tmp_path: Path) -> None:
    page = opened(written(requested([], None), tmp_path))
    draw(page, [[(0.3, 0.2), (0.72, 0.2), (0.45, 0.85)]])
    assert page.locator("#answer strong").inner_text() == "7"
    assert page.locator("#routing tbody tr").count() == 3
    assert page.locator("#sliders input").count() == 16
    before = page.evaluate("[...capsbench.state.moved]")
    page.locator("#sliders input").nth(3).fill("0.25")
    assert page.evaluate("[...capsbench.state.moved]") != before
    moved = page.evaluate("[...capsbench.state.moved]")
    digit = np.array(page.evaluate("[...capsbench.state.local.found.digit]")).reshape(1, 10, 16)
    digit[0, 7, 3] += 0.25
    trained = requested([], None)
    net = specified_net(trained)
    np.testing.assert_allclose(moved, np.ravel(net.decode(digit, np.array([7]))), rtol=0, atol=TOLERANCE)
    page.locator("#reset").click()
    assert page.evaluate("[...capsbench.state.moved]") == before
    page.locator("#clear").click()
    until(page, "!capsbench.state.local")
    page.locator("#examples button").nth(12).click()  # the first 4
    until(page, "capsbench.state.local")
    assert page.locator("#answer strong").inner_text() == "4"


def specified_net(trained: Trained) -> Any:
    from harness import registry
    from harness.spec import OptimSpec, Runtime

    net = registry.specification()(trained.model, OptimSpec(), Runtime(precision="fp64"))
    net.load(trained.weights)
    return net


def draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draws with the mouse; points are shares of the pad's side."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for (x, y), *rest in strokes:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        for right, down in rest:
            page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"], steps=8)
        page.mouse.up()
    until(page, "capsbench.state.local && !capsbench.pad.isDrawing")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(scheme: str, opened: Opened, tmp_path: Path) -> None:
    page = opened(
        written(requested([], None), tmp_path), viewport={"width": 390, "height": 844}, color_scheme=scheme,
        has_touch=True, is_mobile=True,
    )  # fmt: skip
    page.locator("#examples button").first.tap()
    until(page, "capsbench.state.local")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#pad").tap()  # a dot on top of a zero
    until(page, "capsbench.pad.strokes.length === 1")
    page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)


def test_served_it_asks_the_others(opened: Opened, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    trained = requested([], None)
    stop, ready = threading.Event(), threading.Event()
    with (
        listening(8200, or_next=True) as (own, port),
        running(trained, contestants(trained, ["numpy"])[0], tmp_path) as frameworks,
    ):
        wait_for("ready", frameworks)
        page_text = document(trained, tmp_path, missing={"other": "not <installed>"})
        app = application(page_text, trained.model, frameworks)
        thread = threading.Thread(target=serve, args=(app, own, stop, ready.set))
        thread.start()
        try:
            assert ready.wait(60)
            page = opened(f"http://127.0.0.1:{port}/")
            draw(page, [[(0.5, 0.15), (0.5, 0.85)]])
            page.locator("#distances").wait_for()
            assert "All 2 say 1." in page.locator("#verdict").inner_text()
            differences = page.locator("#distances td").all_inner_texts()
            assert max(float(text) for text in differences if text) < TOLERANCE
            assert page.locator("#missing").inner_text() == "other: not <installed>"
            page.close()  # before the server: a page that is left alone says so
        finally:
            stop.set()
            thread.join()
