"""`capsbench run` from end to end, on this machine without Ray; for Ray see executors/test_ray.py and test_resume."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.weights import digest
from harness.weights.files import load_weights
from tests.helpers.run_helpers import capsbench, contents, events_of, repeatable, start, write_suite

TRIAL_FIELDS = {
    "id", "impl", "params", "seed", "status", "test_err_pct", "epoch_s", "compile_s", "img_per_s", "peak_bytes",
    "parity_ok", "parity_max_rel_err", "epochs", "log",
}  # fmt: skip
TIMINGS = {"epoch_s", "eval_s", "img_per_s", "compile_s"}


def inline(folder: Path, *arguments: object, **env: Any) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """`capsbench run ARGUMENTS --executor inline --json`, and its document."""
    done = capsbench(folder, "run", *arguments, "--executor", "inline", "--json", **env)
    assert "Traceback" not in done.stderr
    return done, json.loads(done.stdout)


def by_impl(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A document's trials by what they are called: `run_helpers:HeldNet` -> "HeldNet"."""
    return {trial["impl"].rpartition(":")[2]: trial for trial in document["trials"]}


def row_of(text: str, name: str) -> list[str]:
    """The cells of the row that begins with `name` in the last table of `text`, which has room for its rows on a line each."""
    lines = text[text.rindex("impl ") :].splitlines()
    return next(re.split(r"\s+", line) for line in lines if line.startswith(f"{name} "))


def metrics(folder: Path) -> dict[str, dict[str, float]]:
    """Run name -> its metrics, from the MLflow database of `folder`'s runs."""
    import sqlite3

    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        runs = dict(database.execute("SELECT run_uuid, name FROM runs WHERE lifecycle_stage = 'active'"))
        found: dict[str, dict[str, float]] = {name: {} for name in runs.values()}
        for run, key, value in database.execute("SELECT run_uuid, key, value FROM latest_metrics"):
            found[runs[run]][key] = value
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def small(home: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Two implementations and two seeds, into a fresh MLflow."""
    return inline(home, write_suite(home, grid={"impl": ["numpy", "torch"], "seed": [0, 1]}), COLUMNS="200")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], dict[str, Any]]:
    """One trial that is good, one that raises, one that is wrong, and one whose framework is not there."""
    folder = tmp_path_factory.mktemp("mixed")
    impls = ["run_helpers:RaisingNet", "run_helpers:WrongAxisNet", "tf", "numpy"]
    return folder, *inline(folder, write_suite(folder, grid={"impl": impls}), hide="tensorflow", COLUMNS="200")


def test_json_document(small: tuple[Any, dict[str, Any]]) -> None:
    done, document = small
    assert done.returncode == 0
    assert {"suite", "run_dir", "mlflow_uri", "trials"} <= set(document)
    assert (document["suite"], document["run_dir"]) == ("small", "runs/small")
    assert [(trial["seed"], trial["impl"]) for trial in document["trials"]] == [
        (0, "numpy"),
        (0, "torch"),
        (1, "numpy"),
        (1, "torch"),
    ]
    for trial in document["trials"]:
        assert set(trial) >= TRIAL_FIELDS
        assert (trial["status"], trial["parity_ok"], trial["params"]) == ("finished", True, {})
        assert 0 < trial["parity_max_rel_err"] < 1e-3
        assert 0 <= trial["test_err_pct"] <= 100
        assert all(trial[name] > 0 for name in ("epoch_s", "compile_s", "img_per_s", "peak_bytes"))
        assert [epoch["epoch"] for epoch in trial["epochs"]] == [1, 2]
        assert trial["epochs"][1]["train_loss"] < trial["epochs"][0]["train_loss"]


def test_table_and_lines(small: tuple[subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    done, document = small
    assert "\x1b" not in done.stderr  # no terminal, no control sequence
    lines = [re.sub(r"\s+", " ", line) for line in done.stderr.splitlines()]
    for name in ("numpy s0", "torch s0", "numpy s1", "torch s1"):
        said = [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]
        kinds = [re.split(r"[ :]", line)[0] for line in said]
        assert kinds == ["started", "parity", "compiled", "epoch", "epoch", "finished"]
        assert re.fullmatch(r"epoch 1/2: loss \d\.\d{4}, validation error \d+\.\d\d%, \d+\.\d\d s", said[3])
    errors = [trial["test_err_pct"] for trial in document["trials"] if trial["impl"] == "torch"]
    mean, spread = sum(errors) / 2, abs(errors[0] - errors[1]) / 2**0.5
    row = row_of(done.stderr, "torch")
    assert row[:4] == ["torch", f"{mean:.2f}", "sd", f"{spread:.2f}"]
    assert row[-1].endswith("x")
    assert row[-3] == "ok"
    assert row_of(done.stderr, "numpy")[-1] == "1.00x"
    assert "Journal, logs and weights: runs/small" in done.stderr
    assert "capsbench ui" in done.stderr


def test_journal(small: object, home: Path) -> None:
    run_dir = home / "runs" / "small"
    plan = json.loads((run_dir / "plan.json").read_text())
    assert (plan["suite"], plan["quick"], len(plan["trials"])) == ("small", False, 4)
    assert (run_dir / "suite.yaml").read_bytes() == (home / "small.yaml").read_bytes()
    assert {"host", "cpu", "versions", "git"} <= set(json.loads((run_dir / "environment.json").read_text()))
    for trial in plan["trials"]:
        folder = run_dir / "trials" / trial["id"]
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "trial.json",
            "events.jsonl",
            "result.json",
            "attempt-1.log",
            "epoch-0002.safetensors",
            "weights.safetensors",
            "best.safetensors",
            "predictions.safetensors",
        }
        kinds = [json.loads(line)["kind"] for line in (folder / "events.jsonl").read_text().splitlines()]
        assert kinds == ["attempt", "parity", "ready", "epoch", "epoch", "result"]


def test_mlflow(small: tuple[Any, dict[str, Any]], home: Path) -> None:
    _, document = small
    assert document["mlflow_uri"] == f"sqlite:///{home / 'runs' / 'mlflow.db'}"
    found = metrics(home)
    assert set(found) == {"small", *(f"{impl} {of}" for impl in ("numpy", "torch") for of in ("mean", "s0", "s1"))}
    assert found["torch mean"]["seeds"] == 2
    for trial in document["trials"]:
        figures = found[f"{trial['impl']} s{trial['seed']}"]
        assert figures["test_err_pct"] == trial["test_err_pct"]
        assert figures["epoch_s"] == pytest.approx(trial["epoch_s"], rel=1e-3)
        assert figures["parity_ok"] == 1
        assert figures["epoch/train_loss"] == pytest.approx(trial["epochs"][-1]["train_loss"], rel=1e-3)


def test_second_run_answers_from_the_journal(small: tuple[Any, dict[str, Any]], home: Path) -> None:
    before = contents(home / "runs" / "small", "trials/*/*")
    done, document = inline(home, "small.yaml")
    assert done.returncode == 0
    assert document == small[1]
    assert contents(home / "runs" / "small", "trials/*/*") == before
    assert "started" not in done.stderr


def test_plan_before_and_after(small: object, home: Path, tmp_path: Path) -> None:
    before = json.loads(capsbench(home, "plan", "small.yaml", "--out", tmp_path, "--json").stdout)
    after = json.loads(capsbench(home, "plan", "small.yaml", "--json").stdout)
    assert not list(tmp_path.iterdir())
    assert [trial["id"] for trial in before["trials"]] == [trial["id"] for trial in after["trials"]]
    for trial in before["trials"]:
        assert set(trial) >= {"id", "impl", "params", "seed", "state", "estimate_s"}
        assert trial["state"] == "pending"
        assert trial["estimate_s"] > 0
    assert {(trial["state"], trial["estimate_s"]) for trial in after["trials"]} == {("finished", 0)}


def test_more_of_a_suite_runs_what_is_new(small: object, home: Path) -> None:
    before = contents(home / "runs" / "small", "trials/*/events.jsonl")
    done, document = inline(home, "small.yaml", "-s", "grid.impl=numpy", "-s", "grid.seed=0,2", "--no-mlflow")
    assert done.returncode == 0
    assert [trial["seed"] for trial in document["trials"]] == [0, 2]
    after = contents(home / "runs" / "small", "trials/*/events.jsonl")
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_the_others_go_on(mixed: tuple[Path, subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    folder, done, document = mixed
    assert done.returncode == 1
    trials = by_impl(document)
    assert {impl: trial["status"] for impl, trial in trials.items()} == {
        "RaisingNet": "failed",
        "WrongAxisNet": "finished",
        "tf": "failed",
        "numpy": "finished",
    }
    raising = trials["RaisingNet"]
    assert (raising["cause"], raising["error"]) == ("RuntimeError: no [such] kernel", "RuntimeError")
    log = folder / document["run_dir"] / raising["log"]
    assert "Traceback" in log.read_text()
    assert "run_helpers:RaisingNet seed 0 failed: RuntimeError: no [such] kernel" in done.stderr
    assert f"log: {document['run_dir']}/{raising['log']}" in done.stderr
    assert row_of(done.stderr, "run_helpers:RaisingNet")[1:5] == ["-"] * 4


def test_an_absent_framework_is_named(mixed: tuple[Path, subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    _, done, document = mixed
    absent = by_impl(document)["tf"]
    assert absent["cause"].startswith("not installed: tensorflow")
    assert 'pip install "capsbench[tf]"' in done.stderr
    assert "-s grid.impl=run_helpers:RaisingNet,run_helpers:WrongAxisNet,numpy" in done.stderr
    assert (absent["attempts"], absent["log"]) == (0, None)


def test_a_precision_that_is_not_there_is_a_verdict(tmp_path: Path) -> None:
    grid = {"impl": ["run_helpers:HeldNet"], "runtime.precision": ["tf32", "fp32"]}
    suite = write_suite(tmp_path, grid=grid, parity={"gate": False})
    planned = json.loads(capsbench(tmp_path, "plan", suite, "--executor", "inline", "--json").stdout)
    assert [trial["state"] for trial in planned["trials"]] == ["unavailable", "pending"]
    done, document = inline(tmp_path, suite, "--no-mlflow")
    assert done.returncode == 1
    refused, good = document["trials"]
    assert (refused["status"], good["status"]) == ("failed", "finished")
    assert (refused["error"], refused["attempts"]) == ("Unavailable", 0)
    assert refused["cause"].startswith("tf32 needs an NVIDIA GPU of compute capability 8.0 or more; found a trial on")
    assert refused["hint"].startswith("the others went on; use -s runtime.precision=fp32")
    assert refused["cause"] in done.stderr
    alone, nothing = inline(tmp_path, suite, "-s", "runtime.precision=tf32")
    assert alone.returncode == 2
    assert nothing["error"].startswith(f"run_helpers:HeldNet: {refused['cause']}")


def test_without_parity_no_timing(mixed: tuple[Path, subprocess.CompletedProcess[str], dict[str, Any]]) -> None:
    folder, done, document = mixed
    wrong = by_impl(document)["WrongAxisNet"]
    assert wrong["parity_ok"] is False
    assert wrong["parity_max_rel_err"] > 0.01
    assert wrong["audit"]["ok"] is False
    assert wrong["test_err_pct"] is None
    assert [epoch["train_loss"] > 0 for epoch in wrong["epochs"]] == [True, True]
    written = json.loads((folder / "runs/small/trials" / wrong["id"] / "result.json").read_text())
    for result in (wrong, written):
        assert not any(result[name] for name in TIMINGS & set(result))
        assert not any(TIMINGS & set(epoch) for epoch in result["epochs"])
    figures = metrics(folder)["WrongAxisNet s0"]
    assert figures["parity_ok"] == 0
    assert "test_err_pct" not in figures
    assert figures["audit_s"] == pytest.approx(wrong["audit"]["audit_s"], rel=1e-4)
    assert not any(key.rpartition("/")[2] in TIMINGS for key in figures)
    row = row_of(done.stderr, "run_helpers:WrongAxisNet")
    assert (row[1:6], row[7:]) == (["-"] * 5, ["FAILED", "-"])
    said = [line for line in done.stderr.splitlines() if line.startswith("WrongAxisNet s0")]
    assert len(said) == 6
    assert not any(re.search(r"\d s\b", line) for line in said)
    assert "parity failed at" in done.stderr


def test_parity_failure_alone_is_exit_1(mixed: tuple[Path, Any, dict[str, Any]]) -> None:
    folder, _, _ = mixed
    done, document = inline(folder, "small.yaml", "-s", "grid.impl=run_helpers:WrongAxisNet", "--no-mlflow")
    assert [trial["status"] for trial in document["trials"]] == ["finished"]
    assert done.returncode == 1


def test_no_framework_at_all(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, grid={"impl": ["torch"]})
    done, document = inline(tmp_path, suite, hide="torch")
    assert done.returncode == 2
    assert "torch: not installed: torch" in document["error"]
    assert not (tmp_path / "runs").exists()


def test_journal_now_mlflow_later(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    done = capsbench(tmp_path, "run", suite, hide="ray,mlflow", figures=True)  # inline: there is no Ray
    assert done.returncode == 0
    assert "Ray is not installed" in done.stdout
    assert "MLflow is not installed" in done.stdout
    assert "capsbench sync runs/small" in done.stdout
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    refused = capsbench(tmp_path, "sync", "runs/small", hide="mlflow")
    assert refused.returncode == 2
    assert "pip install" in refused.stderr
    report = json.loads(capsbench(tmp_path, "sync", "runs/small", "--json").stdout)
    assert (report["trials"], report["experiment"]) == (1, "capsbench/small")
    [result] = (tmp_path / "runs").glob("small/trials/*/result.json")
    assert metrics(tmp_path)["numpy s0"]["test_err_pct"] == json.loads(result.read_text())["test_err_pct"]
    [index] = (tmp_path / "runs").glob("small/trials/*/figures/figures.json")
    assert index.stat().st_mtime >= result.stat().st_mtime  # drawn by `run`, after all trials
    drawn = {"figures.json", *json.loads(index.read_text())["files"]}
    assert {"learning.png", "confusion.png", "reconstructions.png", "epochs.csv"} <= drawn
    assert {path.name for path in (tmp_path / "runs").glob("mlartifacts/**/figures/*")} == drawn
    again = json.loads(capsbench(tmp_path, "sync", "runs/small", "--json").stdout)
    assert again == {**report, "events": 0}


def test_same_seed_same_start_and_same_end(tmp_path: Path) -> None:
    impls = {"numpy": False, "torch": False, "tf": False, "jax": True}  # JAX compiles faster than it runs uncompiled
    runs: dict[str, list[dict[str, Any]]] = {impl: [] for impl in impls}
    for compiled in (False, True):
        chosen = [impl for impl in impls if impls[impl] is compiled]
        suite = write_suite(
            tmp_path, train={"epochs": 1}, runtime={"compile": compiled}, parity={"gate": False}, grid={"impl": chosen}
        )
        options = ("--executor", "inline", "--json", "--no-mlflow")
        twice = [start(tmp_path, "run", suite, *options, "--out", out) for out in ("a", "b")]  # at once, a core each
        for process in twice:
            stdout, stderr = process.communicate(timeout=240)
            assert process.returncode == 0, stderr
            document = json.loads(stdout)
            for impl, trial in by_impl(document).items():
                folder = tmp_path / document["run_dir"] / "trials" / trial["id"]
                runs[impl].append({**trial, "weights": digest(load_weights(folder / "weights.safetensors"))})
    for first, second in runs.values():
        assert first["id"] == second["id"]
        assert first["weights"] == second["weights"]
        assert (first["test_err_pct"], first["test_loss"]) == (second["test_err_pct"], second["test_loss"])
        assert repeatable(first) == repeatable(second)
    trials = [first for first, _ in runs.values()]
    assert len({trial["weights_sha256"] for trial in trials}) == 1
    assert len({trial["data_sha256"] for trial in trials}) == 1
    assert len({trial["epochs"][0]["plan_sha256"] for trial in trials}) == 1
    assert len({trial["weights"] for trial in trials}) > 1  # they did compute in different ways
    losses = [trial["epochs"][0]["train_loss"] for trial in trials]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def test_another_seed_is_another_start(small: tuple[Any, dict[str, Any]]) -> None:
    trials = {(trial["impl"], trial["seed"]): trial for trial in small[1]["trials"]}
    assert trials["torch", 0]["weights_sha256"] == trials["numpy", 0]["weights_sha256"]
    assert trials["torch", 0]["weights_sha256"] != trials["torch", 1]["weights_sha256"]


def test_events_name_their_process(small: object, home: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, train={"epochs": 1})
    done, _ = inline(tmp_path, suite, "--no-mlflow")
    assert done.returncode == 0
    attempt = events_of(tmp_path / "runs" / "small", "numpy")[0]
    assert attempt["kind"] == "attempt"
    assert len(attempt["cores"]) == 1
    assert attempt["cuda_visible_devices"] == ""
