"""A user's model, built, matched and run: what its weights are and what its outputs mean."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.parity.ordinary.found import COUPLING, DIGIT, Found, Layers
from harness.parity.ordinary.framework import Built, build
from harness.parity.ordinary.layout import layouts
from harness.parity.ordinary.match import Match, located, match
from harness.parity.ordinary.roles import as_pixels, roles
from harness.parity.ordinary.source import Source, meaning, routing_attributes, takes_routing
from harness.spec import SQUASH_EPSILON, ModelSpec, Outputs
from harness.spec.network import Ran

DEFAULTS: dict[str, Any] = {
    "image": (28, 28, 1), "classes": 10, "routing": 3, "conv_channels": 256, "primary_types": 32, "primary_dim": 8,
    "digit_dim": 16, "kernel": 9, "decoder": True,
}  # fmt: skip
"""The paper's values, for required arguments that were not given."""
_OF_NO_SHAPE = ("routing", "profile", "decoder")
_DECODERS = ("reconstruct", "decode", "decoder", "reconstruction", "reconstruction_net", "reconstruction_layers")


class Examined:
    """A model, built and matched. `notes` tells the user what to know about how that was done."""

    def __init__(self, source: Source, precision: str, threads: int, found: Mapping[str, Any] | None = None) -> None:
        """`found` has keys of `ModelSpec` that an earlier examination found. Raises `UserError`.

        Raises `NotImplementedError` if it cannot make the requested number of routing iterations.
        """
        asked = source.sizes | dict(found or {})
        self.source, self.precision = source, precision
        if "routing" in asked:
            given = {key: asked["routing"] if meaning(key) == "routing" else v for key, v in source.arguments.items()}
            source = self.source = replace(source, arguments=given)
        known = DEFAULTS | source.sizes | {key: asked[key] for key in ("routing", "classes", "image") if key in asked}
        wanted = {*source.sizes, *({"routing", "classes"} & set(asked))}
        self.built: Built = build(source, known | {"asked": wanted}, precision, threads)
        self.network = self.built.network
        if "routing" in asked:
            self._set_routing(asked["routing"])
        sizes = {key: value for key, value in (source.sizes | dict(asked)).items() if key not in _OF_NO_SHAPE}
        if asked.get("decoder") is False:
            sizes.pop("decoder_units", None)
        self.match: Match = match(self.network, source.weights, sizes)
        self._layers: dict[int, Layers] = {}
        self.observed = len(self.match.layers.couplings)
        is_another = asked.get("routing", self.observed) not in (self.observed, source.sizes.get("routing"))
        if is_another and self.is_fixed and self.observed:
            raise NotImplementedError(
                f"it always makes {self.observed} routing iterations, and no argument changes that"
            )
        self.roles, self.unknown = self._roles()
        self.decode = None if "reconstruction" in self.roles or not self.match.reading.dense else self._decoder()

    @property
    def is_fixed(self) -> bool:
        """Whether the number of routing iterations can neither be set nor read."""
        return not takes_routing(self.built.made_by) and not routing_attributes(self.network.modules())

    def _set_routing(self, iterations: int) -> None:
        if takes_routing(self.built.made_by):
            return
        for module, name in routing_attributes(self.network.modules()):
            setattr(module, name, iterations)

    def declared_routing(self) -> int:
        """The number of iterations by an argument or attribute of the model; else the number observed."""
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

    def spec(self) -> ModelSpec:
        """The architecture: as requested, else as found."""
        sizes = self.match.reading.sizes | {"routing": self.declared_routing()} | self.source.sizes
        return ModelSpec.model_validate(sizes)

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C) -> 0..1."""
        return images.astype(np.float64 if self.precision == "fp64" else np.float32) / 255

    def run(self, pixels: np.ndarray, labels: np.ndarray | None = None, **options: Any) -> Ran:
        """A pass on pixels (B, H, W, C), with labels if they are given and the model takes them."""
        calling, reading = self.match.calling, self.match.reading
        arguments = calling.arguments(pixels, labels, reading.classes)
        then = None
        if self.decode is not None:
            then = self._then(self.decode, labels, len(pixels))
        return self.network.run(arguments, as_list=calling.as_list, then=then, **options)

    def guessed(self, pixels: np.ndarray) -> np.ndarray | None:
        """What to pass if there are no labels: None, or the classes of its own longest capsules if the model needs labels."""
        if not self.match.calling.needs_labels:
            return None
        return self.outputs(self.run(pixels, keep=self.watched(len(pixels))), len(pixels)).lengths.argmax(1)

    def layers(self, batch: int) -> Layers:
        """Where the layers are in a pass on `batch` images."""
        if self.match.is_fixed:
            return self.match.layers
        if batch not in self._layers:
            found, before = self.match, self.network.values()
            self._layers[batch] = located(self.network, found.reading, found.calling, found.biases, found.values, batch)
            self.network.assign(before)
        return self._layers[batch]

    def digit(self, batch: int) -> Found | None:
        return next(reversed(self.layers(batch).outputs), None)

    def coupling(self, batch: int) -> Found | None:
        return next(reversed(self.layers(batch).couplings), None)

    def watched(self, batch: int) -> list[int]:
        """The operations whose results the ladder compares."""
        return [each.index for each in (self.digit(batch), self.coupling(batch)) if each is not None]

    def sizes(self, batch: int) -> dict[str, int]:
        return self.match.layers.sizes | {"B": batch}

    def outputs(self, ran: Ran, batch: int) -> Outputs:
        """What the ladder compares, in its layouts. Raises `ValueError` if there are no digit capsules."""
        arrays = {name: self.network.numpy(tensor) for name, tensor in ran.outputs}
        found, _ = roles(list(arrays.items()), self.sizes(batch), self.match.reading.image)
        digit = self._digit(ran, arrays, found, batch)
        if digit is None:
            raise ValueError("its digit capsules are neither among its outputs nor seen on the way")
        lengths = (
            arrays[found["lengths"]].reshape(batch, -1)
            if "lengths" in found
            else np.sqrt(np.square(digit).sum(2) + SQUASH_EPSILON)
        )
        coupling = None
        seen = self.coupling(batch)
        if seen is not None and seen.index in ran.kept:
            coupling = seen.read(self.network.numpy(ran.kept[seen.index]), self.sizes(batch), COUPLING)
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
        seen = self.digit(batch)
        if seen is not None and seen.index in ran.kept:
            return seen.read(self.network.numpy(ran.kept[seen.index]), self.sizes(batch), DIGIT)
        if "digit" not in found:
            return None
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
        """A function of the model that makes pixels from capsules, if its forward pass does not, and how to call it."""
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
