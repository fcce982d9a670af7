"""The ladder passes what is right and names what is wrong. Networks with these faults all train without complaint."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from harness.parity import LEVELS, Check, Ladder, Report, compare, image_count, probe_weights, relative_error
from harness.parity.inputs import drawn, staged
from harness.parity.ladder import OPTIMISERS
from harness.parity.measure import floor_step
from harness.parity.probe import probes
from harness.parity.tolerances import FLOAT64, FLOOR32, TWIN, bound
from harness.spec import EpochPlan, Loss, ModelSpec, Moments, OptimSpec, Outputs, Runtime, TrainTotals, Weights
from harness.weights import initial_weights
from impls.numpy import NumpyImpl
from impls.numpy import impl as numpy_impl
from impls.numpy import layers as F
from tests.helpers.impl_helpers import batch_of, loaded, small_model

MODEL = small_model(routing=3)
OPTIM = OptimSpec()
Make = Callable[[ModelSpec, OptimSpec, Runtime], Any]


def ladder_on(
    implementation: Make, precision: str = "fp32", model: ModelSpec = MODEL, count: int = 7, steps: int = 2, **more: Any
) -> Ladder:
    runtime = Runtime.model_validate({"precision": precision})
    return Ladder(
        implementation(model, OPTIM, runtime), model, OPTIM, runtime, *batch_of(model, count), steps=steps, **more
    )


def climbed(implementation: Make, *arguments: Any, level: str = "L6", **more: Any) -> Report:
    ladder = ladder_on(implementation, *arguments, **more)
    ladder.climb(level)
    return ladder.report("mine")


def failures(report: Report) -> set[str]:
    return {f"{check.level} {check.name}" for check in report.checks if not check.ok}


# what is right


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("profile", ["paper", "official"])
@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("count", [1, 7])
def test_the_specification_passes_every_level(precision: str, profile: str, decoder: bool, count: int) -> None:
    model = small_model(routing=3, profile=profile, decoder=decoder)
    report = climbed(NumpyImpl, precision, model, count)
    assert report.ok
    assert report.failed_level is None
    assert (report.impl, report.precision, report.profile, report.skipped) == ("mine", precision, profile, {})
    assert list(report.level_errors()) == list(LEVELS)
    assert list(dict.fromkeys(check.level for check in report.checks)) == list(LEVELS)
    if precision == "fp64":  # the specification itself, on images that are there more often
        assert report.worst.rel_err < 1e-10
    else:
        assert 0 < report.worst.rel_err < report.worst.tolerance


def maker(model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False) -> NumpyImpl:
    return NumpyImpl(model, optim or OPTIM, Runtime(precision="fp64"))


def test_what_is_compared() -> None:
    report = climbed(NumpyImpl, "fp64", make=maker, routing=[1, 3, 5], steps=4)
    assert report.ok
    names = {level: {check.name for check in report.checks if check.level == level} for level in LEVELS}
    weights = set(initial_weights(MODEL, 0))
    outputs = {"digit", "lengths", "coupling", "reconstruction"}
    losses = {"total", "margin", "reconstruction"}
    scales = {"zero", "tiny", "huge"}
    marks = ("", "@even", "@graded", "@short", "@initial")
    loaded = {f"{when}.{what}" for when in ("loaded", "dumped", "fresh") for what in ("weights", "moments")}
    assert names["L1"] == {"parameters"} | {f"weight.{w}" for w in weights} | {f"shape.{o}" for o in outputs} | loaded
    assert names["L2"] == {f"squash_{s}.{o}" for s in scales for o in ("digit", "lengths", "coupling")} | {
        f"r{r}.{o}" for r in (1, 3, 5) for o in ("digit", "coupling")
    }
    assert names["L3"] == {
        f"{k}{mark}"
        for k in (*(f"forward.{o}" for o in outputs), *(f"loss.{term}" for term in losses))
        for mark in marks
    }
    assert names["L4"] == {f"grad.{w}{mark}" for w in weights for mark in marks}
    kinds = ("first", "second", "update")
    told = ("count", "correct", "step", *(f"loss.{term}" for term in losses))

    def of_steps(*steps: int) -> set[str]:
        return {f"{kind}.{w}@{at}" for kind in kinds for w in weights for at in steps} | {
            f"{what}@{at}" for what in told for at in steps
        }

    evaluated = {"predicted", *losses}
    own = of_steps(1, 50, 1000, 100_000, *floor_step(OPTIM)) | {"compiled.weights", "compiled.moments"}
    others = {
        f"{name}.{check}"
        for (name, optim), step in zip(OPTIMISERS.items(), (201, 61, 151, 401), strict=True)
        for check in of_steps(1, step, 1000, 100_000, *floor_step(optim))
    }
    eager = {f"eager.{name}" for name in of_steps(1) | {f"evaluation.{what}" for what in evaluated}}
    assert names["L5"] == own | others | eager
    counted = {"count", "correct", *losses}
    epochs = {f"{epoch}.{what}" for epoch in ("step1", "step2", "epoch") for what in counted}
    evaluations = {f"{when}.{what}" for when in ("evaluation", "close", "stepped", "trained") for what in evaluated}
    whole = {f"whole.{what}" for what in (*counted, "dump", *weights)}
    order = {f"order.{what}" for what in evaluated}
    assert names["L6"] == epochs | evaluations | whole | order | {
        "evaluation.weights",
        "evaluation.moments",
        "tie.predicted",
        "counted.correct",
    }
    assert len(report.checks) == sum(map(len, names.values()))  # each name once


def test_blocks_of_steps_are_compared_as_they_are_timed() -> None:
    """Where there are fresh implementations, in float32: an epoch in one, and in two with the state loaded between."""
    names = {check.name for check in climbed(NumpyImpl, make=maker).checks}
    assert {"blocks.step", "blocks.correct", "blocks.conv1.w", "blocks.predicted", "blocks.evaluation.total"} <= names
    assert not any(name.startswith(("staircase", "eager")) for name in names)


def test_no_steps_no_trajectory() -> None:
    names = {check.name for check in climbed(NumpyImpl, steps=0).checks if check.level == "L6"}
    assert {name.partition(".")[0] for name in names} == {
        "whole",
        "evaluation",
        "close",
        "trained",
        "tie",
        "order",
        "counted",
    }


@pytest.mark.parametrize("level", LEVELS)
def test_no_higher_than_asked(level: str) -> None:
    ladder = ladder_on(NumpyImpl)
    ladder.climb(level)
    assert list(ladder.report("").level_errors()) == list(LEVELS[: LEVELS.index(level) + 1])
    assert ladder.level == level


def test_float32_is_not_float64() -> None:
    """What computes in float32 and casts is found, in the outputs and in the gradients."""

    class Single(NumpyImpl):
        def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
            super().__init__(model, optim, Runtime(precision="fp32"))

        def forward(self, images: np.ndarray) -> Outputs:
            return Outputs(*(array.astype(np.float64) for array in vars(super().forward(images)).values()))

        def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
            loss, grads = super().loss_and_grads(images, labels)
            return loss, {name: grad.astype(np.float64) for name, grad in grads.items()}

    report = climbed(Single, "fp64")
    assert report.failed_level == "L2"
    assert {"L3 forward.digit", "L4 grad.digit.w", "L5 first.conv1.w@1", "L6 whole.conv1.w"} <= failures(report)
    assert report.worst.rel_err < 1e-5


# the gate's mode: compiled and staged already


class Counted(NumpyImpl):
    """Counts the calls, and keeps the plans it trained on."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        self.calls: Counter[str] = Counter()
        self.plans: list[EpochPlan] = []
        super().__init__(model, optim, runtime)

    def stage(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.calls["stage"] += 1
        super().stage(images, labels)

    def compile(self, batch: int) -> None:
        self.calls["compile"] += 1
        super().compile(batch)

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        self.calls["load"] += 1
        super().load(weights, moments)

    def train(self, plan: EpochPlan) -> TrainTotals:
        self.plans.append(plan)
        return super().train(plan)


def test_a_compiled_implementation_is_climbed_as_it_is() -> None:
    images, labels = batch_of(MODEL, 300)
    all_images, all_labels = staged(MODEL, images, labels)
    impl, runtime = Counted(MODEL, OPTIM, Runtime()), Runtime()
    impl.load(initial_weights(MODEL, 0))
    impl.stage(all_images, all_labels)
    impl.compile(24)
    ladder = Ladder(impl, MODEL, OPTIM, runtime, images, labels, steps=3, batch=24, is_staged=True)
    ladder.climb()
    report = ladder.report("gate")
    assert report.ok
    assert list(report.level_errors()) == list(LEVELS)
    assert (impl.calls["stage"], impl.calls["compile"]) == (1, 1)
    np.testing.assert_array_equal(impl.images, all_images)
    assert {plan.batch for plan in impl.plans} == {24}
    lengths = [len(plan.order) for plan in impl.plans]
    assert {24, 36} <= set(lengths)  # whole, several of which the last is incomplete
    assert all(plan.shifts.any() for plan in impl.plans)
    orders = np.concatenate([plan.order for plan in impl.plans])
    assert {0, 255, 256, 299, len(all_labels) - 1} <= set(orders.tolist())
    assert set(all_labels[orders]) == set(range(MODEL.classes))


def test_without_a_batch_the_ladder_stages_and_compiles_once() -> None:
    ladder = ladder_on(Counted, count=5)
    impl = cast(Counted, ladder.impl)
    ladder.climb("L4")
    assert (impl.calls["stage"], impl.calls["compile"]) == (0, 0)  # needed for training alone
    ladder = ladder_on(Counted, count=5)
    impl = cast(Counted, ladder.impl)
    ladder.climb()
    assert (impl.calls["stage"], impl.calls["compile"]) == (1, 1)
    assert {plan.batch for plan in impl.plans} == {5}


def test_other_numbers_of_iterations_are_of_fresh_implementations() -> None:
    made: list[ModelSpec] = []

    def make(model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False) -> NumpyImpl:
        made.append(model)
        return NumpyImpl(model, OPTIM, Runtime())

    assert climbed(NumpyImpl, level="L2", make=make, routing=range(1, 5)).ok
    assert made == [MODEL.model_copy(update={"routing": iterations}) for iterations in (1, 2, 4)]


# what is wrong


class NoGradientOfBias(NumpyImpl):
    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        del grads["primary.b"]
        return loss, grads


class NotANumber(NumpyImpl):
    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        grads["digit.w"][2, 1, 0, 3] = math.nan
        return loss, grads


class InfiniteLoss(NumpyImpl):
    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        return replace(loss, margin=math.inf), grads


class TransposedCoupling(NumpyImpl):
    def forward(self, images: np.ndarray) -> Outputs:
        found = super().forward(images)
        assert found.coupling is not None
        return replace(found, coupling=found.coupling.transpose(0, 2, 1))


class NoCoupling(NumpyImpl):
    def forward(self, images: np.ndarray) -> Outputs:
        return replace(super().forward(images), coupling=None)


class HalfPrecision(NumpyImpl):
    def forward(self, images: np.ndarray) -> Outputs:
        found = super().forward(images)
        return replace(found, lengths=found.lengths.astype(np.float16))


class ExtraWeight(NumpyImpl):
    def dump(self) -> Weights:
        return {**super().dump(), "digit.b": np.zeros(3)}


class RenamedWeight(NumpyImpl):
    def dump(self) -> Weights:
        dumped = super().dump()
        return {"conv.w" if name == "conv1.w" else name: w for name, w in dumped.items()}


class TransposedWeight(NumpyImpl):
    def dump(self) -> Weights:
        dumped = super().dump()
        return {**dumped, "dec1.w": dumped["dec1.w"].T}


class SoftmaxOverInputs(NumpyImpl):
    """The best-known fault of public implementations: couplings sum to one over the input capsules."""

    def _forward(self, images: np.ndarray) -> Any:
        right = F.softmax

        def wrong(logits: np.ndarray, leak: bool = False) -> np.ndarray:
            return right(logits.transpose(0, 2, 1), leak).transpose(0, 2, 1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "softmax", wrong)
            return super()._forward(images)


class WrongLearningRate(NumpyImpl):
    """One per cent too large."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        super().__init__(model, OptimSpec(lr=optim.lr * 1.01), runtime)


class NoDecay(NumpyImpl):
    """The first step cannot show it."""

    def _step(self, grads: Weights) -> None:
        self.optim = OptimSpec(lr=OPTIM.lr, lr_decay=OPTIM.lr_decay.model_copy(update={"rate": 1.0}))
        super()._step(grads)


class EpsilonHat(NumpyImpl):
    """Keras's 1e-7 beside the uncorrected second moment: no loss shows it, the update does."""

    def _step(self, grads: Weights) -> None:
        with pytest.MonkeyPatch.context() as patch:
            step = self.moments.step + 1
            patch.setattr(numpy_impl, "ADAM_EPSILON", 1e-7 / math.sqrt(1 - 0.999**step))
            super()._step(grads)


class NoCorrection(NumpyImpl):
    """Adam without its bias correction."""

    def _step(self, grads: Weights) -> None:
        step = self.moments.step
        self.moments = Moments(10**6, self.moments.first, self.moments.second)
        super()._step(grads)
        self.moments = Moments(step + 1, self.moments.first, self.moments.second)


class MeanOverTheBatchSize(NumpyImpl):
    """Divides by the batch's size, not by the number of its images: wrong where a batch is incomplete."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        totals = super().train(plan)
        share = len(plan.order) / plan.batch
        return replace(totals, loss=Loss(*(share * term for term in vars(totals.loss).values())))


class CountsTheBatch(NumpyImpl):
    def train(self, plan: EpochPlan) -> TrainTotals:
        return replace(super().train(plan), count=plan.batch)


class EvaluatesWithTheLabel(NumpyImpl):
    """The decoder sees the label's capsule, in evaluation too."""

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> Any:
        loss, _ = self.loss_and_grads(images, labels)
        return replace(super().evaluate(images, labels), loss=loss)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    ("fault", "level", "named"),
    [
        (ExtraWeight, "L1", "weight.digit.b"),
        (RenamedWeight, "L1", "weight.conv1.w"),
        (TransposedWeight, "L1", "weight.dec1.w"),
        (TransposedCoupling, "L1", "shape.coupling"),
        (NoCoupling, "L1", "shape.coupling"),
        (HalfPrecision, "L1", "shape.lengths"),
        (SoftmaxOverInputs, "L2", "r3.coupling"),
        (InfiniteLoss, "L3", "loss.margin"),
        (NoGradientOfBias, "L4", "grad.primary.b"),
        (NotANumber, "L4", "grad.digit.w"),
        (WrongLearningRate, "L5", "update.conv1.w@1"),
        (NoDecay, "L5", "update.conv1.w@1000"),
        (EpsilonHat, "L5", "update.conv1.w@1"),
        (NoCorrection, "L5", "update.conv1.w@1"),
        (MeanOverTheBatchSize, "L6", "epoch.margin"),
        (CountsTheBatch, "L6", "epoch.count"),
    ],
)
def test_a_fault_fails_at_its_level(fault: Make, level: str, named: str, precision: str) -> None:
    report = climbed(fault, precision, steps=3)
    assert report.failed_level == level
    assert f"{level} {named}" in failures(report)
    assert not report.ok
    assert report.worst.level == level
    assert report.worst.ratio > 1


def test_an_evaluation_with_the_label_s_capsule_is_found() -> None:
    report = climbed(EvaluatesWithTheLabel, "fp64")
    assert {"L6 evaluation.reconstruction", "L6 evaluation.total"} <= failures(report)
    assert all(check.level == "L6" for check in report.checks if not check.ok)
    assert climbed(EvaluatesWithTheLabel, model=MODEL.model_copy(update={"profile": "official"})).ok


def test_only_the_update_shows_adam_s_epsilon() -> None:
    failed = failures(climbed(EpsilonHat, "fp32", level="L5"))
    assert failed
    assert all(name.startswith("L5 update.") for name in failed)


NOTES = {
    ExtraWeight: ("weight.digit.b", "no such weight in the specification"),
    RenamedWeight: ("weight.conv1.w", "missing"),
    TransposedWeight: ("weight.dec1.w", "shape (7, 20), expected (20, 7)"),
    TransposedCoupling: ("shape.coupling", "shape (11, 4, 27), expected (11, 27, 4)"),
    NoCoupling: ("shape.coupling", "missing, expected shape (11, 27, 4)"),
    HalfPrecision: ("shape.lengths", "float16, expected float32"),
    NoGradientOfBias: ("grad.primary.b", "missing"),
    NotANumber: ("grad.digit.w", "not finite"),
}


@pytest.mark.parametrize("fault", NOTES)
def test_a_note_says_what_no_number_can(fault: Make) -> None:
    name, note = NOTES[fault]
    checks = [check for check in climbed(fault, level="L4").checks if check.name == name]
    assert [(check.note, check.rel_err) for check in checks] == [(note, math.inf)]


def test_the_worst_element_is_named() -> None:
    check = climbed(NotANumber, "fp64", level="L4").worst
    assert (check.name, check.where) == ("grad.digit.w", (2, 1, 0, 3))
    assert check.found is not None
    assert math.isnan(check.found)
    assert check.expected is not None
    assert math.isfinite(check.expected)


def test_float32_outputs_are_no_float64() -> None:
    class Narrow(NumpyImpl):
        def forward(self, images: np.ndarray) -> Outputs:
            found = super().forward(images)
            assert found.digit is not None
            return replace(found, digit=found.digit.astype(np.float32))

    (check,) = [check for check in climbed(Narrow, "fp64", level="L1").checks if not check.ok]
    assert (check.name, check.note) == ("shape.digit", "float32, expected float64")
    assert climbed(Narrow, "fp32", level="L1").ok


def test_a_reconstruction_that_nobody_asked_for() -> None:
    class Decodes(NumpyImpl):
        def forward(self, images: np.ndarray) -> Outputs:
            return replace(super().forward(images), reconstruction=np.zeros(images.shape))

    report = climbed(Decodes, "fp32", small_model(decoder=False), level="L1")
    assert [(check.name, check.note) for check in report.checks if not check.ok] == [
        ("shape.reconstruction", "there, but not expected")
    ]


# adapters, exceptions, stopping


class Adapter:
    """`load`, `forward`, `loss_and_grads`, and no more."""

    def __init__(self, *arguments: Any) -> None:
        self.inner = NumpyImpl(*arguments)

    def load(self, weights: Weights) -> None:
        self.inner.load(weights)

    def forward(self, images: np.ndarray) -> Outputs:
        return self.inner.forward(images)

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        return self.inner.loss_and_grads(images, labels)


def test_an_adapter_skips_the_levels_of_training() -> None:
    report = climbed(Adapter)
    assert report.ok
    assert list(report.level_errors()) == ["L1", "L2", "L3", "L4"]
    reason = "an adapter without train, evaluate, stage, compile, dump, dump_moments"
    assert report.skipped == {"L5": reason, "L6": reason}
    assert not any(check.name.startswith("weight.") for check in report.checks)  # it cannot show them
    assert climbed(Adapter, level="L4").skipped == {}


def test_one_method_short_is_an_adapter_too() -> None:
    class NoMoments(NumpyImpl):
        dump_moments = None  # type: ignore[assignment]

    report = climbed(NoMoments)
    assert report.ok
    assert report.skipped == dict.fromkeys(("L5", "L6"), "an adapter without dump_moments")
    assert "weight.conv1.w" in {check.name for check in report.checks}


def test_what_was_compared_before_an_exception_is_kept() -> None:
    class RaisesLate(NumpyImpl):
        def dump_moments(self) -> Moments:
            if self.moments.step == 1000:
                raise RuntimeError("no moments")
            return super().dump_moments()

    ladder = ladder_on(RaisesLate)
    with pytest.raises(RuntimeError, match="no moments"):
        ladder.climb()
    assert ladder.level == "L5"
    report = ladder.report("mine")
    assert report.ok  # so far
    names = {check.name for check in report.checks if check.level == "L5"}
    assert {"update.conv1.w@1", "loss.total@1000"} <= names
    assert "update.conv1.w@1000" not in names
    assert "L6" not in report.level_errors()


def test_stops_at_the_first_level_that_fails() -> None:
    ladder = ladder_on(NoGradientOfBias)
    ladder.climb(stop_at_failure=True)
    report = ladder.report("mine")
    assert list(report.level_errors()) == ["L1", "L2", "L3", "L4"]
    assert {check.name for check in report.checks if check.level == "L4"} == {
        f"grad.{w}{mark}" for w in ladder.at.probe for mark in ("", "@even", "@graded", "@short", "@initial")
    }
    assert failures(report) == {f"L4 grad.primary.b{mark}" for mark in ("", "@even", "@graded", "@short", "@initial")}
    right = ladder_on(NumpyImpl)
    right.climb(stop_at_failure=True)
    assert list(right.report("mine").level_errors()) == list(LEVELS)


def test_the_seed_decides_the_weights() -> None:
    loaded: list[Weights] = []

    class Kept(NumpyImpl):
        def load(self, weights: Weights, moments: Moments | None = None) -> None:
            loaded.append(weights)
            super().load(weights, moments)

    assert climbed(Kept, level="L1", seed=3).ok
    for name, expected in probe_weights(MODEL, 3).items():
        np.testing.assert_array_equal(loaded[0][name], expected)
    assert (loaded[0]["conv1.w"] != probe_weights(MODEL, 4)["conv1.w"]).any()


# numbers


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([-3.0, 0.0], [-2.0, 1.0], 0.5),  # the largest value may be negative
        ([0.5], [0.0], 0.5),  # nothing to be relative to
        (1.5, 1.0, 0.5),
        (np.float32(1.5), np.array(1.0), 0.5),
        (3, 4, 0.25),
        ([], [], 0),
        ([1.0], [[1.0]], math.inf),
        ([[1.0]], [1.0], math.inf),
        (1.0, [1.0], math.inf),
        ([math.nan], [1.0], math.inf),
        ([1.0, 1.0], [1.0, math.nan], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([math.inf], [math.inf], math.inf),
        (math.nan, 1.0, math.inf),
        ([1.0, 1e308], [1.0, -1e308], math.inf),  # each is finite, their difference is not
        (None, [1.0], math.inf),
        ([1.0], None, math.inf),
        (None, None, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_relative_error(found: Any, expected: Any, error: float) -> None:
    assert relative_error(found, expected) == pytest.approx(error)
    assert compare("L3", "x", found, expected, 1e-6).ok == (error == 0)


def test_compare_keeps_the_worst_element() -> None:
    found, expected = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    found[1, 0, 2], found[0, 2, 1], expected[1, 1, 1], found[1, 1, 1] = 0.5, 0.25, -2.0, -2.0
    assert compare("L4", "grad.x", found, expected, 0.5) == Check(
        "L4", "grad.x", 0.25, 0.5, (1, 0, 2), found=0.5, expected=0.0
    )
    assert compare("L3", "loss", 1.5, 1.0, 0.1) == Check("L3", "loss", 0.5, 0.1, (), found=1.5, expected=1.0)


def test_compare_in_float64() -> None:
    """Two float32 numbers next to each other, of which a float32 difference of large ones would lose something."""
    one, next_one = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    assert relative_error([next_one], [one]) == 2.0**-23
    assert relative_error([np.float16(60000)], [np.float16(-60000)]) == 2  # would overflow in float16


@pytest.mark.parametrize(
    ("found", "expected"), [([True], [False]), (["long"], [1.0]), ("1.0", 1.0), ([None], [1.0]), ([1j], [1.0])]
)
def test_what_is_no_number_raises(found: Any, expected: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        compare("L3", "x", found, expected, 1e-6)


def test_a_check_is_as_good_as_its_tolerance() -> None:
    assert Check("L3", "x", 0.5, 0.5).ok
    assert Check("L3", "x", 0.5, 0.25).ratio == 2
    assert not Check("L3", "x", 0.5000001, 0.5).ok
    assert not Check("L3", "x", math.inf, 1.0).ok
    assert not Check("L3", "x", math.nan, 1.0).ok


@pytest.mark.parametrize("kind", FLOAT64)
def test_tolerances(kind: str) -> None:
    assert bound(kind, "fp64") == bound(kind, "fp64", 0.5) == FLOAT64[kind]  # where rounding has no say
    assert bound(kind, "fp32") == FLOOR32[kind]
    assert bound(kind, "fp32", 0.5) == TWIN * 0.5 + FLOOR32[kind]
    assert kind == "exact" or FLOAT64[kind] < 0.1 * FLOOR32[kind]


def test_a_twin_that_overflows_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 specification's distance is a tolerance only where it is a number."""
    right = NumpyImpl.loss_and_grads

    def overflowing(self: NumpyImpl, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = right(self, images, labels)
        if type(self) is NumpyImpl and self.dtype == np.float32:
            grads["digit.w"][:] = math.inf
        return loss, grads

    monkeypatch.setattr(NumpyImpl, "loss_and_grads", overflowing)
    (check,) = [check for check in climbed(Adapter, level="L4").checks if check.name == "grad.digit.w"]
    assert check.tolerance == FLOOR32["grad"]


# reports

CHECKS = (
    Check("L1", "shape.digit", 0.0, 1e-7),
    Check("L4", "grad.conv1.b", 3e-4, 1e-4, (3,), 1.0, 1.1),
    Check("L4", "grad.digit.w", 2e-4, 1e-5, (0, 1, 2, 3), 0.12, 0.09),
    Check("L5", "step1.loss", math.inf, 1e-6, (), math.nan, 2.0, "not finite"),
    Check("L5", "step@1", math.inf, 1e-7, note="missing"),
)


def test_report() -> None:
    report = Report("mine", "fp32", "paper", CHECKS)
    assert not report.ok
    assert report.failed_level == "L4"
    assert report.worst is CHECKS[2]  # farther beyond its tolerance than the other, though its error is smaller
    assert report.level_errors() == {"L1": CHECKS[0], "L4": CHECKS[2], "L5": CHECKS[3]}
    good = Report("mine", "fp32", "paper", (CHECKS[0], Check("L2", "r1.digit", 1e-6, 1e-5), Check("L3", "x", 0, 1e-6)))
    assert (good.ok, good.failed_level) == (True, None)
    assert good.worst.name == "r1.digit"


def test_json_of_a_report_is_strict() -> None:
    report = Report("mine", "fp32", "paper", CHECKS, {"L6": "an adapter without train"}, ("a softmax",))
    text = json.dumps(report.to_json(), allow_nan=False)
    document = json.loads(text)
    assert document["checks"][3] == {
        "level": "L5", "name": "step1.loss", "rel_err": None, "tolerance": 1e-6, "where": [], "found": None,
        "expected": 2.0, "note": "not finite", "kind": "exact", "ok": False,
    }  # fmt: skip
    assert document["worst"] == document["checks"][2]
    assert (document["ok"], document["failed_level"]) == (False, "L4")
    assert (document["skipped"], document["suspects"]) == ({"L6": "an adapter without train"}, ["a softmax"])
    assert json.loads(json.dumps(Report("mine", "fp32", "paper", ()).to_json(), allow_nan=False))["worst"] is None


def test_json_of_a_climb_is_strict() -> None:
    """Numbers of NumPy's types must not get into it."""
    for fault in (NumpyImpl, NotANumber, NoCoupling, ExtraWeight):
        json.dumps(climbed(fault, level="L4").to_json(), allow_nan=False)


def test_image_count() -> None:
    """So many different images a step that they fill it when repeated; of a prime number, they do not."""
    assert [image_count(batch) for batch in (1, 3, 8, 64, 100, 128, 127, 20)] == [1, 3, 8, 8, 5, 8, 8, 5]


@pytest.mark.parametrize("profile", ["paper", "official"])
def test_probes_of_many_classes_can_be_computed(profile: str) -> None:
    """With hundreds of classes no votes make all capsules as long as with ten: the fit must not run away."""
    model = small_model(image=(13, 21, 3), classes=200, profile=profile, routing=2)
    images, _ = drawn(model)
    for name, weights in probes(model, 0, images, 3).items():
        assert all(np.isfinite(each).all() for each in weights.values()), name
        lengths = loaded("numpy", model, weights).forward(images[-4:]).lengths
        assert np.isfinite(lengths).all(), name
        assert name != "graded" or lengths.max() > 10 * lengths.min()
