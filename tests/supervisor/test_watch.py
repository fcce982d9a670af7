"""Workers that hang, for real, and workers that only look like it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.cost.pace import Pace, pace
from harness.events import EpochEvent, Event, ReadyEvent
from harness.supervisor import watch
from harness.supervisor.watch import Watch
from tests.helpers.executor_helpers import tiny_job, tiny_trial
from tests.supervisor.test_trial import kinds, run


@pytest.mark.parametrize(
    ("impl", "limit", "how"),
    [
        ("EndlessNet", "_STILL_S", "worker hung: it has stood still, without any processor time, for "),
        ("HoldingNet", "_STILL_S", "worker hung: it has stood still, without any processor time, for "),
        ("SpinningNet", "_EPOCH_S", "worker hung: no epoch has ended for "),
    ],
)
def test_a_worker_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impl: str, limit: str, how: str
) -> None:
    """Whether it sleeps for ever, does so with Python's lock, or computes for ever; its log says where."""
    monkeypatch.setattr(watch, limit, 2.0)
    monkeypatch.setattr(watch, "_TIMES", 0.0)
    job = tiny_job(tmp_path, impl)
    events = run(job)
    assert kinds(events) == ["attempt", "ready", "epoch", "failed"]
    assert (events[-1]["error"], events[-1]["is_loss"]) == ("Hang", True)
    assert events[-1]["cause"].startswith(how)
    assert "the limit is 2 s (runtime.hang_s: auto)" in events[-1]["cause"]
    assert events[-1]["cause"].endswith("; where it stood is in attempt-1.log")
    assert "executor_helpers.py" in job.log_path.read_text()


def test_a_stopped_worker_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STOPPED_S", 2.0)

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "attempt":
            os.kill(event["pid"], signal.SIGSTOP)

    events = run(tiny_job(tmp_path), emit=stop)
    assert kinds(events) == ["attempt", "failed"]
    assert events[-1]["cause"].startswith("worker hung: it has been stopped (SIGSTOP, or a debugger) for ")


def test_a_worker_that_computes_for_long_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_STILL_S", 0.4)
    monkeypatch.setattr(watch, "_LOOK_S", 0.1)
    assert kinds(run(tiny_job(tmp_path, "LongNet")))[-1] == "result"


def test_a_worker_that_others_end_is_a_loss(tmp_path: Path) -> None:
    pids: list[int] = []

    def end(event: dict[str, Any]) -> None:
        pids.extend([event["pid"]] if event["kind"] == "attempt" else [])
        if event["kind"] == "epoch":
            os.kill(pids[0], signal.SIGTERM)

    last = run(tiny_job(tmp_path, "EndlessNet"), emit=end)[-1]
    assert (last["kind"], last["error"], last["is_loss"]) == ("failed", "SIGTERM", True)
    assert last["cause"] == "worker was ended by a SIGTERM that capsbench did not send"


# Its limits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def epoch(seconds: float) -> Event:
    return EpochEvent.model_construct(epoch_s=seconds, eval_s=0.0)


def ready() -> Event:
    return ReadyEvent.model_construct()


def test_the_time_in_which_nobody_looked_does_not_count() -> None:
    """The supervisor was stopped with Ctrl-Z, or the machine slept: the worker did nothing wrong."""
    clock = Clock()
    follow = Watch(None, 100.0, Pace(epoch_s=1.0), clock=clock)
    follow.heard(ready())
    follow.heard(epoch(1.0))
    clock.now += 10_000
    assert follow.look() is None
    for _ in range(97):
        clock.now += 1
        assert follow.look() is None
    clock.now += 1
    assert str(follow.look()).startswith("no epoch has ended for 100 s")


def test_the_limit_follows_from_the_epochs() -> None:
    follow = Watch(None, None, Pace())
    assert follow.limit_s() == watch._UNKNOWN_S
    follow.heard(ready())
    follow.heard(epoch(1.0))
    assert follow.limit_s() == watch._EPOCH_S
    follow.heard(epoch(500.0))
    assert follow.limit_s() == 5000
    follow.heard(epoch(1.0))
    assert follow.limit_s() == 5000


@pytest.mark.parametrize(
    ("given", "expected", "limit_s"),
    [
        (None, Pace(first_s=10.0), 1800.0),
        (None, Pace(first_s=1000.0), 10_000.0),
        (60.0, Pace(first_s=10.0), 1800.0),  # what a suite sets does not cut a compilation short
        (5000.0, Pace(first_s=10.0), 5000.0),
        (None, Pace(first_s=10.0, epoch_s=1000.0), 10_100.0),  # resumed
        (None, Pace(epoch_s=1000.0, test_epochs=4.0), 40_000.0),
    ],
)
def test_before_the_first_epoch_the_estimate_counts(given: float | None, expected: Pace, limit_s: float) -> None:
    assert Watch(None, given, expected).limit_s() == limit_s


def test_a_large_test_set_is_waited_for() -> None:
    trial = tiny_trial(epochs=4, validation=12)
    small = trial.model_copy(update={"data": trial.data.model_copy(update={"test": 300})})
    assert pace(small, 100.0).test_epochs == pytest.approx(10.0)
    assert pace(trial, 1000.0, 7.0).epoch_s == 7.0
    assert pace(trial, None).first_s is None
