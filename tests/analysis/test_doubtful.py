"""Times on which nothing is claimed: every warning about the cores counts, and the answer says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.analysis.answer import answer
from harness.analysis.doubtful import is_doubtful
from harness.analysis.seeds import over_seeds
from harness.journal.results import summarise
from harness.machine.noise import Observation, doubts
from harness.worker import trial as worker
from tests.helpers.event_helpers import event
from tests.helpers.seeds_helpers import events_of, make_trial, write_run
from tests.machine.test_noise import QUIET

FALLING = [Observation(1.0, **{**QUIET, "mhz": 2500.0 - 100 * second}) for second in range(7)]
KINDS = {"others": 0.5, "stolen": 0.2, "beside": 0.4, "stopped": 0.25, "throttled": 2}


def result(*messages: str, seconds: tuple[float, ...] = (9.0, 300.0)) -> Any:
    trial = make_trial()
    begin, parity, ready, first, _, end = events_of(0.3)
    epochs = [{**first, "epoch": number + 1, "epoch_s": each} for number, each in enumerate(seconds)]
    warnings = [{"kind": "warning", "message": message} for message in messages]
    documents = [begin, parity, ready, *warnings, *epochs, end]
    return summarise(trial, [event({"trial": trial.id, "attempt": 1, "time": 0.0, **each}) for each in documents])


@pytest.mark.parametrize("observed", [*({**QUIET, kind: value} for kind, value in KINDS.items()), None])
def test_whatever_disturbed_the_cores_makes_times_doubtful(observed: dict[str, Any] | None) -> None:
    found = doubts([Observation(1.0, **observed)] * 6 if observed else FALLING, lambda: "x 93% of a core")
    assert found
    assert is_doubtful(result(*found))


def test_low_priority_and_epochs_that_become_slower_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.os, "nice", lambda _: 19)
    monkeypatch.setattr(worker.os, "setpriority", lambda *_: None)
    for asked in (0, 19):
        assert is_doubtful(result(worker._at_low_priority(asked) or ""))  # pyright: ignore[reportPrivateUsage]
    assert is_doubtful(result(seconds=(9.0, *(10.0 + 2 * number for number in range(9)))))


def test_other_warnings_do_not() -> None:
    assert not is_doubtful(result())
    assert not is_doubtful(result("runtime.compile is of no use here", "the test loss is not a finite number"))


def test_nothing_is_claimed_of_doubtful_times(tmp_path: Path) -> None:
    (warned,) = doubts([Observation(1.0, **{**QUIET, "others": 0.5})] * 6)
    trials = [make_trial(impl, seed) for impl in ("torch", "jax") for seed in (0, 1)]
    runs = [(trial, events_of(0.3, (300.0 if trial.impl == "torch" else 100.0) + trial.seed)) for trial in trials]
    quiet = answer(over_seeds(write_run(tmp_path / "quiet", runs)))
    assert quiet.sentences[0].startswith("JAX is 2.99 times as fast as PyTorch [")
    assert quiet.ratios[0].is_shown
    loaded = [
        (trial, [*events[:3], *([{"kind": "warning", "message": warned}] if trial is trials[3] else []), *events[3:]])
        for trial, events in runs
    ]
    found = answer(over_seeds(write_run(tmp_path / "loaded", loaded)))
    assert found.sentences == [
        "The test errors of JAX and PyTorch are equal within 0.1 points: shown (difference 0 points with every seed).",
        "Nothing is claimed of speed: the times are doubtful (see the remarks).",
    ]
    assert not found.ratios[0].is_shown
    assert found.to_json()["speed"][0]["is_doubtful"]


def test_one_loaded_implementation_leaves_the_others_compared(tmp_path: Path) -> None:
    (warned,) = doubts([Observation(1.0, **{**QUIET, "others": 0.5})] * 6)
    seconds = {"torch": 300.0, "tf": 200.0, "jax": 100.0}
    trials = [make_trial(impl, seed) for impl in seconds for seed in (0, 1)]
    runs = [
        (trial, [*events_of(0.3, seconds[trial.impl] + trial.seed), *extra])
        for trial in trials
        for extra in ([{"kind": "warning", "message": warned}] * (trial.impl == "jax"),)
    ]
    first, second, third, *_ = answer(over_seeds(write_run(tmp_path / "run", runs))).sentences
    assert first.startswith("TensorFlow is 1.5")
    assert second.startswith("The test errors of JAX and PyTorch are equal")
    assert third == "Other times are doubtful (see the remarks): of their speed nothing is claimed."
