"""Cost curves and the cost model, on journals written by a known law."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.costs import curves, make_report, to_json
from harness.commands.report import Written, report
from harness.cost import fit as cost_model
from harness.cost.fit import TimedTrial, counts, fit
from harness.cost.operations import products
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.spec import ModelSpec
from harness.weights import parameter_count
from tests.helpers import seeds_helpers
from tests.helpers.event_helpers import event
from tests.helpers.executor_helpers import tiny_trial
from tests.helpers.run_helpers import capsbench

PAPER = ModelSpec(image=(28, 28, 1), classes=10)
CONSTANTS = np.array([4e-10, 3e-12, 1e-10, 2e-10])
SETTINGS = [
    *((batch, 3, 28) for batch in (16, 32, 64, 128, 256)),
    *((128, routing, 28) for routing in (1, 2, 5, 7, 10)),
    *((128, 3, side) for side in (36, 40)),
]


def model(routing: int, side: int) -> ModelSpec:
    return PAPER.model_copy(update={"routing": routing, "image": (side, side, 1)})


def law(architecture: ModelSpec, batch: int, algorithm: Any = "direct") -> float:
    return float(counts(architecture, batch, "weights", algorithm) @ CONSTANTS)


def cells(algorithm: Any = "direct", noise: float = 0.0) -> list[TimedTrial]:
    random = np.random.default_rng(0)
    return [
        TimedTrial(model(r, side), batch, law(model(r, side), batch, algorithm) * float(factor))
        for (batch, r, side), factor in zip(
            SETTINGS, np.exp(noise * random.standard_normal(len(SETTINGS))), strict=True
        )
    ]


def test_counts_by_hand() -> None:
    weights, operations, votes, routing = counts(PAPER, 128, "weights", "direct")
    assert (votes, routing) == (128 * 1152 * 160 * 4, 5 * 128 * 1152 * 160 * 4)
    assert counts(PAPER, 128, "step", "direct").tolist() == [1, operations, votes, routing]
    assert weights == 4 * parameter_count(PAPER) == 4 * 8_215_568
    conv1, primary, made, decoder = (products(PAPER)[layer] for layer in ("conv1", "primary", "votes", "decoder"))
    assert operations == 2 * 128 * (2 * conv1 + 3 * (primary + made + decoder))
    spectral = counts(PAPER, 128, "step", "spectral")[1]
    per_image = 148 * (1024 * 256 + 100 * 1024 + 36 * 256)  # products of the spectra; analysis; synthesis
    kernel = 148 * 25 * 1024 * 256
    assert spectral == operations - 6 * 128 * (primary - per_image) + 6 * kernel
    assert spectral < 0.4 * operations


@pytest.mark.parametrize("algorithm", ["direct", "spectral"])
def test_the_law_behind_the_cells_is_found(algorithm: str) -> None:
    found = fit(cells(algorithm))
    assert found is not None
    assert (found.fixed, found.algorithm) == ("weights", algorithm)
    assert found.worst < 1e-6
    unseen = model(6, 32)
    assert found.step_s(unseen, 100) == pytest.approx(law(unseen, 100, algorithm), rel=1e-6)
    assert sum(found.shares(PAPER, 128).values()) == pytest.approx(found.step_s(PAPER, 128))


def test_noise_is_told_by_the_cells_left_out() -> None:
    found = fit(cells(noise=0.03))
    assert found is not None
    assert min(found.constants) >= 0
    assert 0.01 < found.worst < 0.15


def test_each_cell_is_predicted_without_itself() -> None:
    given = cells()
    spoilt = [*given[:-1], TimedTrial(given[-1].model, given[-1].batch, 2 * given[-1].step_s)]
    found = fit(spoilt)
    assert found is not None
    assert found.leave_one_out[-1] == pytest.approx(-0.5, abs=0.05)


def test_too_few_cells_explain_nothing() -> None:
    assert fit(cells()[:2]) is None
    assert len(cost_model.TERMS) == len(CONSTANTS)


def write_run(run_dir: Path) -> None:
    """A finished run of two implementations over the settings, 6 steady epochs each, and a trial that failed."""
    trials = []
    with Journal(run_dir).open() as journal:
        for index, (batch, routing, side) in enumerate([*SETTINGS, (64, 9, 28)]):
            for factor, impl in ((1, "TinyNet"), (2, "SlowNet")):
                tiny = tiny_trial(impl)
                trial = tiny.model_copy(
                    update={
                        "id": f"{impl}-{index}",
                        "model": model(routing, side),
                        "suite": "cost",
                        "train": tiny.train.model_copy(update={"batch": batch, "epochs": 7}),
                        "data": tiny.data.model_copy(update={"train": 512}),
                        "params": {"train.batch": batch, "model.routing": routing, "data.canvas": side},
                    }
                )
                trials.append(trial)
                step_s = factor * law(trial.model, batch)
                events: list[dict[str, Any]] = [{"kind": "attempt"}, {"kind": "ready"}]
                if index == len(SETTINGS):
                    events.append({"kind": "failed", "cause": "no room", "error": "E", "hint": None})
                else:
                    events.append({"kind": "parity", "ok": True, "max_rel_err": 0.0, "worst": "", "tensors": {}})
                    steps = -(-512 // batch)
                    for epoch, slower in enumerate((9, 0.9, 1, 1, 1, 1, 1.2), 1):
                        seconds = slower * step_s * steps
                        events.append({"kind": "epoch", "epoch": epoch, "epoch_s": seconds, "train_loss": 1.0})
                    events.append({"kind": "result", "test_err_pct": None, "test_loss": 1.0})
                for each in events:
                    journal.append(trial.id, event({"time": 0.0, "trial": trial.id, "attempt": 1, **each}))
        plan = {"suite": "cost", "trials": [trial.model_dump(mode="json") for trial in trials]}
        journal.write_plan(plan, "name: cost\n")
        journal.write_environment({"cpu": "Some CPU"})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "cost"
    write_run(folder)
    return folder


def test_points_and_curves(run_dir: Path) -> None:
    made = make_report(run_dir)
    assert made.keys == ["train.batch", "model.routing", "data.canvas"]
    assert len(made.points) == 2 * len(SETTINGS)
    first = made.points[0]
    expected = law(first.trial.model, 16)
    assert first.steps == 32
    assert (first.step_s, first.low_s, first.high_s) == pytest.approx((expected, 0.9 * expected, 1.2 * expected))
    assert first.epochs == 6
    by_routing = curves(made, "model.routing")
    assert len(by_routing) == 2
    for points in by_routing.values():
        assert [point.trial.model.routing for point in points] == [1, 2, 3, 5, 7, 10]
    assert [len(points) for points in curves(made, "train.batch").values()] == [5, 5]
    assert made.left_out[0].endswith("TinyNet batch 64, routing 9, canvas 28: no room")
    document = to_json(made)
    assert all(abs(point["leave_one_out"]) < 1e-6 for point in document["points"])
    constants = [model["constants"] for model in document["models"]]
    assert np.array(constants[1]) == pytest.approx(2 * np.array(constants[0]))


def test_the_command(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = capsbench(tmp_path, "report", run_dir, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "![train.batch](<train.batch.png>)" in Path(document["pages"][0]).read_text()
    figures = [Path(path) for path in document["figures"]]
    assert [path.name for path in figures] == ["train.batch.png", "model.routing.png", "data.canvas.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert {path.parent for path in figures} == {run_dir / "report"}
    assert "off by at most 0.0%" in done.stderr
    assert "no timing: tests.helpers.executor_helpers:TinyNet batch 64" in done.stderr


def test_no_matplotlib_no_run_no_timing(run_dir: Path, tmp_path: Path) -> None:
    refused = capsbench(tmp_path, "report", run_dir, hide="matplotlib")
    assert refused.returncode == 2
    assert 'pip install "capsbench[report]"' in refused.stderr
    with pytest.raises(UserError, match="is not a run directory"):
        make_report(tmp_path)
    with Journal(tmp_path / "empty").open() as journal:
        journal.write_plan({"suite": "s", "trials": [tiny_trial().model_dump(mode="json")]}, "")
    assert make_report(tmp_path / "empty").points == []
    with pytest.raises(UserError, match=r"nothing has finished\.\n.*TinyNet, seed 0 does not count: pending"):
        report(tmp_path / "empty")


# Over seeds


@pytest.fixture(scope="module")
def seeds_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two implementations, with and without a decoder, three seeds each; one trial failed its parity."""
    errors = {
        ("torch", True): [0.30, 0.33, 0.36],
        ("torch", False): [0.40, 0.44, 0.45],
        ("tf", True): [0.31, 0.33, 0.37],
        ("tf", False): [0.41, 0.43, 0.47],
    }
    runs: list[tuple[Any, Any]] = []
    for (impl, decoder), each in errors.items():
        for seed in range(3):
            trial = seeds_helpers.make_trial(impl, seed, decoder=decoder)
            events = seeds_helpers.events_of(each[seed], 300 + seed, parity_ok=seed < 2 or impl == "torch")
            runs.append((trial, events))
    return seeds_helpers.write_run(tmp_path_factory.mktemp("seeds") / "decoder|s", runs)


@pytest.fixture(scope="module")
def written(seeds_dir: Path) -> Written:
    pytest.importorskip("matplotlib")
    return report(seeds_dir)


def test_a_report_over_seeds(written: Written) -> None:
    tables = {section.title: section.table for section in written.sections}
    assert list(tables) == [
        "Cells",
        "Differences between settings: test error",
        "Differences between settings: seconds per epoch",
        "Equivalence of implementations",
        "Published figures",
        "Cost of a training step",
    ]
    cells = tables["Cells"]
    assert cells is not None
    rows = [list(row) for row in zip(*(column.cells for column in cells.columns), strict=True)]
    # half the interval: 4.30265 * 0.03 / sqrt(3) = 0.0745; of two seeds 12.7062 * 0.014142 / sqrt(2) = 0.127
    assert rows[0][:7] == [
        "torch",
        "decoder True",
        "3",
        "0.33 ± 0.075",
        "0.030",
        "0.25 sd 0.005",
        "0.3, 0.34, 0.35, 0.54, 0.7",
    ]
    assert rows[2][:6] == ["tf", "decoder True", "2 of 3", "0.32 ± 0.13", "0.014", "0.25 sd 0.005"]
    notes = written.sections[0].notes
    assert notes[0] == "tf, decoder True, seed 2 does not count: parity failed"
    document = written.to_json()
    json.dumps(document, allow_nan=False)
    changes = [each for each in document["changes"] if each["metric"] == "test_err_pct"]
    assert [(each["others"]["impl"], each["from"], each["to"], each["n_a"]) for each in changes] == [
        ("torch", True, False, 3),
        ("tf", True, False, 2),
    ]
    # differences 0.10, 0.11, 0.09: mean 0.1, standard error 0.01 / sqrt(3), t = 17.32; p of 2 degrees of freedom, twice
    t = 0.1 / (0.01 / 3**0.5)
    p = 1 - t / (2 + t * t) ** 0.5
    assert changes[0]["difference"] == pytest.approx(0.1)
    assert changes[0]["p"] == pytest.approx(p, rel=1e-6)
    assert changes[0]["adjusted_p"] == pytest.approx(2 * p, rel=1e-6)
    assert changes[0]["significant"] is True
    assert len(document["equivalence"]) == 2
    assert {each["source"] for each in document["published"] if each["paper"]} == {
        "Sabour, Frosst, Hinton: Dynamic Routing Between Capsules, NIPS 2017"
    }


def test_the_pages_say_what_the_screen_says(written: Written) -> None:
    markdown, page = (path.read_text() for path in written.pages)
    assert [path.name for path in written.pages] == ["report.md", "report.html"]
    assert "# capsbench: decoder\\|s" in markdown
    assert "| torch | decoder True | 3 | 0.33 ± 0.075 | 0.030 |" in markdown
    assert "- tf, decoder True, seed 2 does not count: parity failed" in markdown
    assert ">Published figures</h2>" in page
    assert "<td class=right>0.33 ± 0.075</td>" in page
    assert "another machine: GTX 1070" in page
    widths = {
        line.count("|") for line in markdown.split("## Cells")[1].split("##")[0].splitlines() if line.startswith("|")
    }
    assert len(widths) == 1
    own = re.sub(
        "<script>.*?</script>", "", page, flags=re.DOTALL
    )  # the charts' library names pages that it never asks for
    assert not re.findall('(?:src|href)="(?!data:|#)([^"]*)"', own)
    assert written.figures[0].read_bytes().startswith(b"\x89PNG")


def test_pages_are_refused_where_they_cannot_be_written(seeds_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write figures to .*file"):
        report(seeds_dir, tmp_path / "file")
