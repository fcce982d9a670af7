"""Makes the README's pictures anew, from what really runs: `python docs/pictures/make.py [--run RUN] [PICTURE...]`.

    report    the page that `capsbench report RUN` writes
    mlflow    the comparison among the pages of `capsbench ui`, of RUN
    demo      `capsbench demo`, with a digit drawn by the mouse
    parity    what `capsbench parity` says of an implementation with a fault, in a terminal

It needs what `make test` installs, and Chromium. Each picture is written beside this file, as NAME.webp.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.views.mlflow.addresses import NAME

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LARGEST = 150_000  # bytes of a picture
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FIVE = [
    [(0.66, 0.16), (0.36, 0.16), (0.34, 0.44), (0.52, 0.40), (0.66, 0.50), (0.67, 0.68), (0.54, 0.82), (0.34, 0.78)]
]
"""A stroke as shares of the sketch pad's side."""
FAULT = "logits.softmax(dim=1)", "logits.softmax(dim=2)"
"""The example's softmax, over the classes; and over the input capsules, the fault that is most often seen."""
_WAIT_MS = 120_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("pictures", nargs="*", metavar="PICTURE", help="report, mlflow, demo, parity; default: all")
    options.add_argument("--run", type=Path, default=ROOT / "results" / "compact", help="a finished run")
    args = options.parse_args()
    if unknown := {*args.pictures} - {*MAKERS}:
        options.error(f"no such picture: {', '.join(sorted(unknown))}")
    if not (args.run / "plan.json").is_file():
        options.error(f"--run {args.run}: no run directory")
    chromium = shutil.which("chromium") or options.error("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name in args.pictures or MAKERS:
            keep(name, MAKERS[name](browser, args.run.resolve(), Path(folder)))
        browser.close()


def keep(name: str, png: bytes) -> None:
    """Writes the picture, as good as `LARGEST` allows."""
    from PIL import Image

    path = HERE / f"{name}.webp"
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(90, 20, -5):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size <= LARGEST:
            break
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")


def capsbench(*arguments: object, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command of this checkout, to its end."""
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def opened(browser: Browser, url: str, width: int, height: int) -> Page:
    """The address in a light page of this size."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.set_default_timeout(_WAIT_MS)
    page.goto(url)
    return page


def report(browser: Browser, run: Path, folder: Path) -> bytes:
    """The answer and the first chart."""
    made = capsbench("report", run, "--out", folder / "report", "--format", "html")
    assert made.returncode == 0, made.stderr
    page = opened(browser, (folder / "report" / "report.html").as_uri(), 1100, 1250)
    page.locator(".chart .main-svg").first.wait_for()
    page.wait_for_timeout(500)
    return page.screenshot()


def demo(browser: Browser, _run: Path, _folder: Path) -> bytes:
    """A five, drawn; every framework here has answered."""
    with serving("demo", "--no-browser", "--json") as lines:
        url = next(found[1] for line in lines if (found := re.search('"url": "(.*)"', line)))
        page = opened(browser, url, 1180, 940)
        _until(page, "globalThis.capsbench")
        _draw(page, FIVE)
        _until(page, "document.querySelector('#distances td') && !/starting/.test(document.body.innerText)")
        page.wait_for_timeout(500)
        picture = page.screenshot()
        page.close()
    return picture


def mlflow(browser: Browser, run: Path, folder: Path) -> bytes:
    """The comparison of the run's trials, in a database of its own."""
    runs = folder / "runs"
    shutil.copytree(run, runs / run.name)
    made = capsbench("sync", runs / run.name)
    assert made.returncode == 0, made.stderr
    with serving("ui", "--out", runs, "--no-browser", "--port", "5177") as lines:
        url = next(found[1] for line in lines if (found := re.match(r"Charts\s+(\S+)", line)))
        # under this name, as `capsbench ui` opens it where there is a display, MLflow's assistant stays closed
        page = opened(browser, url.replace("127.0.0.1", NAME), 1440, 960)
        page.locator(".main-svg").nth(1).wait_for()
        page.wait_for_timeout(3000)
        picture = page.screenshot()
        page.close()
    return picture


def parity(browser: Browser, _run: Path, folder: Path) -> bytes:
    """The command and what it prints, with its colours."""
    source = (ROOT / "examples" / "third_party_torch.py").read_text()
    assert FAULT[0] in source
    (folder / "mine.py").write_text(source.replace(*FAULT))
    command = ["parity", "--impl", "mine.py:Adapter", "--level", "L4", "--precision", "fp32", "--no-mlflow"]
    said = capsbench(*command, folder=folder, FORCE_COLOR="1", COLUMNS="108")
    assert said.returncode == 1, said.stderr
    page = opened(browser, "about:blank", 1000, 600)
    page.set_content(_as_html(f"$ capsbench {' '.join(command)}\n{said.stderr}{said.stdout}".rstrip()))
    return page.locator("#terminal").screenshot()


def _as_html(text: str) -> str:
    """A terminal's text as a page, on a dark ground."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console = Console(record=True, width=108, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.replace(str(ROOT) + os.sep, "")), end="")
    form = (
        '<body style="margin:0"><div id="terminal" style="display:inline-block;padding:14px 18px;background:{background};'
        'color:{foreground}"><pre style="margin:0;font:15px/1.4 \'DejaVu Sans Mono\',monospace">{code}</pre></div>'
    )
    return console.export_html(theme=MONOKAI, inline_styles=True, code_format=form)


@contextmanager
def serving(*arguments: object) -> Iterator[Iterator[str]]:
    """A command that serves, and the lines that it prints; it is ended with the block."""
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield iter(process.stdout.readline, "")
    finally:
        process.terminate()
        process.wait()


def _draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        for index, (right, down) in enumerate(stroke):
            page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"], steps=6 if index else 1)
            if index == 0:
                page.mouse.down()
        page.mouse.up()


def _until(page: Page, condition: str) -> None:
    """Waits for it; the page's policy forbids Playwright's own way."""
    deadline = time.monotonic() + _WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


MAKERS: dict[str, Callable[[Any, Path, Path], bytes]] = {
    "report": report, "mlflow": mlflow, "demo": demo, "parity": parity,
}  # fmt: skip

if __name__ == "__main__":
    main()
