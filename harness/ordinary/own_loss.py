"""The loss of an examined model: its own, as it is called, or the specification's on the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.ordinary.examined import Examined
from harness.ordinary.found import DIGIT
from harness.ordinary.layout import layouts
from harness.ordinary.losses import LossFunction, find_loss
from harness.ordinary.network import Ran
from harness.ordinary.roles import roles
from harness.ordinary.source import load_file, said


class OwnLoss:
    """What of a loss an examined model has. Raises `UserError` where the one asked for is not there, or cannot be called."""

    def __init__(self, examined: Examined) -> None:
        self.examined = examined
        self._assignment: dict[str, tuple[str, int]] | None = None
        is_named = bool(examined.source.loss)
        self.is_compiled: bool = examined.network.is_compiled and not is_named
        self.own_loss, self.why_no_loss = (None, "") if self.is_compiled else self._found()
        if self.own_loss is not None and not is_named:
            self._keep_if_callable()

    def _found(self) -> tuple[LossFunction | None, str]:
        def load(option: str) -> tuple[ModuleType, str]:
            where, _, name = option.rpartition(":")
            return load_file(where, Path(self.examined.source.cwd), self.examined.built.module.names, "--loss"), name

        needs_whole = "reconstruction" in self.examined.roles or self.examined.decode is not None
        return find_loss(
            self.examined.network.model, self.examined.built.file, self.examined.source.loss, self.examined.source.loss_arguments, needs_whole, load,
            lambda found: (isinstance(found, type) and isinstance(self.examined.network.model, found)) or self.examined.built.module.is_network(found),
        )  # fmt: skip

    def _keep_if_callable(self) -> None:
        """A loss that was found, not asked for, and cannot be called is none."""
        batch, reading = self.examined.match.layers.sizes["B"], self.examined.match.reading
        images = np.random.default_rng(2).uniform(0, 1, (batch, *reading.image))
        try:
            self.terms(images, np.arange(batch) % reading.classes)[0]()
        except Exception as error:
            self.why_no_loss, self.own_loss = str(error).removeprefix("--loss: "), None

    def terms(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Sequence[Any]], str]:
        """What gives the loss, as tensors, and whose it is: "own" (its total alone), or "specified"."""
        batch = len(pixels)
        images = self.examined.network.tensor(self.examined.match.calling.pixels(pixels))
        present = self.examined.network.tensor(np.eye(self.examined.match.reading.classes)[labels])
        classes = self.examined.network.tensor(labels.astype(np.int64))

        def parts() -> tuple[Ran, dict[str, list[Any]]]:
            ran = self.examined.run(pixels, labels, training=True, keep=self.examined.watched)
            tensors = dict(ran.outputs)
            arrays = [(name, self.examined.network.numpy(tensor)) for name, tensor in ran.outputs]
            found, _ = roles(arrays, self.examined.sizes(batch), self.examined.match.reading.image)
            output = [tensors[found[role]] for role in ("digit", "lengths") if role in found]
            reconstruction = [tensors[found["reconstruction"]]] if "reconstruction" in found else []
            have = {
                "images": [images],
                "labels": [present, classes],
                "output": output,
                "reconstruction": reconstruction,
            }
            if "loss" in found:
                have["loss"] = [tensors[found["loss"]]]
            return ran, have

        def specified() -> Sequence[Any]:
            ran, have = parts()
            digit = (
                have["output"][0]
                if "digit" in self.examined.roles
                else ran.kept[self.examined.digit.index]
                if self.examined.digit
                else None
            )
            if digit is None:
                raise ValueError("its digit capsules are neither among its outputs nor seen on the way")
            axes = self._digit_axes(digit, batch)
            reconstruction = next(iter(have["reconstruction"]), None) if self.examined.match.reading.dense else None
            return self.examined.network.specified_loss(axes, reconstruction, images, present)

        def own() -> Sequence[Any]:
            assert self.own_loss is not None
            _, have = parts()
            arguments = self._assigned(have, specified)
            value = self.examined.built.network.apply(
                self.own_loss.function, **self.own_loss.constants, **arguments(have)
            )
            return [_scalar(value)]

        def compiled() -> Sequence[Any]:
            ran, _ = parts()
            targets = {
                self.examined.roles.get("reconstruction"): images,
                **{self.examined.roles.get(key): present for key in ("lengths", "digit")},
            }
            known = [(tensor, targets[name]) for name, tensor in ran.outputs if name in targets]
            if len(known) < len(ran.outputs):
                raise ValueError(f"outputs without a meaning have no target: {', '.join(self.examined.unknown)}")
            shaped = [self.examined.network.arranged(to, tuple(of.shape), range(len(of.shape))) for of, to in known]
            return [_scalar(self.examined.network.compiled_loss([tensor for tensor, _ in known], shaped))]

        if self.is_compiled:
            return compiled, "own"
        return (own, "own") if self.own_loss is not None else (specified, "specified")

    def _digit_axes(self, digit: Any, batch: int) -> Any:
        sizes = {name: self.examined.sizes(batch)[name] for name in DIGIT}
        layout = next(layouts(tuple(digit.shape), sizes))
        return self.examined.network.arranged(
            digit, [sizes[name] for name in layout.names], [layout.names.index(n) for n in DIGIT]
        )

    def _assigned(self, have: Mapping[str, list[Any]], specified: Callable[[], Sequence[Any]]) -> Any:
        """Which of what there is each argument gets: the first assignment that works and is nearest to the specification."""
        if (known := self._assignment) is None:
            assert self.own_loss is not None
            expected = float(self.examined.network.numpy(specified()[0]))
            options: list[tuple[float, int, dict[str, tuple[str, int]]]] = []
            failure = "nothing that the model returns fits its arguments"
            indexed = {role: [(role, number) for number in range(len(values))] for role, values in have.items()}
            for number, places in enumerate(self.own_loss.assignments(indexed)):
                arguments = {key: have[role][index] for key, (role, index) in places.items()}
                try:
                    value = _scalar(
                        self.examined.network.apply(self.own_loss.function, **self.own_loss.constants, **arguments)
                    )
                    found = float(self.examined.network.numpy(value))
                except Exception as error:
                    failure = said(error)
                    continue
                options.append((abs(found - expected) if math.isfinite(found) else math.inf, number, places))
            if not options:
                raise UserError(f"--loss: {self.own_loss.name} cannot be called: {failure}")
            known = self._assignment = min(options, key=lambda each: each[:2])[2]
        return lambda values: {key: values[role][index] for key, (role, index) in known.items()}


def _scalar(value: Any) -> Any:
    """The total of what a loss function returned: a number, or the first of several."""
    if isinstance(value, Mapping):
        value = next(iter(value.values()))
    if isinstance(value, (list, tuple)):
        value = value[0]
    if math.prod(value.shape) != 1:
        raise ValueError(f"a loss of shape {tuple(value.shape)}")
    return value.reshape(()) if hasattr(value, "reshape") else value
