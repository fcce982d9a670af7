"""Learning-rate schedules, weight decay and the decoder's settings are the same in every framework, or parity fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.parity import Ladder, Report
from harness.spec import DecoderOptim, LrDecay, OptimSpec, Runtime
from tests.helpers.impl_helpers import FRAMEWORKS, THREADS, batch_of, build, small_model
from tests.worker.test_training import events_of, make_trial

SCHEDULES = {
    "staircase": OptimSpec(
        lr=0.002,
        lr_decay=LrDecay(kind="staircase", rate=0.5, steps=2, floor=1e-4),
        weight_decay=0.02,
        decoder=DecoderOptim(lr=0.01, weight_decay=0.0),
    ),
    "epoch": OptimSpec(lr=0.002, lr_decay=LrDecay(kind="epoch", rate=0.9, steps=3)),
    "constant": OptimSpec(lr_decay=LrDecay(kind="constant"), decoder=DecoderOptim(weight_decay=0.02)),
}


def climbed(name: str, built_with: OptimSpec, held_to: OptimSpec, level: str) -> Report:
    model = small_model()
    images, labels = batch_of(model, 4)
    impl = build(name, model, **dict(built_with))
    runtime = Runtime(precision="fp64", threads=THREADS)
    ladder = Ladder(impl, model, held_to, runtime, images, labels, steps=4)
    ladder.climb(level)
    return ladder.report(name)


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["staircase", "constant"])  # "epoch" is a staircase to an implementation
def test_schedules_and_weight_decay_up_the_ladder(name: str, kind: str) -> None:
    report = climbed(name, SCHEDULES[kind], SCHEDULES[kind], "L5")
    assert report.ok, report.worst


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("forgotten", ["lr_decay", "weight_decay", "decoder"])
def test_the_ladder_misses_no_forgotten_setting(kind: str, forgotten: str) -> None:
    wanted = SCHEDULES[kind]
    without = wanted.model_copy(update={forgotten: getattr(OptimSpec(), forgotten)})
    report = climbed("numpy", without, wanted, "L5")
    assert report.failed_level == (None if without == wanted else "L5")


def test_a_learning_rate_that_falls_with_each_epoch(tmp_path: Path) -> None:
    trial = make_trial("parity.gate=false", "train.lr_decay.kind=epoch", "train.lr_decay.rate=0.5")
    assert trial.train.lr_decay.steps == 3  # of 70 images in batches of 32
    rates = [event["lr"] for event in events_of(trial, tmp_path) if event["kind"] == "epoch"]
    assert rates == [1e-3, 5e-4, 2.5e-4]
