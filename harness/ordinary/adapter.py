"""An ordinary model as the ladder wants it: the three functions of an adapter, with nothing written by its author."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.ordinary.framework import Built, build
from harness.ordinary.locate import COUPLING, DIGIT, Found
from harness.ordinary.losses import LossFunction, find_loss
from harness.ordinary.match import Match, match
from harness.ordinary.network import Ran
from harness.ordinary.roles import as_pixels, roles
from harness.ordinary.source import Source, load_file, meaning, routing_attributes, said, takes_routing
from harness.spec import SQUASH_EPSILON, Loss, ModelSpec, OptimSpec, Outputs, Runtime, Weights

DEFAULTS: dict[str, Any] = {
    "image": (28, 28, 1), "classes": 10, "routing": 3, "conv_channels": 256, "primary_types": 32, "primary_dim": 8,
    "digit_dim": 16, "kernel": 9, "decoder": True,
}  # fmt: skip
"""The paper's, for arguments that a model needs and nobody gave."""
_DECODERS = ("reconstruct", "decode", "decoder", "reconstruction", "reconstruction_net", "reconstruction_layers")


class Examined:
    """A model built and matched. `notes` tells what a person should know of how that was done."""

    def __init__(self, source: Source, precision: str, threads: int, asked: Mapping[str, Any]) -> None:
        """`asked` has keys of `ModelSpec` that are given, not found. Raises `UserError`."""
        self.source, self.precision = source, precision
        if "routing" in asked:
            given = {key: asked["routing"] if meaning(key) == "routing" else v for key, v in source.arguments.items()}
            source = self.source = replace(source, arguments=given)
        wanted = tuple(key for key in ("routing", "classes") if key in asked or key not in source.arguments)
        self.built: Built = build(
            source, DEFAULTS | dict(asked) | {"asked": _arguments(wanted, asked)}, precision, threads
        )
        self.network = self.built.network
        if "routing" in asked:
            self._set_routing(asked["routing"])
        sizes = {
            key: value for key, value in asked.items() if key not in ("routing", "profile", "decoder", "decoder_units")
        }
        self.match: Match = match(self.network, source.weights, sizes)
        self.observed = len(self.match.layers.couplings)
        if "routing" in asked and self._is_fixed and self.observed and self.observed != asked["routing"]:
            raise NotImplementedError(
                f"it always makes {self.observed} routing iterations, and no argument changes that"
            )
        self.roles, self.unknown = self._roles()
        self.decode = None if "reconstruction" in self.roles or not self.match.reading.dense else self._decoder()
        self.is_compiled = self.network.is_compiled and not source.loss
        self.own_loss, self.why_no_loss = (None, "") if self.is_compiled else self._loss()
        if self.own_loss is not None and not source.loss:
            self._keep_if_callable()

    @property
    def _is_fixed(self) -> bool:
        return not takes_routing(self.built.made_by) and not routing_attributes(self.network.modules())

    def _set_routing(self, iterations: int) -> None:
        if takes_routing(self.built.made_by):
            return
        for module, name in routing_attributes(self.network.modules()):
            setattr(module, name, iterations)

    def declared_routing(self) -> int:
        """What the model says of its number of iterations: an argument, an attribute; else what it was seen to make."""
        for key, value in self.source.arguments.items():
            if meaning(key) == "routing" and isinstance(value, int):
                return value
        if takes_routing(self.built.made_by):
            for key, parameter in inspect.signature(self.built.made_by).parameters.items():
                if meaning(key) == "routing":
                    return parameter.default if isinstance(parameter.default, int) else DEFAULTS["routing"]
        for module, name in routing_attributes(self.network.modules()):
            return int(getattr(module, name))
        return self.observed or DEFAULTS["routing"]

    def spec(self, overrides: Mapping[str, Any]) -> ModelSpec:
        """The architecture as found, `overrides` before all."""
        sizes = {key: value for key, value in self.match.reading.sizes.items()}
        return ModelSpec(**(sizes | {"routing": self.declared_routing()} | dict(overrides)))

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C) -> 0..1."""
        return images.astype(np.float64 if self.precision == "fp64" else np.float32) / 255

    def run(self, pixels: np.ndarray, labels: np.ndarray | None = None, **options: Any) -> Ran:
        """A pass on pixels (B, H, W, C), with labels where the model takes them and they are given."""
        calling, reading = self.match.calling, self.match.reading
        arguments = calling.arguments(pixels, labels, reading.classes)
        then = None
        if self.decode is not None:
            then = self._then(self.decode, labels, len(pixels))
        return self.network.run(arguments, as_list=calling.as_list, then=then, **options)

    def guessed(self, pixels: np.ndarray) -> np.ndarray | None:
        """What to pass as labels where there are none: None, or its own longest capsules where the model needs some."""
        if not self.match.calling.needs_labels:
            return None
        return self.outputs(self.run(pixels, keep=self.watched), len(pixels)).lengths.argmax(1)

    @property
    def digit(self) -> Found | None:
        return self.match.layers.outputs[-1] if self.match.layers.outputs else None

    @property
    def coupling(self) -> Found | None:
        return self.match.layers.couplings[-1] if self.match.layers.couplings else None

    @property
    def watched(self) -> list[int]:
        return [each.index for each in (self.digit, self.coupling) if each is not None]

    def sizes(self, batch: int) -> dict[str, int]:
        return self.match.layers.sizes | {"B": batch}

    def outputs(self, ran: Ran, batch: int) -> Outputs:
        """What the ladder compares, in its layouts. Raises `ValueError` where there are no digit capsules."""
        arrays = {name: self.network.numpy(tensor) for name, tensor in ran.outputs}
        found, _ = roles(list(arrays.items()), self.sizes(batch), self.match.reading.image)
        digit = self._digit(ran, arrays, found, batch)
        if digit is None:
            raise ValueError("its digit capsules are neither among its outputs nor seen on the way")
        lengths = arrays[found["lengths"]].reshape(batch, -1) if "lengths" in found else np.sqrt(
            np.square(digit).sum(2) + SQUASH_EPSILON
        )  # fmt: skip
        coupling = None
        if self.coupling is not None and self.coupling.index in ran.kept:
            kept = _resized(self.coupling, batch, self.sizes(batch))
            coupling = kept.read(self.network.numpy(ran.kept[self.coupling.index]), self.sizes(batch), COUPLING)
            coupling = coupling[:, self.match.rows]
        reconstruction = None
        if "reconstruction" in found and self.match.reading.dense:
            reconstruction = as_pixels(
                arrays[found["reconstruction"]], self.match.reading.image, self.match.calling.channels_first
            )
        return Outputs(digit, lengths, coupling, reconstruction)

    def _digit(
        self, ran: Ran, arrays: Mapping[str, np.ndarray], found: Mapping[str, str], batch: int
    ) -> np.ndarray | None:
        if self.digit is not None and self.digit.index in ran.kept:
            seen = _resized(self.digit, batch, self.sizes(batch))
            return seen.read(self.network.numpy(ran.kept[self.digit.index]), self.sizes(batch), DIGIT)
        if "digit" not in found:
            return None
        from harness.ordinary.layout import layouts

        array = arrays[found["digit"]]
        sizes = {name: self.sizes(batch)[name] for name in DIGIT}
        return next(layouts(array.shape, sizes)).arrange(array, sizes, DIGIT)

    def _roles(self) -> tuple[dict[str, str], list[str]]:
        reading, batch = self.match.reading, self.match.layers.sizes["B"]
        self.decode = None
        ran = self.run(np.random.default_rng(2).uniform(0, 1, (batch, *reading.image)))
        arrays = [(name, self.network.numpy(tensor)) for name, tensor in ran.outputs]
        return roles(arrays, self.match.layers.sizes, reading.image)

    def _decoder(self) -> tuple[Callable[..., Any], str] | None:
        """A function of the model that makes pixels of capsules, where its forward does not, and how that is called."""
        batch, reading = self.match.layers.sizes["B"], self.match.reading
        images = np.random.default_rng(2).uniform(0, 1, (batch, *reading.image))
        for name in _DECODERS:
            function = getattr(self.network.model, name, None)
            if not callable(function):
                continue
            for way in ("one-hot", "classes", "masked", "masked flat"):
                self.decode = (function, way)
                try:
                    ran = self.run(images, np.zeros(batch, np.int64))
                except Exception:
                    continue
                made = [tensor for name, tensor in ran.outputs if name.startswith("decoder")]
                if made and math.prod(made[0].shape) == batch * math.prod(reading.image):
                    return function, way
        self.decode = None
        return None

    def _then(self, decode: tuple[Callable[..., Any], str], labels: np.ndarray | None, batch: int) -> Any:
        function, way = decode
        sizes = self.sizes(batch)

        def call(outputs: list[tuple[str, Any]]) -> Any:
            arrays = [(name, self.network.numpy(tensor)) for name, tensor in outputs]
            found, _ = roles(arrays, sizes, self.match.reading.image)
            digit = dict(outputs)[found["digit"]] if "digit" in found else None
            if digit is None:
                raise ValueError("its decoder is a part of its own, and its forward returns no digit capsules")
            capsules = dict(arrays)[found["digit"]].reshape(batch, sizes["J"], -1)
            classes = np.square(capsules).sum(2).argmax(1) if labels is None else labels
            present = self.network.tensor(np.eye(sizes["J"])[classes])
            if way == "one-hot":
                return function(digit, present)
            if way == "classes":
                return function(digit, self.network.tensor(classes.astype(np.int64)))
            return function(self.network.masked(digit, present, flat=way.endswith("flat")))

        return call

    def _loss(self) -> tuple[LossFunction | None, str]:
        def load(option: str) -> tuple[ModuleType, str]:
            where, _, name = option.rpartition(":")
            return load_file(where, Path(self.source.cwd), self.built.module.names, "--loss"), name

        needs_whole = "reconstruction" in self.roles or self.decode is not None
        return find_loss(
            self.network.model, self.built.file, self.source.loss, self.source.loss_arguments, needs_whole, load,
            lambda found: isinstance(found, type) and isinstance(self.network.model, found) or self.built.module.is_network(found),
        )  # fmt: skip

    def _keep_if_callable(self) -> None:
        """A loss that was found, not asked for, and cannot be called is none."""
        batch, reading = self.match.layers.sizes["B"], self.match.reading
        images = np.random.default_rng(2).uniform(0, 1, (batch, *reading.image))
        try:
            self.terms(images, np.arange(batch) % reading.classes)[0]()
        except Exception as error:
            self.why_no_loss, self.own_loss = str(error).removeprefix("--loss: "), None

    def terms(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Sequence[Any]], str]:
        """What gives the loss, as tensors, and whose it is: "own" (its total alone), or "specified"."""
        batch = len(pixels)
        images = self.network.tensor(self.match.calling.pixels(pixels))
        present = self.network.tensor(np.eye(self.match.reading.classes)[labels])
        classes = self.network.tensor(labels.astype(np.int64))

        def parts() -> tuple[Ran, dict[str, list[Any]]]:
            ran = self.run(pixels, labels, training=True, keep=self.watched)
            tensors = dict(ran.outputs)
            arrays = [(name, self.network.numpy(tensor)) for name, tensor in ran.outputs]
            found, _ = roles(arrays, self.sizes(batch), self.match.reading.image)
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
            digit = have["output"][0] if "digit" in self.roles else ran.kept[self.digit.index] if self.digit else None
            if digit is None:
                raise ValueError("its digit capsules are neither among its outputs nor seen on the way")
            axes = self._digit_axes(digit, batch)
            reconstruction = next(iter(have["reconstruction"]), None) if self.match.reading.dense else None
            return self.network.specified_loss(axes, reconstruction, images, present)

        def own() -> Sequence[Any]:
            assert self.own_loss is not None
            _, have = parts()
            arguments = self._assigned(have, specified)
            value = self.built.network.apply(self.own_loss.function, **self.own_loss.constants, **arguments(have))
            return [_scalar(value)]

        def compiled() -> Sequence[Any]:
            ran, have = parts()
            targets = {
                self.roles.get("reconstruction"): images,
                **{self.roles.get(key): present for key in ("lengths", "digit")},
            }
            known = [(tensor, targets[name]) for name, tensor in ran.outputs if name in targets]
            if len(known) < len(ran.outputs):
                raise ValueError(f"outputs without a meaning have no target: {', '.join(self.unknown)}")
            shaped = [self.network.arranged(to, tuple(of.shape), range(len(of.shape))) for of, to in known]
            return [_scalar(self.network.compiled_loss([tensor for tensor, _ in known], shaped))]

        if self.is_compiled:
            return compiled, "own"
        return (own, "own") if self.own_loss is not None else (specified, "specified")

    def _digit_axes(self, digit: Any, batch: int) -> Any:
        from harness.ordinary.layout import layouts

        sizes = {name: self.sizes(batch)[name] for name in DIGIT}
        layout = next(layouts(tuple(digit.shape), sizes))
        return self.network.arranged(
            digit, [sizes[name] for name in layout.names], [layout.names.index(n) for n in DIGIT]
        )

    def _assigned(self, have: Mapping[str, list[Any]], specified: Callable[[], Sequence[Any]]) -> Any:
        """Which of what there is each argument gets: the first assignment that works and is nearest to the specification."""
        if (known := getattr(self, "_assignment", None)) is None:
            assert self.own_loss is not None
            expected = float(self.network.numpy(specified()[0]))
            options: list[tuple[float, int, dict[str, tuple[str, int]]]] = []
            failure = "nothing that the model returns fits its arguments"
            indexed = {role: [(role, number) for number in range(len(values))] for role, values in have.items()}
            for number, places in enumerate(self.own_loss.assignments(indexed)):
                arguments = {key: have[role][index] for key, (role, index) in places.items()}
                try:
                    value = _scalar(self.network.apply(self.own_loss.function, **self.own_loss.constants, **arguments))
                    found = float(self.network.numpy(value))
                except Exception as error:
                    failure = said(error)
                    continue
                options.append((abs(found - expected) if math.isfinite(found) else math.inf, number, places))
            if not options:
                raise UserError(f"--loss: {self.own_loss.name} cannot be called: {failure}")
            known = self._assignment = min(options, key=lambda each: each[:2])[2]
        return lambda values: {key: values[role][index] for key, (role, index) in known.items()}


class Ordinary:
    """See `harness.registry.ADAPTER`; the model is the one that `Source.from_environment` names."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        asked = {
            key: getattr(model, key)
            for key in (
                "image",
                "classes",
                "routing",
                "conv_channels",
                "primary_types",
                "primary_dim",
                "digit_dim",
                "kernel",
            )
        }
        self.examined = Examined(Source.from_environment(), runtime.precision, runtime.threads, asked)
        self.model = model

    def load(self, weights: Weights) -> None:
        self.examined.network.assign(self.examined.match.spread(weights))

    def forward(self, images: np.ndarray) -> Outputs:
        examined = self.examined
        pixels = examined.pixels(images)
        ran = examined.run(pixels, examined.guessed(pixels), keep=examined.watched)
        found = examined.outputs(ran, len(images))
        return found if self.model.decoder else Outputs(found.digit, found.lengths, found.coupling, None)

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        """Of the model's own loss its total alone; without one, of the specification's, on the model's outputs."""
        examined = self.examined
        terms, whose = examined.terms(examined.pixels(images), np.asarray(labels))
        values, grads = examined.network.differentiate(terms)
        loss = Loss(values[0]) if whose == "own" else Loss(*values)
        return loss, examined.match.gather(grads)


def _arguments(keys: Sequence[str], asked: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key in keys if key in asked)


def _resized(found: Found, batch: int, sizes: Mapping[str, int]) -> Found:
    """The same result of a pass on another number of images."""
    from harness.ordinary.layout import Layout

    sizes = dict(sizes) | {"B": batch}
    coarse = tuple(math.prod(sizes[name] for name in group) for group in found.layout.groups)
    return Found(found.index, coarse, Layout(coarse, found.layout.groups), found.shared)


def _scalar(value: Any) -> Any:
    """The total of what a loss function returned: a number, or the first of several."""
    if isinstance(value, Mapping):
        value = next(iter(value.values()))
    if isinstance(value, (list, tuple)):
        value = value[0]
    if math.prod(value.shape) != 1:
        raise ValueError(f"a loss of shape {tuple(value.shape)}")
    return value.reshape(()) if hasattr(value, "reshape") else value
