"""The ladder: an implementation against the float64 specification, from names and shapes to a trajectory of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from harness import registry
from harness.parity.check import LEVELS, Check, Report, compare
from harness.parity.measure import (
    Measure,
    Moved,
    Setting,
    Value,
    capsules,
    one_batch,
    routed,
    single_steps,
    trajectory,
)
from harness.parity.probe import probe_weights
from harness.parity.tolerances import bound, spared
from harness.spec import Conventions, Impl, ModelSpec, OptimSpec, Runtime
from harness.weights import initial_weights, parameter_count, weight_table

Make = Callable[[ModelSpec], Impl]
"""A fresh implementation of another model: what tells whether every number of routing iterations is right."""

TRAINING = ("train", "evaluate", "stage", "compile", "dump", "dump_moments")
"""What L5 and L6 need; an implementation without one of these is an adapter, which can climb up to L4."""


class Ladder:
    """One implementation's climb. `level` is the one being climbed, `checks` all that has been compared so far."""

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
        make: Make | None = None,
        routing: Sequence[int] = (),
        conventions: Conventions | None = None,
    ) -> None:
        """`images` uint8 (B, H, W, C) and `labels` (B,) are what everything is computed on.

        Where the model's images show several digits, single ones, which are overlaid here.
        `batch` is what `impl` is compiled for already, and the images are then the first B of what is staged; without it,
        the ladder stages and compiles. Numbers of iterations in `routing` other than the model's own are checked on
        implementations from `make`. The specification computes with `conventions`. `impl` is left with other weights than
        it had.
        """
        self.conventions = conventions or Conventions()
        self.impl, self.precision = impl, runtime.precision
        self.at = Setting(
            model, optim, images, labels, probe_weights(model, seed), initial_weights(model, seed), steps,
            batch or len(labels),
        )  # fmt: skip
        self._is_prepared = batch is not None
        self._make, self._routing = make, sorted({*routing} - {model.routing}) if make else []
        self.level = LEVELS[0]
        self.checks: list[Check] = []
        self.skipped: dict[str, str] = {}

    def climb(self, level: str = LEVELS[-1], stop_at_failure: bool = False) -> None:
        """Climbs up to `level`. Raises whatever the implementation raises; `checks` then has what was compared before."""
        lacking = [method for method in TRAINING if not callable(getattr(self.impl, method, None))]
        stages = {
            "L1": self._names, "L2": self._capsules, "L3": self._one_batch, "L5": self._single_steps,
            "L6": self._trajectory,
        }  # fmt: skip
        for first, checks in stages.items():
            if first > level:
                return
            self.level = first
            if first == "L2" and self.at.model.kind != "capsnet":
                self.skipped[first] = "a CNN has neither capsules nor routing"
                continue
            if first in ("L5", "L6") and lacking:
                self.skipped[first] = f"an adapter without {', '.join(lacking)}"
                continue
            for check in checks():  # one by one: what comes before an exception is kept
                if check.level > level:
                    return
                self.level = check.level
                self.checks.append(check)
            if stop_at_failure and not all(check.ok for check in self.checks):
                return

    def report(self, name: str) -> Report:
        return Report(name, self.precision, self.at.model.variant, tuple(self.checks), self.skipped)

    @cached_property
    def _everyone(self) -> list[Impl]:
        return [self.impl, *self._specified(self.at.model)]

    @property
    def specified(self) -> list[Impl]:
        """The specification, and its twin where there is one."""
        return self._everyone[1:]

    def _specified(self, model: ModelSpec) -> list[Impl]:
        """The specification in float64, and its float32 twin, which says what rounding alone does; operands as ours."""
        specification: Any = registry.load(registry.resolve("numpy"))
        precisions = ("fp64",) if self.precision == "fp64" else ("fp64", "fp32")
        return [
            specification(model, self.at.optim, Runtime(precision=precision), self.precision, self.conventions)
            for precision in precisions
        ]

    def _compared(
        self, measure: Measure, everyone: Sequence[Impl] | None = None, at: Setting | None = None
    ) -> Iterator[Check]:
        """A check for each value that `measure` takes of everyone, who compute in turns."""
        streams = [measure(each, at or self.at) for each in everyone or self._everyone]
        for values in zip(*streams, strict=True):
            yield self._check(*values)

    def _check(self, found: Value, exact: Value, twin: Value | None = None) -> Check:
        share = spared(found.kind, self.precision)
        error = _compare(twin, exact, share).rel_err if twin else 0.0
        # a twin that overflows allows nothing
        tolerance = bound(found.kind, self.precision, error if math.isfinite(error) else 0.0)
        return replace(_compare(found, exact, share), tolerance=tolerance)

    def _names(self) -> Iterator[Check]:
        """L1: every weight there under its name, in its shape, as it was loaded; outputs in their shapes and precision."""
        model, probe, images = self.at.model, self.at.probe, self.at.shown
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
        outputs = self.impl.forward(images)
        for name, shape in _output_shapes(model, len(images)).items():
            note = _unlike(getattr(outputs, name, None), shape, self.precision)
            yield Check("L1", f"shape.{name}", math.inf if note else 0.0, bound("exact", self.precision), note=note)

    def _exactly(self, name: str, found: object, expected: object) -> Check:
        return compare("L1", name, found, expected, bound("exact", self.precision))

    def _capsules(self) -> Iterator[Check]:
        yield from self._compared(capsules)
        for iterations in self._routing:
            assert self._make is not None
            other = self.at.model.model_copy(update={"routing": iterations})
            everyone = [self._make(other), *self._specified(other)]
            yield from self._compared(routed, everyone, replace(self.at, model=other))

    def _one_batch(self) -> Iterator[Check]:
        return self._compared(one_batch)

    def _single_steps(self) -> Iterator[Check]:
        self._prepare()
        return self._compared(single_steps)

    def _trajectory(self) -> Iterator[Check]:
        return self._compared(trajectory)

    def _prepare(self) -> None:
        """Everyone staged and compiled."""
        for each in self._everyone[1:] if self._is_prepared else self._everyone:
            each.load(self.at.probe)
            each.stage(self.at.images, self.at.labels)
            each.compile(self.at.batch)


def _compare(found: Value, exact: Value, share: float) -> Check:
    """A movement is held to Adam's rule on the moments that it came with."""
    a, b = (found.value.found, found.value.rule) if isinstance(found.value, Moved) else (found.value, exact.value)
    return replace(compare(found.level, found.name, a, b, 1.0, share), kind=found.kind)


def _output_shapes(model: ModelSpec, count: int) -> dict[str, tuple[int, ...] | None]:
    """Of each output for `count` images; None where there is to be none."""
    if model.kind == "cnn":
        return {"digit": None, "probabilities": (count, model.classes), "coupling": None, "reconstruction": None}
    return {
        "digit": (count, model.classes, model.digit_dim),
        "lengths": (count, model.classes),
        "coupling": (count, model.primary_capsules, model.classes),
        "reconstruction": (count, *model.several, *model.image) if model.decoder else None,
    }


def _unlike(found: object, shape: tuple[int, ...] | None, precision: str) -> str | None:
    """What is wrong with an output that should have `shape`; None if nothing is."""
    if found is None or shape is None:
        return None if found is shape else f"missing, expected shape {shape}" if shape else "there, but not expected"
    array = np.asarray(found)
    if array.shape != shape:
        return f"shape {array.shape}, expected {shape}"
    wanted = ("float64",) if precision == "fp64" else ("float32", "float64")
    return None if array.dtype.name in wanted else f"{array.dtype.name}, expected {wanted[0]}"
