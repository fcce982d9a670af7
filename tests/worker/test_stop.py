"""Stopping rules: when training ends, what is reported about it, and that a resumed trial ends where it would have."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import data
from harness.data import sets
from harness.errors import UserError
from harness.journal.results import Result, summarise
from harness.spec.trial import Stop
from harness.suite.suite import load_suite
from harness.views.mlflow.trials import trial_tags
from harness.views.tables import comparison
from harness.weights.progress import Progress
from tests.helpers.event_helpers import events as read
from tests.helpers.run_helpers import write_suite
from tests.worker.test_training import COLLAPSING, events_of, make_trial


def progress_of(*errors: float) -> Progress:
    progress = Progress()
    for epoch, error in enumerate(errors, start=1):
        progress = progress.after(epoch, {}, error, 1.0)
    return progress


@pytest.mark.parametrize(
    ("stop", "errors", "test_err_pct", "ends"),
    [
        (Stop(), (5.0, 5.0, 5.0, 5.0), 0.0, False),
        (Stop(patience=2), (5.0, 4.0, 4.0), None, False),
        (Stop(patience=2), (5.0, 4.0, 4.0, 4.0), None, True),
        (Stop(patience=2), (5.0, 4.0, 4.5, 3.0), None, False),
        (Stop(accuracy_pct=99.23), (0.78,), 0.0, False),
        (Stop(accuracy_pct=99.23), (0.77,), None, True),  # 100 - 99.23 is not 0.77 in binary
        (Stop(accuracy_pct=99.23, on="test"), (0.1,), 0.78, False),
        (Stop(accuracy_pct=99.23, on="test"), (9.0,), 0.77, True),
        (Stop(accuracy_pct=99.23, on="test", patience=1), (0.1, 0.2), 5.0, True),
    ],
)
def test_when_a_rule_holds(stop: Stop, errors: tuple[float, ...], test_err_pct: float | None, ends: bool) -> None:
    assert progress_of(*errors).ends(stop, test_err_pct) is ends


def summary_of(trial: Any, events: list[dict[str, Any]]) -> Result:
    return summarise(trial, read([{"kind": "attempt"}, *events]))


def test_patience_ends_training_and_says_so(tmp_path: Path) -> None:
    trial = make_trial(*COLLAPSING, "train.stop.patience=1", validation=40)
    events = events_of(trial, tmp_path)
    result = summary_of(trial, events)
    assert (result.best_epoch, result.epochs_trained) == (2, 3)  # of four
    assert len([event for event in events if event["kind"] == "epoch"]) == result.epochs_trained
    assert (result.stopped_on, result.status) == ("validation", "finished")
    assert not any("test images" in warning for warning in result.warnings)
    assert not any("test_err_pct" in event for event in events[:-1])


def test_the_paper_s_rule_on_the_test_images_is_labelled_wherever_its_error_is(tmp_path: Path) -> None:
    trial = make_trial("parity.gate=false", "train.epochs=9", "train.stop.accuracy_pct=5", "train.stop.on=test")
    events = events_of(trial, tmp_path)
    last, end = events[-2], events[-1]
    assert last["test_err_pct"] == end["test_err_pct"] <= 95
    assert last["epoch"] < 9
    result = summary_of(trial, events)
    assert result.to_json()["stopped_on"] == "test"
    assert any("stopped by its error on the test images" in warning for warning in result.warnings)
    assert trial_tags(trial, result, read(events), {})["stopped_on"] == "test"
    assert f"{end['test_err_pct']:.2f} (stopped on test)" in list(comparison([result]).columns[1].cells)


def test_the_paper_s_rule_looks_at_the_test_images_of_the_set_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on expanded MNIST, to be tested on affNIST; here the other set's labels are all wrong."""
    digits = data.source("digits")
    training, test = digits.read(tmp_path)
    wrong = SimpleNamespace(
        info=replace(digits.info, name="wrong"),
        ensure=digits.ensure,
        read=lambda _: (training, replace(test, labels=(test.labels + 1) % 10)),
    )
    monkeypatch.setitem(sys.modules, "wrong_digits", SimpleNamespace(SOURCE=wrong))
    monkeypatch.setitem(sets._BUILT_IN, "wrong", "wrong_digits")
    trial = make_trial(
        "parity.gate=false", "data.test_from=wrong", "train.epochs=4", "train.stop.accuracy_pct=9", "train.stop.on=test"
    )
    own = data.load(trial.data).own_test
    assert own is not None
    assert own.labels.tolist() == ((data.load(trial.data).test.labels - 1) % 10).tolist()
    *_, last, end = events = events_of(trial, tmp_path)
    assert last["own_test_err_pct"] <= 91
    assert last["own_test_err_pct"] != end["test_err_pct"]
    assert "test_err_pct" not in last
    result = summary_of(trial, events)
    assert result.epochs_trained == last["epoch"] < 4
    assert any("on the test images of digits (train.stop.on: test)" in warning for warning in result.warnings)


def last_epoch(events: list[dict[str, Any]]) -> int:
    return [event["epoch"] for event in events if event["kind"] == "epoch"][-1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_trial_stops_where_it_would_have(tmp_path: Path, epoch: int) -> None:
    trial = make_trial(*COLLAPSING, "train.stop.patience=1", validation=40)
    straight = events_of(trial, tmp_path / "straight")
    ended = last_epoch(straight)
    checkpoint = tmp_path / "straight" / f"epoch-{epoch:04d}.safetensors"
    assert last_epoch(events_of(trial, tmp_path / "resumed", checkpoint, epoch)) == ended
    # killed between the last epoch and the result: no epoch more
    over = events_of(trial, tmp_path / "over", tmp_path / "straight" / f"epoch-{ended:04d}.safetensors", ended)
    assert [event["kind"] for event in over if event["kind"] != "warning"] == ["ready", "result"]
    for name in ("weights.safetensors", "best.safetensors"):
        assert (tmp_path / "over" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        ({"stop": {"patience": 3}}, "train.stop.patience: there are no validation images to look at"),
        ({"stop": {"accuracy_pct": 99}}, "train.stop.accuracy_pct: there are no validation images to look at"),
        ({"stop": {"on": "test"}}, "train.stop.on: found test, but no train.stop.accuracy_pct"),
        ({"stop": {"on": "tset"}}, 'train.stop.on: found "tset" (text); did you mean "test"?'),
        ({"stop": {"pateince": 2}}, 'train.stop.pateince: unknown key; did you mean "patience"?'),
    ],
)
def test_impossible_rules_are_refused(tmp_path: Path, train: dict[str, Any], complaint: str) -> None:
    suite = write_suite(tmp_path, data={"validation": 0}, train=train)
    with pytest.raises(UserError) as refusal:
        load_suite(suite)
    assert complaint in str(refusal.value)
