"""`capsbench retest`: test errors of kept weights, and what choosing on the test set would have claimed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import data
from harness.analysis.cells import of_run
from harness.analysis.choice import advice, choices
from harness.commands.cli import main
from harness.journal.journal import Journal
from harness.journal.retested import NAME, known
from harness.models import probing
from harness.publishing import checks
from harness.publishing.checks import Run
from harness.publishing.contents import contents
from harness.weights.files import load_weights
from tests.commands.test_width import too_wide_table_lines
from tests.helpers import report_helpers, seeds_helpers
from tests.helpers.run_helpers import capsbench, write_suite
from tests.helpers.run_helpers import contents as files

Command = Callable[..., tuple[int, str, str]]
_EPOCHS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that kept the weights of each epoch, and what `run` printed."""
    folder = tmp_path_factory.mktemp("retest")
    train = {"epochs": _EPOCHS, "keep_every": 1, "lr": 0.01}
    write_suite(folder, train=train, data={"train": 128, "validation": 40, "test": 360}, runtime={"compile": False})
    done = capsbench(folder, "run", "small.yaml", "--executor", "inline", "--no-mlflow", TERM="dumb")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "small", done.stdout


@pytest.fixture
def run(made: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "small")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        printed = capsys.readouterr()
        assert not too_wide_table_lines(printed.out + printed.err)
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def _computed(run: Path) -> dict[int, float]:
    """Test errors by the specification alone."""
    journal = Journal(run)
    [trial] = [journal.trial(each) for each in journal.trial_ids()]
    split = data.load(trial.data).test
    found: dict[int, float] = {}
    for epoch in range(1, _EPOCHS + 1):
        weights = load_weights(journal.trial_dir(trial.id) / f"weights-{epoch:04d}.safetensors")
        lengths = probing.specification(trial.model, weights).forward(split.images).lengths
        found[epoch] = 100 * float(np.mean(lengths.argmax(axis=1) != split.labels))
    return found


def test_what_the_kept_weights_say(made: tuple[Path, str], run: Path, command: Command) -> None:
    assert not too_wide_table_lines(made[1][made[1].index("impl ") :])
    [before] = choices(of_run(Journal(run)))
    assert before.is_bound
    assert before.known + before.kept == _EPOCHS
    assert "at most" in command("table", run)[1]
    assert f"capsbench retest {run}" in command("compare", run, run)[1]
    unchanged = files(run, "trials/*/events.jsonl", "trials/*/result.json", "plan.json")

    code, out, _ = command("retest", run, "--json")
    document = json.loads(out)
    assert (code, document["problems"]) == (0, [])
    errors = _computed(run)
    [trial] = document["trials"]
    assert {each["epoch"]: each["test_err_pct"] for each in trial["epochs"]}.items() <= errors.items()
    assert document["new"] == len(trial["epochs"]) == before.kept
    [told] = document["choice"]
    assert (told["known"], told["epochs"], told["kept"]) == (_EPOCHS, _EPOCHS, 0)
    assert told["claimed"]["mean"] == min(errors.values()) <= told["validated"]["mean"]
    assert told["last"]["mean"] == errors[_EPOCHS]
    low, high = told["interval"]["claimed"]
    assert low < min(errors.values()) < high
    assert files(run, "trials/*/events.jsonl", "trials/*/result.json", "plan.json") == unchanged

    shown = f"{min(errors.values()):.2f} ["
    for arguments in (("table", run), ("compare", run, run), ("report", run, "--format", "md"), ("retest", run)):
        _, out, _ = command(*arguments)
        assert shown in out, arguments
        assert "no fair estimate" in out
        assert "at most" not in out
    assert "0 of them now" in command("retest", run)[1]
    rows = json.loads(command("table", run, "--json")[1])["rows"]
    assert {
        row["epoch"]: row["test_err_pct"] for row in rows if row["test_err_pct"] is not None
    }.items() <= errors.items()
    assert {row["trial_claimed_test_err_pct"] for row in rows} == {min(errors.values())}
    assert {row["trial_claimed_epochs"] for row in rows} == {_EPOCHS}
    compared = json.loads(command("compare", run, run, "--json")[1])["choice"]
    assert compared["a"] == compared["b"] == [told]


def test_a_crate_says_what_was_not_checked(run: Path) -> None:
    _write(run, [_entry(run, 1)])
    [id] = Journal(run).trial_ids()
    assert f"trials/{id}/{NAME}" in contents(run, [])
    assert [row.detail.partition(";")[0] for row in checks.retested(Run(run))] == [
        "test errors of 1 epochs in tested.json"
    ]
    _write(run, [])
    assert not list(checks.retested(Run(run)))


def _entry(run: Path, number: int, **changes: Any) -> dict[str, Any]:
    journal = Journal(run)
    [id] = journal.trial_ids()
    event = next(each for each in journal.events(id) if getattr(each, "epoch", None) == number)
    files: Any = getattr(event, "files", {})
    name = f"weights-{number:04d}.safetensors"
    entry = {
        "epoch": number,
        "weights": name,
        "sha256": files[name]["sha256"],
        "images": 360,
        "wrong": 36,
        "impl": "numpy",
    }
    return entry | changes


def _write(run: Path, epochs: Any) -> None:
    journal = Journal(run)
    [id] = journal.trial_ids()
    (journal.trial_dir(id) / NAME).write_text(json.dumps({"epochs": epochs}))


def test_only_what_is_of_these_weights_counts(run: Path) -> None:
    journal = Journal(run)
    [id] = journal.trial_ids()
    events = journal.events(id)
    _write(run, [_entry(run, 1)])
    assert known(journal, id, events)[1].test_err_pct == 10
    wrong: list[Any] = [
        {"sha256": "0" * 64}, {"weights": "weights-0002.safetensors"}, {"epoch": 9}, {"wrong": 361}, {"wrong": -1},
        {"images": 0, "wrong": 0}, {"wrong": "36"}, {"wrong": True}, {"impl": None}, {"more": 1}, {"wrong": 1.5},
    ]  # fmt: skip
    for changes in wrong:
        _write(run, [_entry(run, 1, **changes), _entry(run, 2)])
        assert [*known(journal, id, events)] == [2], changes
    for odd in (None, {}, 7, [None, 7, [], "x"]):
        _write(run, odd)
        assert known(journal, id, events) == {}
    (journal.trial_dir(id) / NAME).write_bytes(b"\xff half")
    assert known(journal, id, events) == {}


def test_damaged_weights_and_other_refusals(run: Path, tmp_path: Path, command: Command) -> None:
    [id] = Journal(run).trial_ids()
    for path in run.glob("trials/*/weights-*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, _, err = command("retest", run)
    assert code == 2
    assert "weights-0001.safetensors" in err
    for path in run.glob("trials/*/weights-*.safetensors"):
        path.unlink()
    assert "train.keep_every: 1" in command("retest", run)[2]
    assert "has no trial" in command("retest", run, "x" + id)[2]
    assert "not a run directory" in command("retest", tmp_path / "none")[2]
    assert 'did you mean "torch"' in command("retest", run, "--impl", "torhc")[2]


def test_over_seeds_and_where_nothing_was_kept(tmp_path: Path) -> None:
    runs = [
        (seeds_helpers.make_trial("torch", seed), report_helpers.events(0.3 + 0.1 * seed, tests_all=seed < 2))
        for seed in (0, 1, 2)
    ]
    run = seeds_helpers.write_run(tmp_path / "run", runs)
    [found] = choices(of_run(Journal(run)))
    assert (found.known, found.epochs, found.kept, found.is_bound) == (2, 7, 0, True)
    assert found.interval(found.last) == (found.last.low, found.last.high)
    assert advice(run, [found]) == [
        "Weights of other epochs were not kept; with train.keep_every: 1 in the suite, a run keeps them."
    ]
