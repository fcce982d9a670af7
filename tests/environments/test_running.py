"""Trials, parity and predictions in another Python, by the command line: as a user meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.environments.interpreters import Interpreters
from harness.errors import UserError
from harness.events import AttemptEvent, FailedEvent, TrialEvent
from harness.executors.base import Job
from harness.machine.environment import environment
from harness.machine.leases import local_cores
from harness.spec.trial import Interpreter, Trial
from harness.suite.identity import relevant
from harness.suite.suite import load_suite
from harness.supervisor.seat import Seat
from harness.supervisor.trial import run_attempt
from tests.helpers.environment_helpers import light
from tests.helpers.run_helpers import capsbench, write_suite


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    return light(tmp_path_factory.mktemp("second"))


@pytest.fixture
def suite(tmp_path: Path, second: str) -> Path:
    train = {"epochs": 1}
    return write_suite(
        tmp_path, grid={"impl": ["numpy", "numpy@light"]}, environments={"numpy@light": second}, train=train
    )


def trials(path: Path, *overrides: str) -> tuple[Trial, ...]:
    suite = load_suite(path, overrides)
    pythons = Interpreters(suite.grid["impl"], suite.environments, suite.path)
    facts = environment()
    return pythons.assigned(suite.trials(0, lambda impl: pythons.fingerprint(facts, impl)))


def test_two_contestants_of_one_implementation(suite: Path, tmp_path: Path, second: str) -> None:
    done = capsbench(tmp_path, "run", suite, "--executor", "inline", "--no-mlflow", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["trials"]
    assert [row["impl"] for row in rows] == ["numpy", "numpy@light"]
    assert rows[0]["id"] != rows[1]["id"]
    assert rows[0]["test_err_pct"] == rows[1]["test_err_pct"], "the same code with the same libraries"
    run_dir = tmp_path / "runs" / "small"
    documents = [json.loads((run_dir / "trials" / row["id"] / "trial.json").read_text()) for row in rows]
    assert "interpreter" not in documents[0]
    assert documents[1]["interpreter"]["path"] == second
    recorded = json.loads((run_dir / "environment.json").read_text())["environments"]["numpy@light"]
    assert recorded == documents[1]["interpreter"]
    attempts = [_attempt(run_dir, row["id"]) for row in rows]
    assert attempts[0]["versions"] == attempts[1]["versions"]
    told = capsbench(tmp_path, "report", run_dir)
    assert told.returncode == 0, told.stderr
    assert f"numpy@light: Python {recorded['python']}, numpy {recorded['versions']['numpy']}" in (
        run_dir / "report" / "report.md"
    ).read_text().replace("\n", " ")
    again = json.loads(capsbench(tmp_path, "plan", suite, "--json").stdout)["trials"]
    assert [row["state"] for row in again] == ["finished", "finished"]
    images = tmp_path / "some.npy"
    _draw(images)
    seen = capsbench(tmp_path, "predict", run_dir, rows[1]["id"], images, "--json")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["impl"] == "numpy@light"


def _attempt(run_dir: Path, trial: str) -> dict[str, Any]:
    lines = (run_dir / "trials" / trial / "events.jsonl").read_text().splitlines()
    return next(event for event in map(json.loads, lines) if event["kind"] == "attempt")


def _draw(path: Path) -> None:
    import numpy as np

    np.save(path, np.random.default_rng(0).integers(0, 256, (2, 28, 28)).astype(np.uint8))


def test_a_bad_one_is_refused_before_anything_starts(suite: Path, tmp_path: Path) -> None:
    for python, message in (("/no/python", "there is no such file"), ("/bin/ls", "does not answer as a Python does")):
        done = capsbench(tmp_path, "run", suite, "-s", f"environments.numpy@light={python}")
        assert done.returncode == 2
        assert f"numpy@light: {python} (environments in {suite})" in done.stderr
        assert message in done.stderr
        assert not (tmp_path / "runs").exists()
    done = capsbench(tmp_path, "run", suite, "impl=numpy@dark", "--json")
    assert done.returncode == 2
    assert 'did you mean "numpy@light"' in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("environments.torhc=/usr/bin/python3", r'environments: unknown implementation "torhc"; did you mean "torch"'),
        ("environments=torch", r"environments: found .*torch.*, expected a mapping of implementations to Pythons"),
        ("grid.environments=[{}]", "cannot be varied: it changes no result"),
        ("environments=[{torch: /a},{torch: /b}]", "environments"),
    ],
)
def test_environments_of_a_suite_that_are_wrong(suite: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(suite, [override])


def test_where_it_is_decides_no_id(suite: Path, tmp_path: Path, second: str) -> None:
    plain, labelled = trials(suite)
    assert plain.interpreter is None
    assert labelled.interpreter
    elsewhere = light(tmp_path / "elsewhere")
    _, moved = trials(suite, f"environments.numpy@light={elsewhere}")
    assert (moved.id, moved.interpreter and moved.interpreter.path) == (labelled.id, elsewhere)
    (own,) = trials(suite, "impl=numpy", f"environments.numpy={second}")
    assert own.id == plain.id, "the same versions, whatever holds them"
    assert relevant(own.model_dump(mode="json")) == relevant(plain.model_dump(mode="json"))
    assert Trial.model_validate_json(labelled.model_dump_json()) == labelled
    assert "interpreter" not in plain.model_dump(mode="json")


def attempt(trial: Trial, folder: Path) -> list[TrialEvent]:
    job, events = Job(trial, folder), list[TrialEvent]()
    job.folder.mkdir(parents=True)
    run_attempt(job.document(), Seat((local_cores()[0],)), events.append, job.log_path, job.folder, None)
    return events


def test_another_node_is_told_of(suite: Path, tmp_path: Path) -> None:
    _, trial = trials(suite)
    assert trial.interpreter
    gone = trial.model_copy(update={"interpreter": Interpreter(path="/no/python", python="3.11", versions={})})
    (failed,) = attempt(gone, tmp_path / "gone")
    assert isinstance(failed, FailedEvent)
    assert failed.cause.startswith("/no/python cannot be started on ")
    assert failed.hint
    assert "same path on every node" in failed.hint
    planned = trial.interpreter.model_copy(update={"versions": {"numpy": "1.99"}})
    begun, failed = attempt(trial.model_copy(update={"interpreter": planned}), tmp_path / "other")
    assert isinstance(begun, AttemptEvent)
    assert isinstance(failed, FailedEvent)
    now = trial.interpreter.versions["numpy"]
    assert failed.cause.endswith(f"is not what was planned: numpy {now}, not 1.99")


def test_parity_and_the_doctor(tmp_path: Path, second: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"environments: {{numpy@light: {os.path.dirname(os.path.dirname(second))}, numpy@gone: /no}}\n")  # noqa: PTH120
    done = capsbench(
        tmp_path, "parity", "--impl", "numpy@light", "--level", "L2", "--precision", "fp64", "--no-mlflow", "--json",
        "-s", "model.conv_channels=4", "-s", "model.primary_types=2", CAPSBENCH_CONFIG=str(config),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["reports"]
    assert (report["impl"], report["ok"]) == ("numpy@light", True)
    listed = capsbench(tmp_path, "env", "list", "--json", CAPSBENCH_CONFIG=str(config))
    rows = {row["name"]: row for row in json.loads(listed.stdout)["environments"]}
    assert listed.returncode == 1
    assert (rows["numpy@light"]["state"], rows["numpy@light"]["python"]) == ("ok", second)
    assert rows["numpy@gone"]["state"] == "broken"
    assert "there is no such file" in rows["numpy@gone"]["problem"]
    pair = capsbench(tmp_path, "parity", "numpy", "numpy@light", CAPSBENCH_CONFIG=str(config))
    assert pair.returncode == 2
    assert "different Pythons" in pair.stderr
    assert "capsbench parity --impl numpy --impl numpy@light" in pair.stderr
