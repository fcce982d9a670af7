"""The public API: its names, and a run as tables and weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import capsbench
import harness
from tests.conftest import ROOT
from tests.helpers import run_helpers

OLD = ROOT / "results" / "mnist-1-epoch"  # made by version 0.1; its weights are not in the repository


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> capsbench.Run:
    folder = tmp_path_factory.mktemp("run")
    suite = run_helpers.write_suite(folder, train={"keep_every": 1})
    varied = ("-s", "model.routing=1,2")
    done = run_helpers.capsbench(folder, "run", suite, *varied, "--executor", "inline", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    return capsbench.open_run(folder / "runs" / "small")


def test_every_name_is_there() -> None:
    for name in capsbench.__all__:
        assert getattr(capsbench, name) is not None
        assert name in dir(capsbench)
    assert capsbench.__version__ == harness.__version__
    with pytest.raises(AttributeError, match="no attribute 'Imple'"):
        _ = capsbench.Imple  # pyright: ignore[reportAttributeAccessIssue]


def test_every_name_is_known_to_type_checkers() -> None:
    told = (ROOT / "capsbench" / "__init__.py").read_text().partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    names = {word.strip(",") for word in told.split()}
    assert set(capsbench.__all__) <= names


def test_trials(run: capsbench.Run) -> None:
    pytest.importorskip("pandas")
    trials = run.trials
    assert list(trials.columns[:5]) == ["trial", "impl", "seed", "model.routing", "status"]
    assert list(trials["model.routing"]) == [1, 2]
    assert set(trials["status"]) == {"finished"}
    for row in run.rows("trials"):
        result = json.loads((run.path / "trials" / row["trial"] / "result.json").read_text())
        assert {key: row[key] for key in result if key in row} == {key: result[key] for key in result if key in row}
        assert set(result) - set(row) == {"id", "params", "epochs", "check"}


def test_epochs(run: capsbench.Run) -> None:
    pytest.importorskip("pandas")
    epochs = run.epochs
    assert list(epochs["epoch"]) == [1, 2, 1, 2]
    assert list(epochs["warmup"]) == [True, False, True, False]
    last = epochs.groupby("trial", sort=False)["val_err_pct"].last()
    assert list(last) == list(run.trials["val_err_pct"])


def test_parity(run: capsbench.Run) -> None:
    pytest.importorskip("pandas")
    parity = run.parity
    assert np.all(parity["ok"])
    assert {"L1", "L2", "L3", "L4", "L5"} <= set(parity["level"])
    worst = parity.groupby("trial", sort=False)["rel_err"].max()
    assert np.all(worst >= run.trials.set_index("trial")["parity_max_rel_err"])
    assert np.all(parity["rel_err"] <= parity["tolerance"])


def test_weights(run: capsbench.Run) -> None:
    row = run.rows("trials")[1]
    trial = row["trial"]
    last, first = run.weights(trial[:6]), run.weights(trial, 1)
    assert [*last] == [*first]
    assert not np.array_equal(last["conv1.w"], first["conv1.w"])
    np.testing.assert_array_equal(last["conv1.w"], run.weights(trial, 2)["conv1.w"])
    best = run.weights(trial, row["best_epoch"])
    np.testing.assert_array_equal(run.weights(trial, "best")["digit.w"], best["digit.w"])
    with pytest.raises(capsbench.UserError, match='no weights "9": that epoch\'s were not kept'):
        run.weights(trial, 9)
    with pytest.raises(capsbench.UserError, match='has no trial "none"'):
        run.weights("none")


def test_a_run_of_version_0_1() -> None:
    run = capsbench.open_run(OLD)
    errors = {row["impl"]: row["test_err_pct"] for row in run.rows("trials")}
    assert errors == pytest.approx({"torch": 1.92, "tf": 1.88, "jax": 1.9})
    assert len(run.rows("epochs")) == 3
    assert all(row["ok"] for row in run.rows("parity"))
    with pytest.raises(capsbench.UserError, match="has no weights yet"):
        run.weights(run.rows("trials")[0]["trial"])


def test_without_pandas(run: capsbench.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(capsbench.UserError, match=r'pip install "capsbench\[pandas\]", or take run\.rows\("epochs"\)'):
        _ = run.epochs
    assert len(run.rows("epochs")) == 4
    with pytest.raises(capsbench.UserError, match='no table "epoch"; did you mean "epochs"'):
        run.rows("epoch")  # pyright: ignore[reportArgumentType]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(capsbench.UserError, match=r"is not a run directory: .* there is no such folder"):
        capsbench.open_run(tmp_path / "absent")
    with pytest.raises(capsbench.UserError, match=r'did you mean ".*mnist-1-epoch"'):
        capsbench.open_run(OLD.with_name("mnist-1-epochs"))
