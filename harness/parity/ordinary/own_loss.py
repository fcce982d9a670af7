"""The loss of an examined model: its own, or the specification's on the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from harness.errors import UserError
from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.found import DIGIT
from harness.parity.ordinary.layout import layouts
from harness.parity.ordinary.losses import LossFunction, find_loss
from harness.parity.ordinary.roles import roles
from harness.parity.ordinary.source import load_file, said
from harness.spec.network import Ran

Places = dict[str, tuple[str, int]]
"""A loss function's argument -> the kind of value that it gets, and the index within that kind."""


class Batch:
    """Images and labels as the framework's tensors, and the results of a pass on them."""

    def __init__(self, examined: Examined, pixels: np.ndarray, labels: np.ndarray) -> None:
        network, match = examined.network, examined.match
        self.examined, self.pixels, self.labels = examined, pixels, labels
        self.images = network.tensor(match.calling.pixels(pixels))
        self.present = network.tensor(np.eye(match.reading.classes)[labels])
        self.classes = network.tensor(labels.astype(np.int64))

    def run(self) -> tuple[Ran, dict[str, list[Any]]]:
        """A training pass, and the values that a loss may need, by kind."""
        examined = self.examined
        ran = examined.run(self.pixels, self.labels, training=True, keep=examined.watched(len(self.pixels)))
        tensors = dict(ran.outputs)
        arrays = [(name, examined.network.numpy(tensor)) for name, tensor in ran.outputs]
        found, _ = roles(arrays, examined.sizes(len(self.pixels)), examined.match.reading.image)

        def of(*kinds: str) -> list[Any]:
            return [tensors[found[kind]] for kind in kinds if kind in found]

        return ran, {
            "images": [self.images],
            "labels": [self.present, self.classes],
            "output": of("digit", "lengths"),
            "digit": of("digit"),
            "lengths": of("lengths"),
            "reconstruction": of("reconstruction"),
            "loss": of("loss"),
        }


class OwnLoss:
    """The loss of an examined model, if it has one. Raises `UserError` if the requested one does not exist."""

    def __init__(self, examined: Examined) -> None:
        self.examined = examined
        self._places: Places | None = None
        is_named = bool(examined.source.loss)
        self.is_compiled: bool = examined.network.is_compiled and not is_named
        batch, reading = examined.match.layers.sizes["B"], examined.match.reading
        images = np.random.default_rng(2).uniform(0, 1, (batch, *reading.image))
        trial = Batch(examined, images, np.arange(batch) % reading.classes)
        self.is_returned = not is_named and not self.is_compiled and bool(trial.run()[1]["loss"])
        has_one = self.is_compiled or self.is_returned
        self.own_loss, self.why_no_loss = (None, "") if has_one else self._found()
        if self.own_loss is not None and not is_named:
            try:
                self._own(trial)
            except Exception as error:  # a loss that was not requested and cannot be called is ignored
                self.why_no_loss, self.own_loss = str(error).removeprefix("--loss: "), None

    def _found(self) -> tuple[LossFunction | None, str]:
        source, built, network = self.examined.source, self.examined.built, self.examined.network

        def load(option: str) -> tuple[ModuleType, str]:
            where, _, name = option.rpartition(":")
            return load_file(where, Path(source.cwd), built.module.names, "--loss"), name

        needs_whole = "reconstruction" in self.examined.roles or self.examined.decode is not None
        return find_loss(
            network.model, built.file, source.loss, source.loss_arguments, needs_whole, load, built.module.is_network
        )

    def terms(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Sequence[Any]], str]:
        """A function that returns the loss as tensors, and which loss it is: "own" (the total only) or "specified"."""
        batch = Batch(self.examined, pixels, labels)
        if self.is_compiled:
            return lambda: self._compiled(batch), "own"
        if self.is_returned:
            return lambda: [_scalar(batch.run()[1]["loss"][0])], "own"
        if self.own_loss is not None:
            return lambda: self._own(batch), "own"
        return lambda: self._specified(batch), "specified"

    def _specified(self, batch: Batch) -> Sequence[Any]:
        examined = self.examined
        ran, have = batch.run()
        digit = next(iter(have["digit"]), None)
        seen = examined.digit(len(batch.pixels))
        if digit is None and seen is not None:
            digit = ran.kept.get(seen.index)
        if digit is None:
            raise ValueError("its digit capsules are neither among its outputs nor seen on the way")
        sizes = {name: examined.sizes(len(batch.pixels))[name] for name in DIGIT}
        layout = next(layouts(tuple(digit.shape), sizes))
        order = [layout.names.index(name) for name in DIGIT]
        capsules = examined.network.arranged(digit, [sizes[name] for name in layout.names], order)
        lengths = next(iter(have["lengths"]), None)
        reconstruction = next(iter(have["reconstruction"]), None) if examined.match.reading.dense else None
        return examined.network.specified_loss(capsules, lengths, reconstruction, batch.images, batch.present)

    def _compiled(self, batch: Batch) -> Sequence[Any]:
        ran, _ = batch.run()
        meanings = {name: role for role, name in self.examined.roles.items()}
        targets = {"reconstruction": batch.images, "lengths": batch.present, "digit": batch.present}
        known = [(tensor, targets[meanings[name]]) for name, tensor in ran.outputs if meanings.get(name) in targets]
        if len(known) < len(ran.outputs):
            raise ValueError(f"outputs without a meaning have no target: {', '.join(self.examined.unknown)}")
        shaped = [self.examined.network.arranged(to, tuple(of.shape), range(len(of.shape))) for of, to in known]
        return [_scalar(self.examined.network.compiled_loss([tensor for tensor, _ in known], shaped))]

    def _own(self, batch: Batch) -> Sequence[Any]:
        if self._places is None:
            self._places = self._assigned(batch)
        return [self._called(batch.run()[1], self._places)]

    def _called(self, have: Mapping[str, list[Any]], places: Places) -> Any:
        assert self.own_loss is not None
        arguments = {key: have[kind][index] for key, (kind, index) in places.items()}
        return _scalar(self.examined.network.apply(self.own_loss.function, **self.own_loss.constants, **arguments))

    def _assigned(self, batch: Batch) -> Places:
        """The value for each argument: of the assignments that work, the one closest to the specification."""
        assert self.own_loss is not None
        number, have = self.examined.network.numpy, batch.run()[1]
        expected = float(number(self._specified(batch)[0]))
        failure, best = "nothing that the model returns fits its arguments", (math.inf, Places())
        indexed = {kind: [(kind, each) for each in range(len(values))] for kind, values in have.items()}
        for places in self.own_loss.assignments(indexed):
            try:
                found = float(number(self._called(have, places)))
            except Exception as error:
                failure = said(error)
                continue
            distance = abs(found - expected) if math.isfinite(found) else 1e300
            best = min(best, (distance, places), key=lambda each: each[0])
        if not best[1]:
            raise UserError(f"--loss: {self.own_loss.name} cannot be called: {failure}")
        return best[1]


def _scalar(value: Any) -> Any:
    """The total in what a loss function returned: a number, or the first of several."""
    if isinstance(value, Mapping):
        value = next(iter(cast("Mapping[str, Any]", value).values()))
    if isinstance(value, (list, tuple)):
        value = cast("Sequence[Any]", value)[0]
    shape: tuple[int, ...] = tuple(value.shape)
    if math.prod(shape) != 1:
        raise ValueError(f"a loss of shape {shape}")
    return value if shape == () else value[(0,) * len(shape)]
