"""What is reported for a trial, and what is withheld."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.cost.operations import step_flops
from harness.events import EpochEvent, ResultEvent
from harness.journal import results
from harness.journal.results import Parity, Result
from harness.spec import ModelSpec
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from tests.helpers.event_helpers import events as read

HASHES = {"weights_sha256": "ab", "data_sha256": "cd", "data_provenance": "some images"}
READY = {"kind": "ready", "compile_s": 4.5, "parameters": 10, "device": "cpu", **HASHES}
RESULT = {"kind": "result", "test_err_pct": 1.5, "test_loss": 0.1, "peak_bytes": 2**20}


def trial(gate: bool = True) -> Trial:
    return Trial(
        id="t1", suite="quickstart", impl="jax", seed=2, params={"model.routing": 3}, data=DataConfig(name="digits"),
        model=ModelSpec(image=(28, 28, 1), classes=10), train=TrainConfig(epochs=3), runtime=RuntimeConfig(),
        parity=ParityConfig(gate=gate), cpus=2, gpus=0,
    )  # fmt: skip


def attempt(number: int = 1, resumed: int = 0) -> dict:
    return {"kind": "attempt", "attempt": number, "resumed_epoch": resumed, "time": 100.0 * number}


def parity(ok: bool = True, error: float | None = 1e-6, worst: str = "conv1.w", number: int = 1) -> dict:
    return {"kind": "parity", "ok": ok, "max_rel_err": error, "worst": worst, "tensors": {worst: {}}, "attempt": number}


def epoch(number: int, epoch_s: float, attempt: int = 1, **more) -> dict:
    record = {"img_per_s": 100 / epoch_s, "eval_s": 0.5, "train_loss": 0.5 / number, "val_err_pct": 10 / number}
    return {"kind": "epoch", "epoch": number, "attempt": attempt, "epoch_s": epoch_s, **record, **more}


def summarise(trial: Trial, documents: list[dict]) -> Result:
    return results.summarise(trial, read(documents))


def parity_of(documents: list[dict]) -> Parity | None:
    return results.parity_of(read(documents))


def kept_epochs(documents: list[dict]) -> list[EpochEvent]:
    return results.kept_epochs(read(documents))


def named_files(documents: list[dict]) -> dict[str, EpochEvent | ResultEvent]:
    return results.named_files(read(documents))


def test_files_of_given_up_epochs_do_not_count() -> None:
    first, second = (epoch(number, 1.0, checkpoint=f"epoch-{number}", weights=f"weights-{number}") for number in (1, 2))
    result = {**RESULT, "weights": "weights", "predictions": "predictions"}
    events = [attempt(), first, second, result]
    assert list(named_files(events)) == ["epoch-1", "weights-1", "epoch-2", "weights-2", "weights", "predictions"]
    assert named_files(events)["epoch-2"].weights == "weights-2"
    assert named_files(events)["predictions"].kind == "result"
    assert list(named_files([*events, attempt(2, resumed=1)])) == ["epoch-1", "weights-1"]


def test_a_finished_trial_reports_the_median_of_its_steady_epochs() -> None:
    events = [attempt(), parity(), READY, epoch(1, 9.0), epoch(2, 2.0), epoch(3, 4.0), epoch(4, 2.5), RESULT]
    result = summarise(trial(), events)
    assert (result.status, result.epoch_s, result.img_per_s, result.compile_s) == ("finished", 2.5, 40.0, 4.5)
    assert (result.warmup_epochs, result.steady_epochs) == ([1], 3)
    assert (result.test_err_pct, result.test_loss, result.peak_bytes, result.val_err_pct) == (1.5, 0.1, 2**20, 2.5)
    assert (result.parity_ok, result.parity_max_rel_err, result.parity_worst) == (True, 1e-6, "conv1.w")
    assert (result.id, result.impl, result.seed, result.params) == ("t1", "jax", 2, {"model.routing": 3})
    assert (result.parameters, result.device, result.weights_sha256, result.data_sha256) == (10, "cpu", "ab", "cd")
    assert result.to_json()["data_provenance"] == "some images"
    assert (result.attempts, result.log, result.timing_withheld) == (1, "trials/t1/attempt-1.log", None)
    assert result.warnings == [
        "3 values of an epoch's time spread by 80%, too few for an interval (at least 6): "
        "train more epochs (-s train.epochs=8) on a machine with no other load"
    ]
    assert result.cause is None
    assert [record["warmup"] for record in result.epochs] == [True, False, False, False]


def test_intervals_operations_and_energy_of_the_steady_epochs() -> None:
    times = [9.0, 2.0, 2.1, 2.05, 2.04, 2.06, 2.03]
    epochs = [epoch(number, epoch_s, joules=100 * epoch_s) for number, epoch_s in enumerate(times, 1)]
    result = summarise(trial(), [attempt(), parity(), READY, *epochs, RESULT])
    assert result.warnings == []
    assert result.epoch_s == pytest.approx(2.045)
    assert result.epoch_s_ci == (2.0, 2.1)
    assert result.img_per_s is not None
    assert result.flops_per_s == pytest.approx(result.img_per_s * step_flops(trial().model, 1))
    assert result.joules_per_epoch == pytest.approx(204.5)
    assert result.to_json()["epoch_s_ci"] == [2.0, 2.1]
    unmeasured = summarise(trial(), [attempt(), parity(), READY, epoch(1, 9.0), epoch(2, 2.0), RESULT]).to_json()
    assert "joules_per_epoch" not in unmeasured
    assert unmeasured["epoch_s_ci"] is None
    withheld = summarise(trial(), [attempt(), parity(ok=False), READY, *epochs, RESULT])
    assert (withheld.epoch_s_ci, withheld.flops_per_s, withheld.joules_per_epoch) == (None, None, None)
    assert not any("joules" in record for record in withheld.epochs)


def test_epochs_that_become_slower_and_slower() -> None:
    epochs = [epoch(number, 2 + number / 5) for number in range(1, 9)]
    warnings = summarise(trial(), [attempt(), parity(), READY, *epochs, RESULT]).warnings
    assert warnings[0] == "its epochs became 40% slower from the first third to the last: heat, or other load"
    assert "the 95% interval of an epoch's time is ±20% wide" in warnings[1]


def test_every_attempt_warms_up_anew() -> None:
    events = [attempt(), parity(), READY, epoch(1, 9.0), epoch(2, 2.0), attempt(2, resumed=2), parity(number=2)]
    events += [epoch(3, 8.0, 2), epoch(4, 4.0, 2), RESULT]
    result = summarise(trial(), events)
    assert (result.warmup_epochs, result.epoch_s, result.attempts) == ([1, 3], 3.0, 2)
    assert result.log == "trials/t1/attempt-2.log"


def test_warm_up_epochs_are_timed_only_with_a_warning() -> None:
    result = summarise(trial(), [attempt(), parity(), READY, epoch(1, 9.0), RESULT])
    assert result.epoch_s == 9.0
    assert result.steady_epochs == 1
    assert ["warm-up epochs only" in text for text in result.warnings] == [True]


@pytest.mark.parametrize(
    ("gate", "checks", "why"),
    [
        (True, [parity(ok=False, error=0.3, worst="digit.w")], "parity failed at digit.w"),
        (True, [], "parity was not checked"),
        (False, [], "the parity gate is off (parity.gate: false)"),
    ],
)
def test_no_timing_without_parity(gate: bool, checks: list, why: str) -> None:
    result = summarise(trial(gate), [attempt(), *checks, READY, epoch(1, 9.0), epoch(2, 2.0), RESULT])
    assert (result.epoch_s, result.img_per_s, result.compile_s, result.timing_withheld) == (None, None, None, why)
    assert result.status == "finished"
    assert result.test_err_pct == 1.5
    assert [record["train_loss"] for record in result.epochs] == [0.5, 0.25]
    assert not any({"epoch_s", "img_per_s", "eval_s"} & set(record) for record in result.epochs)
    assert not any("warm-up" in text for text in result.warnings)


def test_one_failed_gate_among_the_kept_attempts_is_a_failure() -> None:
    bad, good = parity(ok=False, error=0.3, worst="digit.w"), parity(number=2, error=0.4)
    both = [attempt(), bad, READY, epoch(1, 3.0), attempt(2, resumed=1), good, epoch(2, 3.0, 2), RESULT]
    assert summarise(trial(), both).timing_withheld == "parity failed at digit.w"
    afresh = [attempt(), bad, READY, epoch(1, 3.0), attempt(2, resumed=0), good, epoch(1, 3.0, 2), RESULT]
    assert summarise(trial(), afresh).parity_ok is True


def test_a_parity_error_that_is_not_a_number_is_the_worst() -> None:
    checks = [parity(ok=False, error=0.9, worst="conv1.w"), parity(ok=False, error=None, worst="digit.w", number=2)]
    found = parity_of([attempt(), checks[0], epoch(1, 2.0), attempt(2, resumed=1), checks[1]])
    assert found is not None
    assert (found.ok, found.max_rel_err, found.worst) == (False, None, "digit.w")


def test_a_repeated_epoch_supersedes_and_a_fresh_start_discards() -> None:
    resumed = [attempt(), epoch(1, 1.0), epoch(2, 1.0), epoch(3, 1.0), attempt(2, resumed=2), epoch(3, 7.0, 2)]
    assert [(e.epoch, e.epoch_s) for e in kept_epochs(resumed)] == [(1, 1.0), (2, 1.0), (3, 7.0)]
    fresh = [attempt(), epoch(1, 1.0), epoch(2, 1.0), attempt(2, resumed=0), epoch(1, 7.0, 2)]
    assert [(e.epoch, e.epoch_s) for e in kept_epochs(fresh)] == [(1, 7.0)]


FAILED = {"kind": "failed", "cause": "out of memory", "error": "SIGKILL", "hint": "train.batch=64"}


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "pending"),
        ([attempt()], "interrupted"),
        ([attempt(), {"kind": "interrupted"}], "interrupted"),
        ([attempt(), FAILED], "failed"),
        ([attempt(), FAILED, attempt(2)], "interrupted"),
        ([attempt(), FAILED, attempt(2), RESULT], "finished"),
    ],
)
def test_the_last_attempt_decides_the_status(events: list, status: str) -> None:
    result = summarise(trial(), events)
    assert result.status == status
    assert bool(result.cause) == (status in ("failed", "interrupted"))


def test_a_failure_keeps_its_cause_and_its_epochs() -> None:
    result = summarise(trial(), [attempt(), parity(), READY, epoch(1, 9.0), epoch(2, 2.0), FAILED])
    assert (result.cause, result.error, result.hint) == ("out of memory", "SIGKILL", "train.batch=64")
    assert result.test_err_pct is None
    assert len(result.epochs) == 2


def test_divergence_is_said_and_stays_strict_json() -> None:
    ended = {**RESULT, "test_loss": float("nan"), "test_err_pct": 90.0}
    events = [attempt(), parity(), READY, epoch(1, 2.0), epoch(2, 2.0, train_loss=float("inf")), ended]
    result = summarise(trial(), events)
    assert result.status == "finished"
    assert result.warnings == [
        "the training loss was not a finite number in epoch 2: the training diverged",
        "the test loss is not a finite number",
    ]
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["test_loss"] is None
    assert document["epochs"][1]["train_loss"] is None
    assert document["test_err_pct"] == 90.0


def test_warnings_are_said_once_in_order() -> None:
    said = [{"kind": "warning", "message": text} for text in ("b", "a", "b")]
    assert summarise(trial(), [attempt(), *said]).warnings == ["b", "a"]


def test_json_has_every_field_of_the_command_line_contract() -> None:
    document = summarise(trial(), [attempt(), parity(), READY, epoch(1, 2.0), RESULT]).to_json()
    promised = "id impl params seed status test_err_pct epoch_s compile_s img_per_s peak_bytes parity_ok"
    assert set(f"{promised} parity_max_rel_err epochs log".split()) <= set(document)
    assert json.loads(json.dumps(document)) == document


def test_results_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        summarise(trial(), []).status = "finished"  # type: ignore[misc]
