"""How long the report of a large run takes: `python benchmarks/report.py [TRIALS]` (300 by default) prints it.

The run is written here: three implementations, one to ten routing iterations, several seeds, 30 epochs each, figures made up.
What is measured is `capsbench report`, its page's size, and, with Chromium, how long the page takes to open.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.seeds_helpers import events_of, make_trial, write_run  # noqa: E402

IMPLS, ROUTINGS, EPOCHS = ("torch", "tf", "jax"), range(1, 11), 30
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
_PAINTED = "performance.getEntriesByType('paint')[0].startTime"


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = write(Path(scratch) / "large", trials)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness", "report", str(run_dir)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        took_s, page = time.perf_counter() - began, run_dir / "report" / "report.html"
        print(f"{platform.platform()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
        print(f"report of {trials} trials: {took_s:.1f} s; page: {page.stat().st_size / 1e6:.1f} MB")
        if chromium := shutil.which("chromium"):
            for painted_s, loaded_s in opened(chromium, page):
                print(f"opened: painted after {painted_s:.2f} s, loaded after {loaded_s:.2f} s")


def write(run_dir: Path, trials: int) -> Path:
    """A run directory of so many trials."""
    draw = np.random.default_rng(0)
    cells = [(impl, routing) for impl in IMPLS for routing in ROUTINGS]
    runs = []
    for number in range(trials):
        seed, cell = divmod(number, len(cells))
        impl, routing = cells[cell]
        *begin, _, _, end = events_of(float(0.5 + 0.1 * draw.standard_normal()), 100 + 10 * routing)
        epochs = [
            {"kind": "epoch", "epoch": epoch, "epoch_s": float(100 + 10 * routing + draw.standard_normal()),
             "img_per_s": 500.0, "train_loss": 1 / epoch, "train_err_pct": 5 / epoch, "val_loss": 0.5 / epoch,
             "val_err_pct": float(4 / epoch + 0.1 * draw.random())}
            for epoch in range(1, EPOCHS + 1)
        ]  # fmt: skip
        runs.append((make_trial(impl, seed, routing=routing), [*begin, *epochs, end]))
    return write_run(run_dir, runs)


def opened(chromium: str, page: Path) -> list[tuple[float, float]]:
    """Seconds to the first paint and to the load event, of three openings."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(page.as_uri(), wait_until="load")
            tab.wait_for_timeout(500)
            found.append((tab.evaluate(_PAINTED) / 1000, tab.evaluate(_LOADED) / 1000))
            tab.close()
        browser.close()
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 300)
