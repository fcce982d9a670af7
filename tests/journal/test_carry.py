"""A trial with more epochs goes on from one with fewer: everything as if it had never stopped."""

from __future__ import annotations

import json
import re
import time
import typing
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.events import AttemptEvent, ContinuedEvent, TrialEvent
from harness.journal.carry import carry_over
from harness.journal.journal import Journal
from harness.journal.kept import available, choose, read
from harness.journal.results import Result, kept_epochs, summarise
from harness.journal.resume import resume_point
from harness.spec.optim import LrDecay
from harness.spec.trial import Trial
from harness.suite import longer
from harness.suite.suite import load_suite
from harness.views.mlflow.trials import metric_rows, trial_tags
from harness.weights.files import load_weights, read_facts
from harness.worker.training import run_trial
from tests.helpers.run_helpers import write_suite

INCIDENTAL = {"time", "attempt", "epoch_s", "eval_s", "img_per_s", "joules", "test_s", "peak_bytes", "audit", "files"}


def fingerprint(_impl: str) -> dict[str, Any]:
    return {"cpu": "of the test"}


def trial_of(folder: Path, epochs: int, *overrides: str, **changes: Any) -> Trial:
    (trial,) = load_suite(
        write_suite(folder, **{"parity": {"gate": False}, **changes}), [f"train.epochs={epochs}", *overrides]
    ).trials(0, fingerprint)
    return trial


def open_journal(run_dir: Path, trials: Sequence[Trial]) -> Journal:
    journal = Journal(run_dir).open()
    documents = [trial.model_dump(mode="json") for trial in trials]
    journal.write_plan({"suite": "small", "source": "small.yaml", "trials": documents}, "")
    return journal


class BrokenOff(Exception):
    """The driver's end."""


def train(journal: Journal, trial: Trial, until: int | None = None) -> Result:
    """An attempt, as driver and worker make it, but in this process; broken off before epoch `until` + 1 if that is given."""
    point, attempt = resume_point(journal, trial), journal.next_attempt(trial.id)

    def emit(event: TrialEvent) -> None:
        if until and event.kind == "epoch" and event.epoch > until:  # type: ignore[attr-defined]
            raise BrokenOff
        journal.append(trial.id, event.stamped(time.time()).of(trial.id, attempt))

    folder = journal.trial_dir(trial.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"attempt-{attempt}.log").touch()
    facts: dict[str, Any] = {
        "host": "h",
        "pid": 1,
        "python": "3",
        "cores": [0],
        "cuda_visible_devices": None,
        "versions": {},
    }
    emit(AttemptEvent(resumed_epoch=point.epoch, **facts))
    with suppress(BrokenOff):
        run_trial(trial, emit, folder, point.checkpoint, point.epoch, point.recorded)
    result = summarise(trial, journal.events(trial.id))
    journal.write_result(trial.id, result.to_json())
    return result


def found(journal: Journal, trial: Trial) -> longer.Shorter | None:
    shorter, reasons = longer.find([trial], journal, fingerprint)
    assert not reasons
    return shorter.get(trial.id)


def go_on(journal: Journal, trial: Trial) -> ContinuedEvent:
    shorter = found(journal, trial)
    assert shorter
    return carry_over(journal, trial, shorter.trial, shorter.journal)


def same(journal: Journal, trial: Trial) -> dict[str, Any]:
    """All that must not depend on whether the trial was trained at once: numbers, and every file but checkpoints' audits."""
    folder = journal.trial_dir(trial.id)
    events = [event.to_json() for event in journal.events(trial.id) if event.kind in ("epoch", "result")]
    numbers = [{key: value for key, value in event.items() if key not in INCIDENTAL} for event in events]
    names = [path.name for path in folder.glob("*.safetensors")]
    files = {name: (folder / name).read_bytes() for name in names if not name.startswith("epoch-")}
    checkpoints = {
        name: (
            {n: a.tobytes() for n, a in load_weights(folder / name).items()},
            read_facts(folder / name) | {"audit": 0},
        )
        for name in names
        if name.startswith("epoch-")
    }
    return {"events": numbers, "files": files, "checkpoints": checkpoints}


LONG = {"data": {"train": 96}, "train": {"batch": 2, "keep_every": 2, "lr_decay": {"steps": 50}}}


@pytest.mark.parametrize("impl", ["numpy", "torch"])
def test_all_is_as_if_it_had_never_stopped(impl: str, tmp_path: Path) -> None:
    if impl == "torch":
        pytest.importorskip("torch")
    short, long = (trial_of(tmp_path, epochs, f"impl={impl}", **LONG) for epochs in (2, 4))
    with open_journal(tmp_path / "straight", [long]) as straight:
        train(straight, long)
    with open_journal(tmp_path / "continued", [short, long]) as journal:
        before = train(journal, short)
        files = {path.name: path.read_bytes() for path in journal.trial_dir(short.id).iterdir()}
        told = go_on(journal, long)
        assert (told.from_trial, told.from_epoch, told.from_epochs) == (short.id, 2, 2)
        after = train(journal, long)
        assert same(journal, long) == same(straight, long)
        assert {path.name: path.read_bytes() for path in journal.trial_dir(short.id).iterdir()} == files

    assert after.continued_from == {"trial": short.id, "epoch": 2}
    assert before.continued_from is None
    times = [
        [(event.epoch, event.epoch_s, event.eval_s, event.time) for event in kept_epochs(journal.events(each.id))]
        for each in (short, long)
    ]
    assert times[0] == times[1][:2]
    assert [event.resumed_epoch for event in journal.events(long.id) if isinstance(event, AttemptEvent)] == [0, 2]
    assert after.warmup_epochs == [1, 3]  # each process has its first epoch


def test_what_is_kept_can_be_read_as_the_longer_trial_s(tmp_path: Path) -> None:
    short, long = (trial_of(tmp_path, epochs, train={"keep_every": 1}) for epochs in (2, 3))
    with open_journal(tmp_path / "run", [short, long]) as journal:
        train(journal, short)
        (journal.trial_dir(short.id) / "weights-0001.safetensors").write_bytes(b"damaged")
        go_on(journal, long)
        assert summarise(long, journal.events(long.id)).status == "interrupted"
        assert "1" not in available(journal, long)
        path, event = choose(journal, long, "2")
        assert path.name == "weights-0002.safetensors"
        assert read(path, long, event)
        assert read_facts(path)["trial"] == long.id
        train(journal, long)
        assert list(available(journal, long)) == ["2", "3", "last", "best"]


def test_a_stopping_rule_that_was_met_stays_met(tmp_path: Path) -> None:
    rules = {"train": {"stop": {"accuracy_pct": 1.0}}}  # as good as at once
    short, long = (trial_of(tmp_path, epochs, **rules) for epochs in (5, 9))
    with open_journal(tmp_path / "straight", [long]) as straight:
        expected = train(straight, long)
    with open_journal(tmp_path / "run", [short, long]) as journal:
        assert train(journal, short).epochs_trained < 5
        told = go_on(journal, long)
        result = train(journal, long)
        assert told.from_epoch == result.epochs_trained == expected.epochs_trained
        assert (result.test_loss, result.best_epoch) == (expected.test_loss, expected.best_epoch)
        assert same(journal, long) == same(straight, long)


def test_a_chain_and_an_unfinished_trial(tmp_path: Path) -> None:
    two, four, six, eight = (trial_of(tmp_path, epochs) for epochs in (2, 4, 6, 8))
    with open_journal(tmp_path / "straight", [eight]) as straight:
        train(straight, eight)
    with open_journal(tmp_path / "run", [two, four, six, eight]) as journal:
        train(journal, two)
        go_on(journal, four)
        train(journal, four)
        assert found(journal, two) is None  # nothing with fewer epochs than the least
        assert str(found(journal, six)) == f"epoch 4 of {four.id}"
        go_on(journal, six)
        train(journal, six, until=5)  # and was ended there
        shorter = found(journal, eight)
        ranked: list[tuple[str, int]] = []
        while shorter:
            ranked.append((shorter.trial.id, shorter.epoch))
            shorter = shorter.next_best
        assert ranked == [(six.id, 5), (four.id, 4), (two.id, 2)]
        go_on(journal, eight)
        result = train(journal, eight)
        assert same(journal, eight) == same(straight, eight)
        assert result.continued_from == {"trial": six.id, "epoch": 5}
        assert len({event.attempt for event in journal.events(eight.id) if isinstance(event, AttemptEvent)}) == 4


def test_from_another_run(tmp_path: Path) -> None:
    short, long = trial_of(tmp_path, 2), trial_of(tmp_path, 3)
    with open_journal(tmp_path / "first", [short]) as first, open_journal(tmp_path / "second", [long]) as second:
        train(first, short)
        assert found(second, long) is None
        shorter, _ = longer.find([long], second, fingerprint, first)
        assert str(shorter[long.id]) == f"epoch 2 of {short.id} in {tmp_path}/first"
        carry_over(second, long, short, first)
        assert train(second, long).continued_from == {"trial": short.id, "epoch": 2, "run": f"{tmp_path}/first"}
        with open_journal(tmp_path / "straight", [long]) as straight:
            train(straight, long)
        assert same(second, long) == same(straight, long)


def test_only_the_epochs_may_differ(tmp_path: Path) -> None:
    short = trial_of(tmp_path, 2)
    others = ["train.lr=0.002", "seed=1", "data.train=48", "train.batch=8", "parity.audit=false", "train.keep_every=1"]
    with open_journal(tmp_path / "run", [short]) as journal:
        train(journal, short)
        assert found(journal, trial_of(tmp_path, 3))
        assert found(journal, trial_of(tmp_path, 3, "data.dir=/elsewhere"))  # where files are does not matter
        assert not any(found(journal, trial_of(tmp_path, 3, other)) for other in others)
        assert found(journal, trial_of(tmp_path, 1)) is None


def test_why_a_trial_is_trained_anew(tmp_path: Path) -> None:
    short, long = trial_of(tmp_path, 2), trial_of(tmp_path, 3)
    with open_journal(tmp_path / "run", [short]) as journal:
        train(journal, short)
        [checkpoint] = journal.trial_dir(short.id).glob("epoch-*.safetensors")
        none, reasons = longer.find([long], journal, lambda _: {"cpu": "another"})
        assert not none
        assert reasons == {long.id: (longer.Shorter(short, 2), "other code or another environment trained that")}

        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
        with pytest.raises(UserError, match=rf"{checkpoint} is damaged: it has [0-9,]+ bytes, [0-9,]+ were written$"):
            go_on(journal, long)
        assert not journal.events(long.id)

        checkpoint.unlink()
        none, reasons = longer.find([long], journal, fingerprint)
        assert not none
        assert reasons == {long.id: (longer.Shorter(short, 2), f"its checkpoint {checkpoint.name} is gone")}


def test_an_attempt_that_failed_before_is_not_lost(tmp_path: Path) -> None:
    short, long = trial_of(tmp_path, 1), trial_of(tmp_path, 2)
    with open_journal(tmp_path / "run", [short, long]) as journal:
        train(journal, short)
        assert train(journal, long, until=0.5).epochs_trained == 0  # type: ignore[arg-type]
        go_on(journal, long)
        train(journal, long)
        attempts = [event for event in journal.events(long.id) if isinstance(event, AttemptEvent)]
        assert [(event.attempt, event.resumed_epoch) for event in attempts] == [(1, 0), (2, 0), (3, 1)]
        # trained from the start after all, such as after damage: nothing of the other trial is left in it
        for path in journal.trial_dir(long.id).glob("epoch-*.safetensors"):
            path.unlink()
        assert train(journal, long).continued_from is None


def test_mlflow_gets_the_epochs_of_both_and_where_they_came_from(tmp_path: Path) -> None:
    short, long = trial_of(tmp_path, 2), trial_of(tmp_path, 3)
    with open_journal(tmp_path / "run", [short, long]) as journal:
        train(journal, short)
        go_on(journal, long)
        result = train(journal, long)
        events = journal.events(long.id)
    rows = [row for row in metric_rows(long, events) if row.key == "epoch/train_loss"]
    assert [row.step for row in rows] == [1, 2, 3]
    assert trial_tags(long, result, events, {})["continued_from"] == f"trial {short.id}, epoch 2"


def test_no_learning_rate_depends_on_the_number_of_epochs(tmp_path: Path) -> None:
    """What going on rests on. A schedule that does must be refused in `harness.suite.longer`."""
    for kind in typing.get_args(LrDecay.model_fields["kind"].annotation):
        rate = {} if kind == "constant" else {"rate": 0.5}
        decay = {"kind": kind, **rate, **({"steps": 3} if kind in ("exponential", "staircase") else {})}
        three, nine = (trial_of(tmp_path, epochs, train={"lr_decay": decay}) for epochs in (3, 9))
        assert [three.train.optim.lr_at(step) for step in range(12)] == [
            nine.train.optim.lr_at(step) for step in range(12)
        ]


def test_the_journal_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short at any point, there is nothing or everything of the other trial."""
    short, long = trial_of(tmp_path, 2), trial_of(tmp_path, 3)
    with open_journal(tmp_path / "run", [short, long]) as journal:
        train(journal, short)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("harness.journal.journal.write_atomic", full)
            with pytest.raises(OSError, match="No space left"):
                go_on(journal, long)
        assert journal.events(long.id) == []
        assert train(journal, long).continued_from is None
        lines = (journal.trial_dir(long.id) / "events.jsonl").read_text().splitlines()
        assert all(re.fullmatch(r"\{.*\}", line) and json.loads(line) for line in lines)
