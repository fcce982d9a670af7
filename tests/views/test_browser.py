"""The pages people open: a real browser on a real MLflow server, showing runs written by journal and tracking."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import summarise
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from harness.views.mlflow.addresses import NAME
from harness.views.mlflow.saved import CELLS, view_url
from harness.views.mlflow.server import answer_page, newest_experiment, serve
from harness.views.mlflow.tracking import default_uri, sync
from tests.helpers import seeds_helpers
from tests.helpers.event_helpers import event
from tests.helpers.permissions import bound, only_to_be_read

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

FIGURES = {"torch": (1.94, 2.5, 812.0), "tf": (2.22, 3.75, 541.0), "jax": (1.67, 3.25, 624.0)}  # err %, s, images/s
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def make_trial(impl: str) -> Trial:
    return Trial(
        id=f"{impl}-r3-s0", suite="quickstart", impl=impl, seed=0, params={"model.routing": 3},
        data=DataConfig(name="digits"), model=ModelSpec(image=(28, 28, 1), classes=10), train=TrainConfig(epochs=4),
        runtime=RuntimeConfig(), parity=ParityConfig(), cpus=2, gpus=0,
    )  # fmt: skip


def write_trial(journal: Journal, trial: Trial, parity_ok: bool = True) -> None:
    err_pct, epoch_s, img_per_s = FIGURES.get(trial.impl, (9.0, 1.25, 999.0))
    now = time.time() - 60
    events = [
        {"kind": "attempt", "host": "bench", "python": "3.11.9", "resumed_epoch": 0, "versions": {"numpy": "2.4"}},
        {"kind": "parity", "ok": parity_ok, "max_rel_err": 3.1e-6 if parity_ok else 0.4, "worst": "digit.w",
         "tensors": {}, "examples": 32, "steps": 3},
        {"kind": "ready", "compile_s": 4.5, "parameters": 8215568, "weights_sha256": "ab" * 32, "device": "cpu"},
        *(
            {"kind": "epoch", "epoch": epoch, "epochs": 4, "epoch_s": epoch_s * (2 if epoch == 1 else 1), "eval_s": 0.2,
             "img_per_s": img_per_s, "train_loss": err_pct / epoch, "train_margin": 0.3 / epoch, "lr": 1e-3,
             "train_err_pct": 20 / epoch, "train_reconstruction": 40 / epoch, "val_loss": 0.3 / epoch,
             "val_err_pct": 8 / epoch + err_pct}
            for epoch in range(1, 5)
        ),
        {"kind": "result", "test_err_pct": err_pct, "test_loss": 0.05, "peak_bytes": 970_000_000},
    ]  # fmt: skip
    for second, document in enumerate(events):
        journal.append(trial.id, event({"trial": trial.id, "attempt": 1, "time": now + second, **document}))
    journal.write_result(trial.id, summarise(trial, journal.events(trial.id)).to_json())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synced runs: of several seeds, and the newest, of three good trials and one whose parity failed.

    Their folder has been moved since, to an odd place.
    """
    folder = tmp_path_factory.mktemp("before")
    errors = {1: (0.36, 0.33, 0.30), 3: (0.25, 0.24, 0.26)}
    seeds = [seeds_helpers.make_trial(seed=seed, routing=routing) for routing in errors for seed in range(3)]
    runs = [(trial, seeds_helpers.events_of(errors[trial.model.routing][trial.seed])) for trial in seeds]
    sync(seeds_helpers.write_run(folder / "seeds", runs))
    trials = [make_trial(impl) for impl in (*FIGURES, "broken")]
    documents = [trial.model_dump(mode="json") for trial in trials]
    plan = {"suite": "quickstart", "question": "Which is faster?", "trials": documents}
    with Journal(folder / "quickstart").open() as journal:
        journal.write_plan(plan, "name: quickstart\n")
        journal.write_environment({"host": "bench", "os": "Linux", "cores": 2, "versions": {"mlflow": "3.17"}})
        for trial in trials:
            write_trial(journal, trial, parity_ok=trial.impl != "broken")
    sync(folder / "quickstart")
    return folder.rename(tmp_path_factory.mktemp("after") / 'what? a#b 100% %41 it\'s "odd" Übung')


@pytest.fixture(scope="module")
def pages(out: Path) -> Iterator[dict[str, str]]:
    """The pages of a run of one seed: {"Answer": url, "Table": url, ...}."""
    with served(out) as pages:
        assert set(pages) == {"Answer", "Table", "Charts", "Speed", "Curves", "Parity"}
        yield pages


@contextmanager
def served(out: Path, *before: str, host: str = "127.0.0.1") -> Generator[dict[str, str]]:
    """`serve` in a process of its own, as the command runs it: page -> url. `before` is put before the command."""
    # as at a terminal: a job in the background starts with Ctrl-C ignored
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from harness.views.mlflow.server import serve\n"
    code += "serve(sys.argv[1], port=5300, open_browser=False, host=sys.argv[2])"
    command = [*before, sys.executable, "-c", code, str(out), host]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("Ctrl-C"):
            break
    pages = {line.split()[0]: line.split()[1] for line in printed if "http" in line}
    assert pages, "".join(printed)
    yield pages
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    with socket.socket() as probe:  # the server went with it
        assert probe.connect_ex(("127.0.0.1", port_of(pages))) != 0


def port_of(pages: dict[str, str]) -> int:
    port = urlsplit(pages["Table"]).port
    assert port is not None
    return port


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A browser that was never here before: whatever greets a newcomer, greets it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium here: `apt-get install chromium`"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=chromium,
            headless=True,
            args=FLAGS,
            viewport={"width": 1600, "height": 1000},
        )
        context.set_default_timeout(60_000)
        yield context
        context.close()


def cells(page: Page) -> dict[str, dict[str, str]]:
    """The table as shown: run name -> column -> text. Its pinned and scrolled halves are rows of the same index."""
    rows: dict[str, dict[str, str]] = {}
    for cell in page.locator(".ag-row [role=gridcell][col-id]").all():
        row = cell.locator("xpath=ancestor::*[@row-index][1]").get_attribute("row-index")
        rows.setdefault(str(row), {})[str(cell.get_attribute("col-id"))] = cell.inner_text().strip()
    return {row["attributes.`Run Name`"].splitlines()[-1]: row for row in rows.values()}  # after its colour


def open_page(context: BrowserContext, url: str, screenshot: Path, ready: str) -> Page:
    """Opens a page, waits for `ready` (a selector), and keeps a picture of it, also where it never came."""
    page = context.new_page()
    page.goto(url.replace("127.0.0.1", NAME))  # as `capsbench ui` opens it
    try:
        page.locator(ready).first.wait_for()
    finally:
        page.screenshot(path=screenshot)
    assert page.get_by_text("MLflow Assistant").count() == 0  # it would hide a third of the page
    assert page.get_by_role("dialog").count() == 0
    return page


def test_the_table_shows_every_trial_with_its_figures(
    context: BrowserContext, pages: dict[str, str], tmp_path: Path
) -> None:
    page = open_page(context, pages["Table"], tmp_path / "table.png", ".ag-row >> text=torch r3 s0")
    table = cells(page)
    assert list(table) == ["jax r3 s0", "torch r3 s0", "tf r3 s0", "broken r3 s0"]  # fewest errors first, no parent
    for impl, (err_pct, epoch_s, img_per_s) in FIGURES.items():
        expected = {
            "params.`impl`": impl,
            "params.`model.routing`": "3",
            "params.`seed`": "0",
            "metrics.`test_err_pct`": f"{err_pct:g}",
            "metrics.`epoch_s`": f"{epoch_s:g}",
            "metrics.`img_per_s`": f"{img_per_s:g}",
            "metrics.`compile_s`": "4.5",
            "metrics.`peak_mem_mb`": "970",
            "metrics.`parity_ok`": "1",
        }
        assert expected.items() <= table[f"{impl} r3 s0"].items()
    broken = table["broken r3 s0"]
    assert (broken["metrics.`test_err_pct`"], broken["metrics.`parity_ok`"]) == ("9", "0")
    assert (broken["metrics.`epoch_s`"], broken["metrics.`img_per_s`"], broken["metrics.`compile_s`"]) == ("-",) * 3
    for column in table["jax r3 s0"]:  # none beyond the window's edge
        if column.startswith("metrics") and "val_err" not in column:
            box = page.locator(f".ag-row [col-id='{column}']").first.bounding_box()
            assert box is not None
            assert box["x"] + 60 < 1600, column


def test_mlflow_opens_on_the_answer(context: BrowserContext, pages: dict[str, str], tmp_path: Path) -> None:
    page = open_page(context, pages["Answer"], tmp_path / "answer.png", "text=Which is faster?")
    assert page.get_by_text("TensorFlow is 0.667 times as fast as PyTorch").first.is_visible()
    page.get_by_text("Show more").first.click()
    rows = page.locator("table:has-text('test error %') tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["torch", "tf", "jax", "broken"]
    page.screenshot(path=tmp_path / "answer.png")
    with context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    report = opened.value
    frame = report.frame_locator("iframe")
    frame.locator(".js-plotly-plot .scatterlayer").first.wait_for()  # its charts are alive there
    assert frame.get_by_text("TensorFlow is 0.667 times as fast as PyTorch").count()
    report.screenshot(path=tmp_path / "report.png")
    with context.expect_page() as opened:
        page.get_by_role("link", name="Speed against accuracy").click()
    opened.value.locator(".js-plotly-plot .scatterlayer path.point").first.wait_for()


@pytest.mark.parametrize(
    ("name", "mark", "count"), [("Speed", "path.point", 3), ("Curves", "path.js-line", 4)]
)  # one without a timing
def test_speed_and_curves_are_drawn(
    context: BrowserContext, pages: dict[str, str], tmp_path: Path, name: str, mark: str, count: int
) -> None:
    page = open_page(context, pages[name], tmp_path / f"{name}.png", f".js-plotly-plot .scatterlayer {mark}")
    assert page.get_by_role(
        "button", name={"Speed": "Speed against accuracy", "Curves": "Learning curves"}[name]
    ).count()
    first = page.locator(f".js-plotly-plot:has(.scatterlayer {mark})").first
    marks = first.locator(f".scatterlayer {mark}")
    colours = marks.evaluate_all("marks => marks.map(mark => mark.style.stroke + mark.style.fill)")
    assert len(set(colours)) == count
    page.screenshot(path=tmp_path / f"{name}.png")


def test_the_parity_page_shows_what_failed_first(
    context: BrowserContext, pages: dict[str, str], tmp_path: Path
) -> None:
    table = cells(open_page(context, pages["Parity"], tmp_path / "parity.png", ".ag-row >> text=broken r3 s0"))
    found = {name: (row["tags.`parity`"], row["metrics.`parity_max_rel_err`"]) for name, row in table.items()}
    assert next(iter(found.items())) == ("broken r3 s0", ("failed", "0.4"))
    assert found["jax r3 s0"] == ("good", "0.0000031")


def test_the_charts_page_draws_bars_and_curves(context: BrowserContext, pages: dict[str, str], tmp_path: Path) -> None:
    page = open_page(context, pages["Charts"], tmp_path / "charts.png", ".js-plotly-plot .barlayer path")
    page.locator(".js-plotly-plot .scatterlayer path.js-line").first.wait_for()
    for title in ("Accuracy", "Cost", "test_err_pct", "epoch/val_err_pct", "epoch/train_loss", "epoch_s", "img_per_s"):
        assert page.get_by_text(title, exact=True).first.is_visible(), title
    bars = page.locator(".js-plotly-plot:has(.barlayer path)").first
    assert bars.locator(".barlayer .bars path").count() == 4
    lines = page.locator(".js-plotly-plot:has(.scatterlayer path.js-line)").first
    strokes = lines.locator(".scatterlayer path.js-line").evaluate_all("lines => lines.map(line => line.style.stroke)")
    assert len(set(strokes)) == 4
    page.screenshot(path=tmp_path / "charts.png")


def test_cells_of_several_seeds_have_a_page(
    context: BrowserContext, out: Path, pages: dict[str, str], tmp_path: Path
) -> None:
    cursor = json.loads((out / "seeds" / "mlflow.json").read_text())
    url = view_url(pages["Table"].partition("/#/")[0], cursor["experiment_id"], key=CELLS)
    table = cells(open_page(context, url, tmp_path / "cells.png", ".ag-row >> text=torch r3 mean"))
    assert list(table) == ["torch r3 mean", "torch r1 mean"]  # fewest errors first; no trial, no suite
    assert {
        "params.`impl`": "torch",
        "params.`model.routing`": "3",
        "metrics.`seeds`": "3",
        "metrics.`test_err_pct_mean`": "0.25",
        "metrics.`test_err_pct_sd`": "0.01",
        "metrics.`test_err_pct_low`": "0.22516",
        "metrics.`test_err_pct_high`": "0.27484",
    }.items() <= table["torch r3 mean"].items()  # 0.25 -+ 4.30265 * 0.01 / sqrt(3)


def test_a_server_takes_a_run_with_its_files(
    pages: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    trial = make_trial("torch")
    with Journal(tmp_path / "remote").open() as journal:
        planned = [trial, trial.model_copy(update={"id": "torch-r3-s1", "seed": 1})]
        documents = [each.model_dump(mode="json") for each in planned]
        journal.write_plan({"suite": "remote", "trials": documents}, "name: remote\n")
        write_trial(journal, trial)
    base = f"http://127.0.0.1:{port_of(pages)}"
    report = sync(tmp_path / "remote", base)
    assert sync(tmp_path / "remote", base).events == 0
    client = MlflowClient(base)
    (run,) = client.search_runs([report.experiment_id], "tags.`capsbench.kind` = 'trial'")
    assert run.data.metrics["epoch_s"] == 2.5
    assert len(client.get_metric_history(run.info.run_id, "epoch/train_loss")) == 4
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"parity.json", "result.json"}
    assert newest_experiment(tmp_path, base) == report.experiment_id
    page = f"{base}/#/experiments/{report.experiment_id}/runs/{report.run_id}?workflowType=machine_learning"
    assert answer_page(tmp_path / "remote", base) == page
    serve(tmp_path, base, open_browser=False)
    assert re.findall(r"^(\w+) +http", capsys.readouterr().out, re.MULTILINE) == [
        "Answer", "Table", "Charts", "Speed", "Curves", "Parity", "Cells",
    ]  # fmt: skip


def test_the_interface_needs_a_run(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no runs in .* yet: `capsbench run quickstart`"):
        newest_experiment(tmp_path)
    with pytest.raises(UserError, match=r"there is no database .*mlflow\.db, which --mlflow-uri names"):
        newest_experiment(tmp_path, default_uri(tmp_path))
    with Journal(tmp_path / "mnist").open() as journal:
        journal.write_plan({"suite": "mnist", "trials": []}, "")
    with pytest.raises(UserError, match=r"`capsbench sync .*mnist` brings one in"):
        newest_experiment(tmp_path)


def answer(address: str) -> Any:
    """The JSON document at an address, asked for without a proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as found:
        return json.load(found)


def test_files_of_a_moved_folder_can_be_opened(out: Path, pages: dict[str, str]) -> None:
    base = pages["Table"].partition("/#/")[0]
    cursor = json.loads((out / "quickstart" / "mlflow.json").read_text())
    run_id = cursor["trials"]["torch-r3-s0"]["run_id"]
    assert answer(f"{base}/get-artifact?run_id={run_id}&path=result.json")["test_err_pct"] == FIGURES["torch"][0]


def test_only_this_machine_s_names_are_let_in(pages: dict[str, str]) -> None:
    def status(host: str, method: str = "GET", origin: str | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(pages), timeout=30)
        headers = {"Host": host, "Content-Type": "application/json", **({"Origin": origin} if origin else {})}
        path = "/" if method == "GET" else "/ajax-api/2.0/mlflow/experiments/search"
        connection.request(method, path, "{}" if method == "POST" else None, headers)
        return connection.getresponse().status

    number = port_of(pages)
    assert urlsplit(pages["Table"]).hostname == "127.0.0.1"  # a number: curl and every browser know it
    assert status(f"127.0.0.1:{number}") == 200
    assert status("localhost:8080") == 200  # the near end of a tunnel
    assert status("localhost:8080", "POST", "http://localhost:8080") != 403
    assert status("evil.example") == 403
    assert status(f"127.0.0.1:{number}", "POST", "http://evil.example") == 403


def test_a_folder_that_may_only_be_read_is_shown_as_a_copy(out: Path, tmp_path: Path) -> None:
    """And to other machines, if that is asked for."""
    moved = Path(shutil.copytree(out, tmp_path / "copy"))
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()}
    with only_to_be_read(moved), served(moved, *bound(), host="0.0.0.0") as pages:
        assert {"Table", "Charts", "Others"} <= set(pages)
        found = answer(f"http://127.0.0.1:{port_of(pages)}/api/2.0/mlflow/experiments/search?max_results=9")[
            "experiments"
        ]
        run_id = json.loads((moved / "quickstart" / "mlflow.json").read_text())["trials"]["torch-r3-s0"]["run_id"]
        base = pages["Others"].partition("/#/")[0]
        assert answer(f"{base}/get-artifact?run_id={run_id}&path=result.json")["test_err_pct"] == FIGURES["torch"][0]
    places = {
        each["artifact_location"] for each in found if each["name"] in ("capsbench/quickstart", "capsbench/seeds")
    }
    assert places == {(moved / "mlartifacts" / "capsbench" / name).as_uri() for name in ("quickstart", "seeds")}
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()} == before


def test_a_server_that_cannot_start_says_why(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "nonsense")
    with pytest.raises(UserError, match=r"did not start \(.*Invalid poolclass.*\); its log is .*mlflow-server\.log"):
        serve(out, open_browser=False, port=5360)
