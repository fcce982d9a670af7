"""Staged images that are larger than the network's: each step sees a part of each, where the plan's shift says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.parity import Ladder
from harness.spec import EpochPlan, OptimSpec, Runtime, TrainTotals, Weights
from harness.spec.plans import plan_epoch
from harness.weights import initial_weights
from impls.numpy import NumpyImpl
from impls.numpy import impl as numpy_impl
from tests.helpers.impl_helpers import THREADS, batch_of, build, loaded, small_model

MODEL = small_model((13, 14, 1))
MARGIN = (4, 3)
WHOLE = small_model((17, 17, 1))


def test_a_plan_brings_every_part_of_the_image_into_the_middle() -> None:
    plan = plan_epoch(0, 1, 4000, 16, 0, margin=MARGIN)
    down, right = plan.shifts.T
    assert (set(down), set(right)) == ({-2, -1, 0, 1, 2}, {-2, -1, 0, 1})
    counts = np.unique(down, return_counts=True)[1]
    assert counts.min() > 4000 / 5 - 4 * math.sqrt(4000 / 5)
    further = plan_epoch(0, 1, 4000, 16, 3, margin=MARGIN).shifts
    assert [*further.min(0), *further.max(0)] == [-5, -5, 5, 4]
    same = plan_epoch(0, 1, 50, 16, 2, margin=(0, 0)).shifts
    assert (same == plan_epoch(0, 1, 50, 16, 2).shifts).all()


def cut(images: np.ndarray, plan: EpochPlan) -> np.ndarray:
    """The plan's images, cut in NumPy before they are staged."""
    parts = zip(images[plan.order], plan.shifts, strict=True)
    return np.stack([image[2 - down : 15 - down, 1 - right : 15 - right] for image, (down, right) in parts])


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_step_on_parts_is_one_on_images_that_were_cut_before(name: str) -> None:
    images, labels = batch_of(WHOLE, 6)
    plan = plan_epoch(0, 1, 6, 4, 0, margin=MARGIN)
    found: list[tuple[TrainTotals, Weights]] = []
    unmoved = EpochPlan(np.arange(6, dtype=np.int32), 0 * plan.shifts, 4)
    for staged, of, made in ((images, labels, plan), (cut(images, plan), labels[plan.order], unmoved)):
        impl = loaded(name, MODEL, initial_weights(MODEL, 0), compile=False)
        impl.stage(staged, of)
        impl.compile(4)
        found.append((impl.train(made), impl.dump()))
    (totals, weights), (others, expected) = found
    assert totals == others
    assert all((weights[key] == expected[key]).all() for key in expected)


@pytest.mark.parametrize("name", ["tf", "jax"])
def test_a_batch_is_of_parts(name: str) -> None:
    images, labels = batch_of(WHOLE, 4)
    plan = plan_epoch(0, 1, 4, 4, 0, margin=MARGIN)
    impl: Any = build(name, MODEL, compile=False)
    impl.stage(images, labels)
    data = ((impl.images, impl.labels),) if name == "jax" else ()
    digits, classes = impl.batch_of(*data, plan.order, plan.shifts)
    assert np.allclose(np.asarray(digits)[:, 0], cut(images, plan) / 255, rtol=1e-15)
    assert (np.asarray(classes)[:, 0] == labels[plan.order]).all()


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_ladder_covers_them(name: str) -> None:
    runtime = Runtime(precision="fp32", compile=False, threads=THREADS)
    impl = build(name, MODEL, "fp32")
    ladder = Ladder(impl, MODEL, OptimSpec(), runtime, *batch_of(WHOLE, 3), steps=3)
    ladder.climb("L6")
    report = ladder.report(name)
    assert report.ok, report.worst
    assert report.level_errors().keys() == {"L1", "L2", "L3", "L4", "L5", "L6"}


def test_the_ladder_finds_parts_that_are_cut_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Corner(NumpyImpl):
        def train(self, plan: EpochPlan) -> TrainTotals:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(numpy_impl, "middle", lambda images, model: images[:, : model.image[0], : model.image[1]])
                return super().train(plan)

    runtime = Runtime(precision="fp64")
    ladder = Ladder(Corner(MODEL, OptimSpec(), runtime), MODEL, OptimSpec(), runtime, *batch_of(WHOLE, 3), steps=3)
    ladder.climb("L5")
    assert ladder.report("corner").failed_level == "L5"
