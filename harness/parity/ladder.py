"""The ladder: an implementation against the float64 specification, from names and shapes to a training trajectory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from harness import models, registry
from harness.models.contract import require_sound
from harness.parity.check import LEVELS, Check, Report, compare
from harness.parity.inputs import staged
from harness.parity.judge import judged
from harness.parity.measure import (
    Measure,
    Value,
    apart,
    capsules,
    first_step,
    moments_apart,
    one_batch,
    routed,
    single_steps,
    trajectory,
)
from harness.parity.probe import probe_moments, probes
from harness.parity.relations import TINY, blocks, counted, evaluation, kept, whole_batch
from harness.parity.setting import Setting
from harness.parity.tolerances import bound
from harness.spec import Conventions, DecoderOptim, Impl, LrDecay, ModelSpec, OptimSpec, Runtime
from harness.weights import initial_weights, parameter_count, weight_table


class Make(Protocol):
    """Makes a fresh implementation: another number of routing iterations, another optimiser, another mode."""

    def __call__(self, model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False) -> Impl: ...


TRAINING = ("train", "evaluate", "stage", "compile", "dump", "dump_moments")
"""Methods that L5 and L6 need; an implementation that lacks one is an adapter, which can climb up to L4."""
OPTIMISERS = {
    "staircase": OptimSpec(
        lr=3e-3,
        lr_decay=LrDecay(kind="staircase", rate=0.5, steps=300, floor=1e-6),
        weight_decay=0.01,
        decoder=DecoderOptim(lr=1e-3, weight_decay=0.1),
    ),
    "epoch": OptimSpec(
        lr=1e-2, lr_decay=LrDecay(kind="epoch", rate=0.9, steps=70, floor=1e-4), decoder=DecoderOptim(weight_decay=0.05)
    ),
    "constant": OptimSpec(lr=2e-3, lr_decay=LrDecay(kind="constant"), weight_decay=0.02, decoder=DecoderOptim(lr=4e-3)),
    "exponential": OptimSpec(lr=5e-3, lr_decay=LrDecay(rate=0.7, steps=400, floor=1e-5)),
}
"""Every optimiser setting that a suite has, with values that make a difference in single steps."""


_OF_RELUS = ("grad", "moment")
_NEXT_TO_ZERO = 5e-6  # of a layer's root mean square: about float32's error


_AMID = (200, 60, 150, 400)  # completed steps: the optimisers agree in the first steps and in the last


class Ladder:
    """One implementation's climb. `level` is the current level, `checks` are all comparisons so far."""

    def __init__(
        self,
        impl: Impl,
        model: ModelSpec,
        optim: OptimSpec,
        runtime: Runtime,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int = 0,
        steps: int = 10,
        batch: int | None = None,
        is_staged: bool = False,
        first_step: int = 49,
        make: Make | None = None,
        routing: Sequence[int] = (),
        conventions: Conventions | None = None,
    ) -> None:
        """`images` uint8 (N, H, W, C) and `labels` (N,) are the trial's own; drawn ones are added (`harness.parity.inputs`).

        If the model's images show several digits, they are single digits, which are overlaid here. `batch` (default: N)
        is the compiled batch size. With `is_staged`, `impl` is already compiled for it, has staged the result of
        `inputs.staged`, and is compared in brief; else the ladder stages and compiles. Implementations from `make` are
        used to check the other numbers of iterations in `routing`, other optimisers, and eager mode. The weights of
        `impl` change. The trajectory starts after `first_step` completed steps. The specification computes with
        `conventions`.
        """
        self.conventions = conventions or Conventions()
        self.impl, self.precision, self.compiles = impl, runtime.precision, runtime.compile
        batch = batch or len(labels)
        all_images, all_labels = staged(model, images, labels)
        all_images.flags.writeable = all_labels.flags.writeable = False
        self.at = Setting(model, optim, all_images, all_labels, {}, steps, batch, first_step, brief=is_staged)
        if not models.is_built_in(model.kind):
            require_sound(model, initial_weights(model, seed), self.at.shown[:2], self.at.classes[:2])
        self.at.probes.update(probes(model, seed, self.at.shown, int(self.at.classes.flat[0])))
        self._is_prepared = is_staged
        self._make, self._routing = make, []
        if make and self.at.kind.has_capsules:
            self._routing = sorted({*routing} - {model.routing})
        self.level = LEVELS[0]
        self.checks: list[Check] = []
        self.skipped: dict[str, str] = {}

    def climb(self, level: str = LEVELS[-1], stop_at_failure: bool = False) -> None:
        """Climbs up to `level`. Raises whatever the implementation raises; `checks` then has the comparisons made before."""
        lacking = [method for method in TRAINING if not callable(getattr(self.impl, method, None))]
        stages = {
            "L1": self._names,
            "L2": self._capsules,
            "L3": self._one_batch,
            "L5": self._single_steps,
            "L6": self._trajectory,
        }
        for first, checks in stages.items():
            if first > level:
                return
            self.level = first
            if reason := self.at.kind.skipped(first):
                self.skipped[first] = reason
                continue
            if first in ("L5", "L6") and lacking:
                self.skipped[first] = f"an adapter without {', '.join(lacking)}"
                continue
            for check in checks():  # one by one: checks before an exception are kept
                if check.level > level:
                    return
                self.level = check.level
                self.checks.append(check)
            self.checks = [check for check in self.checks if check.level <= level]
            if stop_at_failure and not all(check.ok for check in self.checks):
                return

    def report(self, name: str) -> Report:
        count = len(self.at.shown_indices)
        return Report(name, self.precision, self.at.model.variant, tuple(self.checks), self.skipped, images=count)

    @cached_property
    def _specifications(self) -> list[Impl]:
        return self._specified(self.at.model, self.at.optim)

    @property
    def specified(self) -> list[Impl]:
        """The specification, and its twin if there is one."""
        return self._specifications

    def _specified(self, model: ModelSpec, optim: OptimSpec) -> list[Impl]:
        """The specification in float64, and its float32 twin, which shows what rounding does; operands in our precision."""
        specification: Any = registry.specification()
        precisions = ("fp64",) if self.precision == "fp64" else ("fp64", "fp32")
        return [
            specification(model, optim, Runtime(precision=precision), self.precision, self.conventions)
            for precision in precisions
        ]

    def _compared(
        self,
        measure: Measure,
        impl: Impl | None = None,
        specifications: Sequence[Impl] = (),
        at: Setting | None = None,
        prefix: str = "",
    ) -> Iterator[Check]:
        """A check for each value of `measure`; implementation and specification compute in turns."""
        at = at or self.at
        exact, *twins = specifications or self._specifications
        doubtful: dict[str, tuple[Value, Value]] = {}
        values = zip(measure(impl or self.impl, replace(at, whole=True)), measure(exact, at), strict=True)
        try:
            for pair in values:
                if pair[0].value is None and self._may_lack(pair[0].name):
                    continue
                check = judged(self.precision, *pair)
                if check.ok or not twins or not (check.kind == "ranked" or math.isfinite(check.rel_err)):
                    yield replace(check, name=prefix + check.name)
                else:
                    doubtful[check.name] = pair
        finally:
            for check in self._resolved(doubtful, measure, exact, twins, at):
                self.checks.append(replace(check, name=prefix + check.name))

    def _may_lack(self, name: str) -> bool:
        """Whether an adapter may leave this out: its coupling and the terms of its loss."""
        return self._is_adapter and name.partition("@")[0].endswith((".coupling", "loss.margin", "loss.reconstruction"))

    @cached_property
    def _is_adapter(self) -> bool:
        return not all(callable(getattr(self.impl, method, None)) for method in TRAINING)

    def _resolved(
        self, doubtful: dict[str, tuple[Value, Value]], measure: Measure, exact: Any, twins: Sequence[Impl], at: Setting
    ) -> Iterator[Check]:
        """Checks values far from float64 again: against the float32 twin, and excusing ReLUs with an input close to zero."""
        if not doubtful:
            return
        allowed: dict[str, Value] = {value.name: value for value in measure(twins[0], at) if value.name in doubtful}
        checks = {name: judged(self.precision, *pair, allowed[name]) for name, pair in doubtful.items()}
        beyond = [name for name, check in checks.items() if not check.ok and check.kind in _OF_RELUS]
        if self.precision == "fp32":
            for name, slack in _slack(measure, exact, at, beyond):
                checks[name] = judged(self.precision, *doubtful[name], allowed[name], slack)
        yield from checks.values()

    def _names(self) -> Iterator[Check]:
        """L1: every weight exists under its name, in its shape, as it was loaded; outputs have their shapes and precision."""
        model, probe, images = self.at.model, self.at.probe, self.at.compared_images
        self.impl.load(probe)
        if callable(getattr(self.impl, "dump", None)):
            dumped = self.impl.dump()
            for row in weight_table(model):
                yield self._exactly(f"weight.{row.name}", dumped.get(row.name), probe[row.name])
            for extra in sorted(dumped.keys() - probe.keys()):
                yield replace(
                    self._exactly(f"weight.{extra}", dumped[extra], None), note="no such weight in the specification"
                )
            count = sum(array.size for array in dumped.values())
            yield self._exactly("parameters", count, parameter_count(model))
            if all(check.ok for check in self.checks) and callable(getattr(self.impl, "dump_moments", None)):
                for name, error in kept(self.impl, list(self.at.probes.values())):
                    yield self._exactly(name, error, 0.0)
                self.impl.load(probe)
        outputs = self.impl.forward(images)
        for name, shape in self.at.kind.output_shapes(model, len(images)).items():
            found = getattr(outputs, name, None)
            if found is None and name == "coupling" and self._is_adapter:
                continue
            note = _unlike(found, shape, self.precision)
            yield Check("L1", f"shape.{name}", math.inf if note else 0.0, bound("exact", self.precision), note=note)

    def _exactly(self, name: str, found: object, expected: object) -> Check:
        return compare("L1", name, found, expected, bound("exact", self.precision))

    def _capsules(self) -> Iterator[Check]:
        yield from self._compared(capsules)
        for iterations in self._routing:
            assert self._make is not None
            other = self.at.model.model_copy(update={"routing": iterations})
            try:
                specified = self._specified(other, self.at.optim)
                yield from self._compared(routed, self._make(other), specified, replace(self.at, model=other))
            except NotImplementedError as error:  # a network whose number of iterations is fixed
                self.skipped[f"L2 with {iterations} iterations"] = str(error)
            except Exception as error:
                cause = f"with {iterations} routing iterations it raised {type(error).__name__}: {error}"
                yield Check("L2", "exception", math.inf, 1.0, note=" ".join(cause.split())[:500])

    def _one_batch(self) -> Iterator[Check]:
        return self._compared(one_batch)

    def _single_steps(self) -> Iterator[Check]:
        if self._is_prepared:
            for each in self._specifications:
                each.load(self.at.probe)
                each.stage(self.at.images, self.at.labels)
                each.compile(self.at.batch)
        else:
            self._prepare(self.impl, self.at, self._specifications)
            yield from self._compiled()
        yield from self._compared(single_steps)
        if not self._make:
            return
        # an optimiser's effect on a step depends neither on the batch size nor on rounding; eager mode takes less time
        if self.precision == "fp64":
            at = replace(self.at, batch=self.at.images_a_step)
            for number, (name, optim) in enumerate(OPTIMISERS.items()):
                others = replace(at, optim=optim, first_step=_AMID[number])
                yield from self._of_others(single_steps, others, False, f"{name}.")
            if self.compiles:
                yield from self._of_others(first_step, at, False, "eager.")

    def _compiled(self) -> Iterator[Check]:
        """Whether compiling has left weights and moments unchanged."""
        tolerance = bound("exact", self.precision)
        weights = apart(self.at.probe, self.impl.dump())
        yield compare("L5", "compiled.weights", weights, 0.0, tolerance)
        moments = moments_apart(probe_moments(self.at.probe, 5), self.impl.dump_moments())
        yield compare("L5", "compiled.moments", moments, 0.0, tolerance)

    def _of_others(self, measure: Measure, at: Setting, compile: bool, prefix: str) -> Iterator[Check]:
        """The comparison for a fresh implementation with the settings of `at`."""
        assert self._make is not None
        everyone = [self._make(at.model, at.optim, compile), *self._specified(at.model, at.optim)]
        self._prepare(everyone[0], at, everyone[1:])
        return self._compared(measure, everyone[0], everyone[1:], at, prefix)

    def _trajectory(self) -> Iterator[Check]:
        yield from self._compared(trajectory)
        if self._is_prepared:
            return
        yield from whole_batch(self.impl, self.at, self.precision, self.checks)
        yield from evaluation(self.impl, self.at, self.precision)
        yield from counted(self.impl, self.at, self.precision)
        if self._make and self.precision != "fp64":  # as it is timed
            at = replace(self.at, batch=TINY)
            impl = self._make(at.model, at.optim, True)
            self._prepare(impl, at)
            yield from blocks(impl, at, self.precision)

    def _prepare(self, impl: Impl, at: Setting, specifications: Sequence[Impl] = ()) -> None:
        """Makes all of them ready to train. The arrays that `impl` staged are zeroed afterwards.

        It must no longer depend on them, and compiling must not have changed its state: see `_compiled`.
        """
        images, labels = at.images.copy(), at.labels.copy()
        for each, staging in ((impl, (images, labels)), *((each, (at.images, at.labels)) for each in specifications)):
            each.load(at.probe, probe_moments(at.probe, 5))
            each.stage(*staging)
            each.compile(at.batch)
        images[...] = 0
        labels[...] = 0


def _slack(
    measure: Measure, specification: Any, at: Setting, names: Collection[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """How much these values depend on ReLUs close to zero: the difference between passing all of them and none."""
    if not names:
        return
    both: list[dict[str, np.ndarray]] = []
    for share in (_NEXT_TO_ZERO, -_NEXT_TO_ZERO):
        with specification.leaning(share):
            values = {value.name: value.value for value in measure(specification, at) if value.name in names}
        both.append({name: np.asarray(value) for name, value in values.items()})
    for name in names:
        yield name, np.abs(both[0][name] - both[1][name])


def _unlike(found: object, shape: tuple[int, ...] | None, precision: str) -> str | None:
    """What is wrong with an output that should have `shape`; None if nothing is."""
    if found is None or shape is None:
        return None if found is shape else f"missing, expected shape {shape}" if shape else "there, but not expected"
    array = np.asarray(found)
    if array.shape != shape:
        return f"shape {array.shape}, expected {shape}"
    wanted = ("float64",) if precision == "fp64" else ("float32", "float64")
    return None if array.dtype.name in wanted else f"{array.dtype.name}, expected {wanted[0]}"
