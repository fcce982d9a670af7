"""Cost curves and the cost model, on journals written by a law that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import cost_model
from harness.cost import products
from harness.cost_model import Cell, counts, fit
from harness.errors import UserError
from harness.journal import Journal
from harness.report import make_report, to_json
from harness.report.curves import curves
from harness.spec import ModelSpec
from harness.weights import parameter_count
from tests.executor_helpers import tiny_trial
from tests.run_helpers import capsbench

PAPER = ModelSpec(image=(28, 28, 1), classes=10)
CONSTANTS = np.array([4e-10, 3e-12, 1e-10, 2e-10])
SETTINGS = [
    *((batch, 3, 28) for batch in (16, 32, 64, 128, 256)), *((128, routing, 28) for routing in (1, 2, 5, 7, 10)),
    *((128, 3, side) for side in (36, 40)),
]  # fmt: skip


def model(routing: int, side: int) -> ModelSpec:
    return PAPER.model_copy(update={"routing": routing, "image": (side, side, 1)})


def law(architecture: ModelSpec, batch: int, algorithm: Any = "direct") -> float:
    return float(counts(architecture, batch, "weights", algorithm) @ CONSTANTS)


def cells(algorithm: Any = "direct", noise: float = 0.0) -> list[Cell]:
    random = np.random.default_rng(0)
    return [
        Cell(model(r, side), batch, law(model(r, side), batch, algorithm) * float(factor))
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
    spoilt = [*given[:-1], Cell(given[-1].model, given[-1].batch, 2 * given[-1].step_s)]
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
                        "id": f"{impl}-{index}", "model": model(routing, side), "suite": "cost",
                        "train": tiny.train.model_copy(update={"batch": batch, "epochs": 7}),
                        "data": tiny.data.model_copy(update={"train": 512}),
                        "params": {"train.batch": batch, "model.routing": routing, "data.canvas": side},
                    }
                )  # fmt: skip
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
                    events.append({"kind": "result", "test_loss": 1.0})
                for event in events:
                    journal.append(trial.id, {"time": 0.0, "trial": trial.id, "attempt": 1, **event})
        plan = {"suite": "cost", "trials": [trial.model_dump(mode="json") for trial in trials]}
        journal.write_plan(plan, "name: cost\n")
        journal.write_environment({"cpu": "Some CPU"})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "cost"
    write_run(folder)
    return folder


def test_points_and_curves(run_dir: Path) -> None:
    report = make_report(run_dir)
    assert report.keys == ["train.batch", "model.routing", "data.canvas"]
    assert len(report.points) == 2 * len(SETTINGS)
    first = report.points[0]
    expected = law(first.trial.model, 16)
    assert first.steps == 32
    assert (first.step_s, first.low_s, first.high_s) == pytest.approx((expected, 0.9 * expected, 1.2 * expected))
    assert first.epochs == 6
    by_routing = curves(report, "model.routing")
    assert len(by_routing) == 2
    for points in by_routing.values():
        assert [point.trial.model.routing for point in points] == [1, 2, 3, 5, 7, 10]
    assert [len(points) for points in curves(report, "train.batch").values()] == [5, 5]
    assert report.left_out[0].endswith("TinyNet batch 64, routing 9, canvas 28: no room")
    document = to_json(report)
    assert all(abs(point["leave_one_out"]) < 1e-6 for point in document["points"])
    constants = [model["constants"] for model in document["models"]]
    assert np.array(constants[1]) == pytest.approx(2 * np.array(constants[0]))


def test_the_command(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = capsbench(tmp_path, "report", run_dir, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    figures = [Path(path) for path in document["figures"]]
    assert [path.name for path in figures] == ["train.batch.png", "model.routing.png", "data.canvas.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert {path.parent for path in figures} == {run_dir / "report"}
    assert "off by at most 0.0%" in done.stderr
    assert "no timing: tests.executor_helpers:TinyNet batch 64" in done.stderr


def test_no_matplotlib_no_run_no_timing(run_dir: Path, tmp_path: Path) -> None:
    refused = capsbench(tmp_path, "report", run_dir, hide="matplotlib")
    assert refused.returncode == 2
    assert 'pip install "capsbench[report]"' in refused.stderr
    with pytest.raises(UserError, match="is not a run directory"):
        make_report(tmp_path)
    with Journal(tmp_path / "empty").open() as journal:
        journal.write_plan({"suite": "s", "trials": [tiny_trial().model_dump(mode="json")]}, "")
    with pytest.raises(UserError, match=r"nothing was timed\.\n.*TinyNet: "):
        make_report(tmp_path / "empty")
