"""The journal's copy in MLflow: with a real database, a dead server, and one that never answers."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import labels
from harness.cost.operations import step_flops
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from harness.views.mlflow import answer, remote, saved
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import Runs
from harness.views.mlflow.tracking import Tracker, default_uri, redact, sync
from tests.helpers.event_helpers import event

TIMINGS = {"epoch_s", "img_per_s", "gflops_per_s", "compile_s", "epoch/epoch_s", "epoch/img_per_s", "epoch/eval_s"}
START = 1_700_000_000.0


def make_trial(impl: str = "torch", seed: int = 0, params: dict | None = None, gate: bool = True) -> Trial:
    return Trial(
        id=f"{impl}-{seed}", suite="routing", impl=impl, seed=seed, params=params or {"model.routing": 3},
        data=DataConfig(name="digits", dir="/somewhere"), model=ModelSpec(image=(28, 28, 1), classes=10),
        train=TrainConfig(epochs=3), runtime=RuntimeConfig(), parity=ParityConfig(gate=gate), cpus=2, gpus=0,
    )  # fmt: skip


def attempt(number: int = 1, resumed: int = 0) -> dict:
    versions = {"torch": "2.13.0"}
    return {"kind": "attempt", "attempt": number, "resumed_epoch": resumed, "host": "bench", "versions": versions}


def parity(ok: bool = True, number: int = 1) -> dict:
    tensors = {"digit.w": {"rel_err": 2e-6, "tolerance": 1e-4}}
    return {"kind": "parity", "ok": ok, "max_rel_err": 2e-6, "worst": "digit.w", "tensors": tensors, "attempt": number}


def epoch(number: int, attempt: int = 1, **more: Any) -> dict:
    record = {"epoch_s": 2.123456789, "img_per_s": 50.0, "eval_s": 0.5, "train_loss": 0.5 / number, "val_err_pct": 3.0}
    return {"kind": "epoch", "epoch": number, "attempt": attempt, "lr": 1e-3, "val_loss": None, **record, **more}


READY = {"kind": "ready", "compile_s": 4.5, "parameters": 8215568, "weights_sha256": "ab" * 32, "device": "cpu"}
RESULT = {"kind": "result", "test_err_pct": 1.5, "test_loss": 0.1, "peak_bytes": 970_000_000}
FINISHED = [attempt(), parity(), READY, epoch(1), epoch(2), epoch(3), RESULT]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder, hence one MLflow database, for the module: making one takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def journal(out: Path, request: pytest.FixtureRequest) -> Iterator[Journal]:
    """A run directory of its own name, and so an experiment of its own, for each test."""
    with Journal(out / request.node.name[:60]).open() as journal:
        yield journal


def plan(journal: Journal, *trials: Trial) -> None:
    documents = [trial.model_dump(mode="json") for trial in trials]
    journal.write_plan({"suite": journal.run_dir.name, "question": "Why?", "trials": documents}, "name: routing\n")
    git = {"commit": "c0ffee", "dirty": False}
    project = {"commit": "f00d", "dirty": True, "branch": "topic", "url": "https://host/x"}
    who = {"user": "ada", "cluster": {"ray": "10.0.0.1:6379", "slurm_job": "17"}, "project": project}
    journal.write_environment(
        {"host": "bench", "os": "Linux 6", "git": git, "versions": {"torch": "0", "numpy": "2.4"}, **who}
    )


def write(journal: Journal, trial: Trial, events: list[dict]) -> None:
    """Appends events a second apart."""
    written = len(journal.events(trial.id))
    for second, document in enumerate(events, start=written):
        journal.append(trial.id, event({"trial": trial.id, "attempt": 1, "time": START + second, **document}))


def client_of(journal: Journal) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(default_uri(journal.run_dir.parent))


def runs_of(journal: Journal, kind: str = "trial") -> dict[str, Any]:
    """The active runs of the test's experiment, by name."""
    client = client_of(journal)
    experiment = client.get_experiment_by_name(f"capsbench/{journal.run_dir.name}")
    found = client.search_runs([experiment.experiment_id], f"tags.`capsbench.kind` = '{kind}'")
    assert len({run.info.run_name for run in found}) == len(found), "a run is there twice"
    return {run.info.run_name: run for run in found}


def history(journal: Journal, run: Any, key: str) -> list[tuple[int, float, float]]:
    """(step, value, seconds since the start) of every stored row."""
    rows = client_of(journal).get_metric_history(run.info.run_id, key)
    return sorted((row.step, row.value, row.timestamp / 1000 - START) for row in rows)


def test_a_finished_trial_is_stored_with_all_its_figures(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED)
    (journal.trial_dir(trial.id) / "attempt-1.log").write_text("hello\n")
    journal.close()
    report = sync(journal.run_dir)
    assert (report.trials, report.events) == (1, 7)
    suite, run = runs_of(journal, "suite")[journal.run_dir.name], runs_of(journal)["torch r3 s0"]
    assert run.data.metrics == {
        "epoch/train_loss": 0.16667, "epoch/val_err_pct": 3.0, "epoch/lr": 1e-3, "epoch/epoch_s": 2.1235,
        "epoch/img_per_s": 50.0, "epoch/eval_s": 0.5, "epoch/train_err_pct": 5.0, "parity_ok": 1.0, "parity_max_rel_err": 2e-6,
        "test_err_pct": 1.5, "val_err_pct": 3.0, "test_loss": 0.1, "epoch_s": 2.1235, "img_per_s": 50.0,
        "compile_s": 4.5, "peak_mem_mb": 970.0,
        "gflops_per_s": pytest.approx(50 * step_flops(trial.model, 1) / 1e9, rel=1e-4),
    }  # fmt: skip
    assert history(journal, run, "epoch/train_loss") == [(1, 0.5, 3.0), (2, 0.25, 4.0), (3, 0.16667, 5.0)]
    assert history(journal, run, "test_err_pct") == [(0, 1.5, 6.0)]
    expected = {
        "impl": "torch",
        "seed": "0",
        "model.routing": "3",
        "train.lr_decay.rate": "0.96",
        "data.name": "digits",
    }
    assert expected.items() <= run.data.params.items()
    assert not {"data.dir", "id"} & run.data.params.keys()
    expected = {
        "mlflow.parentRunId": suite.info.run_id, "capsbench.trial": trial.id, "mlflow.runColor": labels.color("torch"),
        "weights_sha256": "ab" * 32, "profile": "paper", "parity": "good", "parity_worst": "digit.w",
        "version.torch": "2.13.0", "version.numpy": "2.4", "mlflow.source.git.commit": "c0ffee",
        "git.dirty": "False", "system.os": "Linux 6", "system.host": "bench", "node": "bench", "mlflow.user": "ada",
        "cluster": "ray 10.0.0.1:6379, slurm_job 17", "project.commit": "f00d", "project.dirty": "True",
        "mlflow.source.git.branch": "topic", "mlflow.source.git.repoURL": "https://host/x",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert (run.info.status, suite.info.status) == ("FINISHED", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (START * 1000, (START + 6) * 1000)
    client = client_of(journal)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"result.json", "parity.json", "attempt-1.log"}
    stored = json.loads(Path(client.download_artifacts(run.info.run_id, "result.json")).read_text())
    assert (stored["epoch_s"], stored["status"]) == (2.123456789, "finished")  # unrounded
    names = {file.path for file in client.list_artifacts(suite.info.run_id)}
    assert names == {"suite.yaml", "plan.json", "environment.json", "report.html"}
    tags = client.get_experiment(report.experiment_id).tags
    views = {view.title: json.loads(json.loads(tags[view.tag])["state"]) for view in saved.views([trial])}
    assert views["Comparison"]["orderByKey"] == "metrics.`test_err_pct`"
    assert list(views) == [
        "Comparison",
        "Cells: means over seeds",
        "Speed against accuracy",
        "Learning curves",
        "Parity",
    ]


def test_the_parent_run_and_its_experiment_answer_the_question(journal: Journal) -> None:
    trials = [make_trial("torch"), make_trial("jax")]
    plan(journal, *trials)
    client = client_of(journal)

    def told() -> tuple[str, str | None, set[str]]:
        """The run's note, its experiment's, and the run's files."""
        sync(journal.run_dir)
        run = runs_of(journal, "suite")[journal.run_dir.name]
        experiment = client.get_experiment(run.info.experiment_id)
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        return run.data.tags["mlflow.note.content"], experiment.tags.get("mlflow.note.content"), names

    write(journal, trials[0], FINISHED)
    note, described, names = told()
    assert note.startswith("**Why?** 2 trials planned. The answer comes here when the run ends.\n")
    assert (described, "report.html" in names) == (None, False)
    journal.close()
    note, described, names = told()
    assert "PyTorch with routing 3 has a test error of 1.50% and 2.12 s per epoch." in note
    assert "| torch | routing 3 | 1 | 1.50 |" in note
    assert "1 of 2 trials count." in note
    assert (described, "report.html" in names) == (note, True)

    with Journal(journal.run_dir).open() as again:  # the run goes on
        finish(again, trials[1], 1.25, peak_bytes=10)
        assert told()[0].startswith("**Why?** 2 trials planned.")
    client.set_experiment_tag(runs_of(journal)["torch r3 s0"].info.experiment_id, "mlflow.note.content", "Mine.")
    note, described, _ = told()
    assert "With routing 3, JAX is 1.00 times as fast as PyTorch; test errors are 1.25% and 1.50%." in note
    assert described == "Mine."  # nobody's words are replaced
    run = runs_of(journal, "suite")[journal.run_dir.name]
    page = Path(client.download_artifacts(run.info.run_id, "report.html")).read_text()
    assert "JAX is 1.00 times as fast as PyTorch" in page
    assert sync(journal.run_dir).notes == []


@pytest.mark.parametrize(
    ("fault", "told"), [("slow", "no answer within 0.01 s"), ("broken", "a bug"), ("large", "5 MB, more than 0")]
)
def test_a_report_that_fails_hinders_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED)

    def page(_: Journal) -> str:
        if fault == "broken":
            raise ValueError("a bug")
        time.sleep(0.5)
        return ""

    if fault == "large":
        monkeypatch.setattr(answer, "LARGEST", 100)
    else:
        monkeypatch.setattr(answer, "page", page)
        monkeypatch.setattr("harness.views.mlflow.tracking.REPORT_S", 0.01)
    tracker = Tracker(journal, flush_s=0.1)
    tracker.start()
    assert tracker.close() is None  # MLflow lacks nothing that is needed
    assert f"the report is not in MLflow: {'the report has ' * (fault == 'large')}{told}" in str(tracker.remark)
    assert f"capsbench sync {shlex.quote(str(journal.run_dir))}" in str(tracker.remark)
    assert (
        "| torch | routing 3 | 1 | 1.50 |"
        in runs_of(journal, "suite")[journal.run_dir.name].data.tags["mlflow.note.content"]
    )
    monkeypatch.undo()
    journal.close()
    assert sync(journal.run_dir).notes == []
    run = runs_of(journal, "suite")[journal.run_dir.name]
    assert "report.html" in {file.path for file in client_of(journal).list_artifacts(run.info.run_id)}


def models_of(journal: Journal) -> list[Any]:
    client = client_of(journal)
    experiment = client.get_experiment_by_name(f"capsbench/{journal.run_dir.name}")
    return list(client.search_logged_models([experiment.experiment_id]))


def test_a_trial_s_data_and_model_are_told_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial()
    plan(journal, trial)
    files = {"weights.safetensors": {"sha256": "cd" * 32, "bytes": 10}}
    events = [*FINISHED[:2], {**READY, "data_sha256": "ef" * 32, "data_provenance": "all digits"}, *FINISHED[3:6]]
    write(journal, trial, events)
    sync(journal.run_dir)
    run = runs_of(journal)["torch r3 s0"]
    found = {
        each.dataset.name: (each.dataset, {tag.key: tag.value for tag in each.tags})
        for each in run.inputs.dataset_inputs
    }
    contexts = {name: tags["mlflow.data.context"] for name, (_, tags) in found.items()}
    assert contexts == {"digits train": "training", "digits validation": "validation", "digits test": "test"}
    dataset, tags = found["digits train"]
    assert (dataset.digest, json.loads(dataset.profile)) == (
        ("ef" * 32)[:36],
        {"images": 1257, "shape": [28, 28, 1], "classes": 10},
    )
    assert "scikit-learn" in json.loads(dataset.source)["tags"]["source"]
    assert tags["sha256"] == "ef" * 32
    assert models_of(journal) == []

    def cut_off(*_: Any, **__: Any) -> None:  # after the model was made, before anybody wrote that down
        raise KeyboardInterrupt

    write(journal, trial, [{**RESULT, "weights": "weights.safetensors", "files": files}])
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "log", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sync(journal.run_dir)
    assert len(models_of(journal)) == 1
    sync(journal.run_dir)
    (journal.run_dir / "mlflow.json").unlink()
    sync(journal.run_dir)
    (model,), run = models_of(journal), runs_of(journal)["torch r3 s0"]
    assert (model.source_run_id, model.name, str(model.status)) == (run.info.run_id, "torch-r3-s0", "READY")
    assert model.tags["sha256.weights.safetensors"] == "cd" * 32
    assert model.tags["weights"] == f"trials/{trial.id}/weights.safetensors"
    assert [each.model_id for each in run.outputs.model_outputs] == [model.model_id]
    values = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert (values["test_err_pct"], values["epoch_s"]) == ((1.5, "digits test"), (2.1235, None))
    assert len(values) == len(model.metrics)
    assert history(journal, run, "test_err_pct") == [(0, 1.5, 6.0)]
    assert len(run.inputs.dataset_inputs) == 3


def test_an_mlflow_without_models_takes_all_else(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
    from mlflow.tracking import MlflowClient

    def absent(*_: Any, **__: Any) -> None:  # as a server of MLflow 2 answers
        raise MlflowException("no such endpoint", ENDPOINT_NOT_FOUND)

    for name in ("create_logged_model", "search_logged_models", "log_inputs"):
        monkeypatch.setattr(MlflowClient, name, absent)
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED[:-1])
    sync(journal.run_dir)
    write(journal, trial, FINISHED[-1:])
    journal.close()
    assert sync(journal.run_dir).notes == []
    assert runs_of(journal)["torch r3 s0"].data.metrics["test_err_pct"] == 1.5
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    assert sync(journal.run_dir).events == 0  # and does not try again


def test_figures_follow_when_they_are_drawn(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED)
    journal.close()
    client, folder = client_of(journal), journal.trial_dir(trial.id) / "figures"

    def stored() -> dict[str, str]:
        sync(journal.run_dir)
        run_id = runs_of(journal)["torch r3 s0"].info.run_id
        paths = [file.path for file in client.list_artifacts(run_id, "figures")]
        return {path: Path(client.download_artifacts(run_id, path)).read_text() for path in paths}

    folder.mkdir()
    (folder / "learning.png").write_text("first")
    assert stored() == {}  # no list of them yet: they are being drawn
    (folder / "figures.json").write_text("1")
    assert stored() == {"figures/figures.json": "1", "figures/learning.png": "first"}
    (folder / "learning.png").write_text("second")
    (folder / "figures.json").write_text("2")
    assert stored() == {"figures/figures.json": "2", "figures/learning.png": "second"}
    assert sync(journal.run_dir).events == 0


def test_the_equivalence_over_seeds_is_the_suite_s_and_follows_the_plan(journal: Journal) -> None:
    trials = [make_trial(impl, seed) for seed in (0, 1) for impl in ("torch", "jax")]
    plan(journal, *trials)
    for trial in trials[:-1]:
        write(journal, trial, [*FINISHED[:-1], {**RESULT, "test_err_pct": 1.5 + trial.seed}])
    client = client_of(journal)

    def stored() -> tuple[str | None, Any]:
        sync(journal.run_dir)
        run = runs_of(journal, "suite")[journal.run_dir.name]
        if "equivalence.json" not in {file.path for file in client.list_artifacts(run.info.run_id)}:
            return run.data.tags.get("equivalence"), None
        document = json.loads(Path(client.download_artifacts(run.info.run_id, "equivalence.json")).read_text())
        return run.data.tags["equivalence"], document["equivalence"]

    assert stored() == (None, None)  # what goes on is not judged
    journal.close()
    tag, pairs = stored()
    assert "L7 torch ? jax, routing 3: no verdict: 1 of 2 seeds of jax" in str(tag)
    assert [pair["verdict"] for pair in pairs] == [None]

    with Journal(journal.run_dir).open() as again:
        write(again, trials[-1], [*FINISHED[:-1], {**RESULT, "test_err_pct": 2.5}])
    tag, pairs = stored()
    found = "test error differs by 0 points with every seed, within the margin of 0.1 (2 seeds each)"
    assert tag == f"L7 torch = jax, routing 3: {found}"
    assert [(pair["verdict"], pair["margin"]) for pair in pairs] == [("equivalent", 0.1)]

    with Journal(journal.run_dir).open() as again:  # another margin, and nothing run
        plan(again, *(each.model_copy(update={"parity": ParityConfig(margin_pct=7)}) for each in trials))
    assert [pair["margin"] for pair in stored()[1]] == [7]
    with Journal(journal.run_dir).open() as again:
        plan(again, *trials[:2])
    assert stored() == ("-", [])


def finish(journal: Journal, trial: Trial, err_pct: float, **figures: Any) -> None:
    write(journal, trial, [*FINISHED[:-1], {**RESULT, "test_err_pct": err_pct, **figures}])


def test_seeds_have_a_parent_with_their_mean_and_its_interval(journal: Journal) -> None:
    trials = [make_trial(seed=seed) for seed in range(3)]
    plan(journal, *trials)
    for trial, err_pct in zip(trials, (0.30, 0.36, 0.33), strict=True):
        finish(journal, trial, err_pct)
    journal.close()
    sync(journal.run_dir)
    (cell,), suite = runs_of(journal, "cell").values(), runs_of(journal, "suite")[journal.run_dir.name]
    assert (cell.info.run_name, cell.info.status) == ("torch r3 mean", "FINISHED")
    assert cell.data.tags["mlflow.parentRunId"] == suite.info.run_id
    parents = {name: run.data.tags["mlflow.parentRunId"] for name, run in runs_of(journal).items()}
    assert parents == {f"torch r3 s{seed}": cell.info.run_id for seed in range(3)}
    half = 4.302653 * 0.03 / 3**0.5
    expected = {
        "seeds": 3,
        "test_err_pct_mean": 0.33,
        "test_err_pct_sd": 0.03,
        "test_err_pct_low": 0.33 - half,
        "test_err_pct_high": 0.33 + half,
        "epoch_s_mean": 2.1235,
        "epoch_s_sd": 0,
        "peak_mem_mb_mean": 970,
    }
    assert {key: cell.data.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert "epoch_s_low" not in cell.data.metrics  # every seed took as long
    assert history(journal, cell, "seeds") == [(1, 1, 6.0), (2, 2, 6.0), (3, 3, 6.0)]
    assert [(step, value) for step, value, _ in history(journal, cell, "test_err_pct_mean")] == [
        (1, 0.3),
        (2, 0.33),
        (3, 0.33),
    ]
    assert [step for step, *_ in history(journal, cell, "test_err_pct_sd")] == [2, 3]
    tags = {"seeds": "0, 1, 2", "test_err_pct": "0.33, 0.25548 to 0.40452", "impl": "torch"}
    assert tags.items() <= cell.data.tags.items()
    assert "| test error % | 0.33, 0.25548 to 0.40452 |" in cell.data.tags["mlflow.note.content"]
    assert cell.data.params["model.routing"] == "3"
    assert "seed" not in cell.data.params


def test_parents_are_stored_once_and_grow_with_their_seeds(journal: Journal) -> None:
    trials = [make_trial(seed=seed) for seed in range(3)]
    plan(journal, trials[0])
    finish(journal, trials[0], 0.3)
    sync(journal.run_dir)
    assert runs_of(journal, "cell") == {}  # nothing to aggregate
    plan(journal, *trials)
    finish(journal, trials[1], 0.4)
    sync(journal.run_dir)
    (before,) = runs_of(journal, "cell").values()
    assert before.info.status == "RUNNING"  # this process holds the run's lock
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs_of(journal).values()}
    assert parents == {before.info.run_id}  # the first seed's run too, which was there before
    finish(journal, trials[2], 0.5)
    journal.close()
    assert sync(journal.run_dir).events == 7
    (after,) = runs_of(journal, "cell").values()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert "cause" not in after.data.tags  # what was true then
    assert after.data.tags["mlflow.note.content"].startswith("Mean over seeds (3)")
    rows = history(journal, after, "test_err_pct_mean")
    assert [(step, value) for step, value, _ in rows] == [(1, 0.3), (2, 0.35), (3, 0.4)]

    (journal.run_dir / "mlflow.json").unlink()
    sync(journal.run_dir)
    (again,) = runs_of(journal, "cell").values()
    assert again.info.run_id == after.info.run_id
    assert history(journal, again, "test_err_pct_mean") == rows


def test_a_pass_that_was_cut_short_is_completed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [make_trial(seed=seed) for seed in range(2)]
    plan(journal, *trials)
    for trial in trials:
        finish(journal, trial, 0.3 + trial.seed)
    journal.close()

    create = Runs.create

    def killed(self: Runs, key: str, *arguments: Any) -> str:
        made = create(self, key, *arguments)
        if key.startswith("cell-"):
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patch:  # killed when the parent is made, before anything remembers it
        patch.setattr(Runs, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            sync(journal.run_dir)
    sync(journal.run_dir)
    (cell,) = runs_of(journal, "cell").values()
    assert (cell.data.metrics["seeds"], cell.info.status) == (2, "FINISHED")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(journal).values()} == {cell.info.run_id}


def test_a_parent_follows_the_plan_and_what_later_attempts_make_void(journal: Journal) -> None:
    trials = [make_trial(seed=seed) for seed in range(2)]
    plan(journal, *trials)
    for trial in trials:
        finish(journal, trial, 0.3 + trial.seed)
    sync(journal.run_dir)
    (first,) = runs_of(journal, "cell").values()
    write(journal, trials[0], [attempt(2, resumed=3), parity(ok=False, number=2), RESULT])
    sync(journal.run_dir)
    (second,) = runs_of(journal, "cell").values()
    assert second.info.run_id != first.info.run_id
    assert second.data.metrics["seeds"] == 1
    assert second.data.metrics["test_err_pct_mean"] == 1.3
    assert "test_err_pct_sd" not in second.data.metrics
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(journal).values()} == {second.info.run_id}
    plan(journal, trials[1])
    journal.close()
    sync(journal.run_dir)
    assert runs_of(journal, "cell") == {}
    suite = runs_of(journal, "suite")[journal.run_dir.name]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(journal).values()} == {suite.info.run_id}


def test_sending_twice_stores_once_and_a_lost_cursor_duplicates_nothing(journal: Journal) -> None:
    trials = [make_trial(impl) for impl in ("torch", "jax")]
    plan(journal, *trials)
    for trial in trials:
        write(journal, trial, FINISHED)

    def stored() -> dict:
        runs = {**runs_of(journal), **runs_of(journal, "suite")}
        return {
            name: (run.info.run_id, {key: history(journal, run, key) for key in run.data.metrics})
            for name, run in runs.items()
        }

    assert sync(journal.run_dir).events == 14
    first = stored()
    assert len(first) == 3
    assert sync(journal.run_dir).events == 0
    (journal.run_dir / "mlflow.json").unlink()
    assert sync(journal.run_dir).events == 14
    assert stored() == first


@pytest.mark.parametrize(("gate", "checks"), [(True, [parity(ok=False)]), (False, []), (True, [])])
def test_no_timing_is_stored_without_parity(journal: Journal, gate: bool, checks: list) -> None:
    trial = make_trial(gate=gate)
    plan(journal, trial)
    write(journal, trial, [attempt(), *checks, READY, epoch(1), epoch(2), RESULT])
    sync(journal.run_dir)
    run = runs_of(journal)["torch r3 s0"]
    assert not TIMINGS & run.data.metrics.keys()
    assert {"epoch/train_loss", "epoch/val_err_pct", "test_err_pct", "peak_mem_mb"} <= run.data.metrics.keys()
    assert run.data.metrics.get("parity_ok") == (0.0 if checks else None)
    assert run.data.tags["parity"] == ("failed" if checks else "not checked")
    assert "No timing verdict" in run.data.tags["mlflow.note.content"]


def test_timing_already_stored_goes_when_a_later_attempt_fails_parity(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, [attempt(), parity(), READY, epoch(1), epoch(2)])
    sync(journal.run_dir)
    assert TIMINGS & runs_of(journal)["torch r3 s0"].data.metrics.keys()
    write(journal, trial, [attempt(2, resumed=2), parity(ok=False, number=2), epoch(3, 2), RESULT])
    (journal.run_dir / "mlflow.json").unlink()  # found again by its tags, and seen to hold what it may not
    sync(journal.run_dir)
    run = runs_of(journal)["torch r3 s0"]
    assert not TIMINGS & run.data.metrics.keys()
    assert [step for step, *_ in history(journal, run, "epoch/train_loss")] == [1, 2, 3]


def test_a_superseded_epoch_is_stored_once(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, [attempt(), parity(), READY, epoch(1), epoch(2, train_loss=9.0)])
    sync(journal.run_dir)
    assert runs_of(journal)["torch r3 s0"].info.status == "RUNNING"  # this process holds the run's lock
    write(journal, trial, [attempt(2, resumed=1), parity(number=2), epoch(2, 2), epoch(3, 2), RESULT])
    sync(journal.run_dir)
    losses = [(step, value) for step, value, _ in history(journal, runs_of(journal)["torch r3 s0"], "epoch/train_loss")]
    assert losses == [(1, 0.5), (2, 0.25), (3, 0.16667)]


def test_a_resumed_trial_keeps_its_run(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, [attempt(), parity(), READY, epoch(1), {"kind": "interrupted"}])
    journal.close()
    sync(journal.run_dir)
    before = runs_of(journal)["torch r3 s0"]
    assert (before.info.status, runs_of(journal, "suite")[journal.run_dir.name].info.status) == ("KILLED", "KILLED")
    assert "interrupted" in before.data.tags["mlflow.note.content"]
    journal.open()
    write(journal, trial, [attempt(2, resumed=1), parity(number=2), epoch(2, 2), epoch(3, 2), RESULT])
    sync(journal.run_dir)
    after = runs_of(journal)["torch r3 s0"]
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert not {"mlflow.note.content", "cause"} & after.data.tags.keys()  # what was true then


def test_a_failed_trial_says_why(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, [attempt(), {"kind": "failed", "cause": "out of memory", "error": "SIGKILL", "hint": "less"}])
    journal.close()
    sync(journal.run_dir)
    run = runs_of(journal)["torch r3 s0"]
    assert (run.info.status, run.data.tags["cause"], run.data.tags["hint"]) == ("FAILED", "out of memory", "less")
    assert runs_of(journal, "suite")[journal.run_dir.name].info.status == "FAILED"


def test_runs_deleted_in_mlflow_are_made_anew(journal: Journal) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED[:4])
    report = sync(journal.run_dir)
    client_of(journal).delete_experiment(report.experiment_id)
    write(journal, trial, FINISHED[4:])
    assert sync(journal.run_dir).experiment_id == report.experiment_id
    client_of(journal).delete_run(runs_of(journal)["torch r3 s0"].info.run_id)
    write(journal, trial, [{"kind": "warning", "message": "one more"}])
    sync(journal.run_dir)
    assert runs_of(journal)["torch r3 s0"].data.metrics["test_err_pct"] == 1.5


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing came within a minute"
        time.sleep(0.1)


def test_the_tracker_follows_a_run(journal: Journal) -> None:
    trial, second = make_trial(), make_trial("jax")
    plan(journal, trial, second)
    tracker = Tracker(journal, flush_s=0.2)
    tracker.start()
    wait_for(lambda: (journal.run_dir / "mlflow.json").exists())  # the suite's run is there before any trial's
    write(journal, trial, FINISHED[:4])
    tracker.notify(trial.id)
    wait_for(lambda: "torch r3 s0" in runs_of(journal))
    wait_for(lambda: "epoch/train_loss" in runs_of(journal)["torch r3 s0"].data.metrics)
    assert runs_of(journal)["torch r3 s0"].info.status == "RUNNING"
    assert runs_of(journal, "suite")[journal.run_dir.name].info.status == "RUNNING"
    write(journal, trial, FINISHED[4:])
    write(journal, second, FINISHED[:5])
    tracker.notify(trial.id)
    assert tracker.close() is None  # and what nobody spoke of is sent as well
    states = {name: run.info.status for name, run in runs_of(journal).items()}
    assert states == {"torch r3 s0": "FINISHED", "jax r3 s0": "KILLED"}
    assert runs_of(journal, "suite")[journal.run_dir.name].info.status == "KILLED"
    assert runs_of(journal)["torch r3 s0"].data.metrics["epoch_s"] == 2.1235


def test_a_run_already_stored_needs_no_mlflow(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED)
    tracker = Tracker(journal)
    tracker.start()
    assert tracker.close() is None
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    again = Tracker(journal)
    again.start()
    assert again.close() is None
    journal.append(trial.id, event({"kind": "warning", "message": "new", "time": START + 60}))
    third = Tracker(journal)
    third.start()
    assert "MLflow is not installed" in str(third.close())


@pytest.mark.parametrize("server", ["dead", "silent"])
def test_a_server_that_fails_costs_one_warning_and_no_data(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], server: str
) -> None:
    monkeypatch.setattr(remote, "_TIMEOUT_S", 0.5)
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if server == "silent":
            listener.listen()
        tracker = Tracker(journal, f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}", flush_s=0.1)
        tracker.start()
        warning = tracker.close()
    assert f"capsbench sync {shlex.quote(str(journal.run_dir))} --mlflow-uri 'http://user:***@127" in str(warning)
    assert "secret" not in str(warning)
    assert "\n" not in str(warning)
    assert capfd.readouterr() == ("", "")
    assert sync(journal.run_dir).events == 7


def test_close_does_not_wait_for_ever(journal: Journal) -> None:
    plan(journal, make_trial())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        tracker = Tracker(journal, f"http://127.0.0.1:{listener.getsockname()[1]}")
        tracker.start()
        assert "no answer within 0.1 s" in str(tracker.close(timeout_s=0.1))


def test_a_tracker_that_never_started_closes(journal: Journal) -> None:
    assert Tracker(journal).close() is None


def test_nothing_of_mlflow_reaches_the_screen(tmp_path: Path) -> None:
    trial = make_trial()
    with Journal(tmp_path / "run").open() as journal:
        plan(journal, trial)
        write(journal, trial, FINISHED)
    code = "import sys; from harness.views.mlflow.tracking import sync; sync(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    process = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run", "mlflow.db", "mlartifacts", ".mlflow.lock"}


def test_a_folder_moved_with_its_database_duplicates_nothing(tmp_path: Path, journal: Journal, out: Path) -> None:
    trial = make_trial()
    plan(journal, trial)
    write(journal, trial, FINISHED[:4])
    report = sync(journal.run_dir)
    shutil.copytree(journal.run_dir, tmp_path / "moved" / journal.run_dir.name)
    shutil.copy(out / "mlflow.db", tmp_path / "moved")
    with Journal(tmp_path / "moved" / journal.run_dir.name).open() as moved:
        moved.append(trial.id, event({"kind": "interrupted", "time": START + 60}))
    after = sync(moved.run_dir)
    assert (after.experiment_id, after.run_id) == (report.experiment_id, report.run_id)
    assert runs_of(moved)["torch r3 s0"].info.status == "KILLED"


def test_only_a_run_can_be_synced(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory: it has no plan\.json"):
        sync(tmp_path)


def test_an_unreachable_server_is_an_error_of_sync(journal: Journal) -> None:
    plan(journal, make_trial())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UserError, match=f"MLflow at {uri} did not take the run"):
            sync(journal.run_dir, uri)


@pytest.mark.parametrize(
    ("impl", "seed", "params", "name"),
    [
        ("torch", 0, {"model.routing": 3}, "torch r3 s0"),
        ("jax", 12, {"model.routing": 10, "model.decoder": False}, "jax r10 no-decod s12"),
        ("tf", 1, {"train.lr": 1e-4, "runtime.precision": "fp64"}, "tf lr0.0001 fp64 s1"),
        ("my.package:CapsNet", 0, {"model.decoder": True}, "CapsNet decoder s0"),
        ("torch", 123, {"model.routing": 3, "train.batch": 128, "train.epochs": 10}, "torch r3 b128 e1 s123"[:20]),
    ],
)
def test_run_names_are_short_and_keep_the_seed(impl: str, seed: int, params: dict, name: str) -> None:
    found = labels.run_name(make_trial(impl, seed, params))
    assert len(found) <= 20
    assert found.endswith(f" s{seed}")
    if len(name) < 20:
        assert found == name


def test_rows_once_sent_stay_valid_while_a_trial_goes_on() -> None:
    events = [attempt(), parity(), READY, epoch(1), {"kind": "interrupted"}, attempt(2, resumed=1), parity(number=2)]
    events += [epoch(2, 2), epoch(3, 2), RESULT, {"kind": "warning", "message": "late"}]
    events = [event({"attempt": 1, "time": START + second, **each}) for second, each in enumerate(events)]
    prefixes = [set(view.metric_rows(make_trial(), events[:count])) for count in range(len(events) + 1)]
    assert all(shorter <= longer for shorter, longer in itertools.pairwise(prefixes))
    assert len(prefixes[-1]) == len(view.metric_rows(make_trial(), events))


def test_quick_runs_have_an_experiment_of_their_own() -> None:
    assert view.experiment_name({"suite": "mnist", "quick": False}) == "capsbench/mnist"
    assert view.experiment_name({"suite": "mnist", "quick": True}) == "capsbench/mnist-quick"


def test_passwords_are_not_written_down() -> None:
    assert redact("postgresql+psycopg://me:secret@db/x") == "postgresql+psycopg://me:***@db/x"
    assert redact("sqlite:////runs/mlflow.db") == "sqlite:////runs/mlflow.db"
