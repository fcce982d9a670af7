"""Which of a model's tensors is which weight, found by shape, permutation and effect; converts weights both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.parity.ordinary.architecture import Candidate, candidates, canonical_shape, told
from harness.parity.ordinary.calling import Calling, find_calling, fits
from harness.parity.ordinary.found import Layers
from harness.parity.ordinary.layout import Layout, layouts
from harness.parity.ordinary.locate import locate
from harness.spec import Weights
from harness.spec.network import Network, Parameter

_DIGIT = ("I", "J", "d", "e")
_BATCHES = (5, 7, 11, 13, 17)


@dataclass(frozen=True)
class Match:
    """The result of matching. `channels[k]` is the model's number for canonical primary channel k, `rows[i]` for capsule i."""

    reading: Candidate
    calling: Calling
    layers: Layers
    digit_w: Layout
    biases: dict[str, Parameter]  # name of the weights -> their bias
    channels: np.ndarray
    rows: np.ndarray
    grouping: str  # "right", "wrong" or "unknown"
    extra: tuple[Parameter, ...]
    values: dict[str, np.ndarray]  # the parameters used for matching
    is_fixed: bool  # whether layers are at the same operations for any number of images

    @property
    def sizes(self) -> dict[str, int]:
        return {name: self.layers.sizes[name] for name in _DIGIT}

    def _layers(self) -> list[tuple[str, Parameter]]:
        dense = [(f"dec{number}", each) for number, each in enumerate(self.reading.dense, start=1)]
        return [("conv1", self.reading.conv1), *dense]

    def spread(self, weights: Weights) -> dict[str, np.ndarray]:
        """Converts canonical weights to the model's own tensors; leaves out those that it lacks."""
        found: dict[str, np.ndarray] = {}
        for layer, parameter in self._layers():
            found[parameter.name] = weights[f"{layer}.w"].transpose(np.argsort(parameter.order))
            if bias := self.biases.get(parameter.name):
                found[bias.name] = weights[f"{layer}.b"].reshape(bias.shape)
        if self.reading.dense and self.calling.channels_first:  # pixels
            self._pixels(found, to_own=True)
        own_channels = np.argsort(self.channels)
        kernels = np.split(weights["primary.w"][..., own_channels], len(self.reading.primary), axis=3)
        offsets = np.split(weights["primary.b"][own_channels], len(self.reading.primary))
        for parameter, kernel, offset in zip(self.reading.primary, kernels, offsets, strict=True):
            found[parameter.name] = kernel.transpose(np.argsort(parameter.order))
            if bias := self.biases.get(parameter.name):
                found[bias.name] = offset.reshape(bias.shape)
        matrices = np.empty_like(weights["digit.w"])
        matrices[self.rows] = weights["digit.w"]
        digit = self.reading.digit
        found[digit.name] = self.digit_w.restore(matrices, self.sizes, _DIGIT).reshape(digit.shape)
        return found

    def gather(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """The model's own tensors, or some of their gradients, under the canonical names."""
        own, found = dict(arrays), Weights()
        if self.reading.dense and self.calling.channels_first:
            self._pixels(own, to_own=False)
        for layer, parameter in self._layers()[:1]:
            self._one(found, own, layer, parameter)
        names = [each.name for each in self.reading.primary]
        if all(name in own for name in names):
            kernels = [own[each.name].transpose(each.order) for each in self.reading.primary]
            found["primary.w"] = np.concatenate(kernels, axis=3)[..., self.channels]
        offsets = [self.biases.get(name) for name in names]
        if all(each is not None and each.name in own for each in offsets):
            flat = [own[each.name].reshape(-1) for each in offsets if each is not None]
            found["primary.b"] = np.concatenate(flat)[self.channels]
        digit = self.reading.digit
        if digit.name in own:
            found["digit.w"] = self.digit_w.arrange(own[digit.name], self.sizes, _DIGIT)[self.rows]
        for layer, parameter in self._layers()[1:]:
            self._one(found, own, layer, parameter)
        return found

    def _one(self, found: Weights, own: Mapping[str, np.ndarray], layer: str, parameter: Parameter) -> None:
        if parameter.name in own:
            found[f"{layer}.w"] = own[parameter.name].transpose(parameter.order)
        bias = self.biases.get(parameter.name)
        if bias and bias.name in own:
            found[f"{layer}.b"] = own[bias.name].reshape(-1)

    def _pixels(self, arrays: dict[str, np.ndarray], *, to_own: bool) -> None:
        """Reorders the last dense layer's units between (y, x, channel) and the model's (channel, y, x)."""
        height, width, channels = self.reading.image
        if channels == 1:
            return
        order = np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1).ravel()
        order = order if to_own else np.argsort(order)
        last = self.reading.dense[2]
        axis = last.order.index(1) if last.order else 1
        bias = self.biases.get(last.name)
        for name, along in ((last.name, list(last.order).index(1) if last.order else axis), (bias and bias.name, 0)):
            if name in arrays:
                arrays[name] = np.take(arrays[name], order, axis=along)

    def table(self) -> list[tuple[str, str, str]]:
        """(canonical name, the model's name, how) for each weight, then the model's remaining tensors."""
        rows: list[tuple[str, str, str]] = []
        spelled: dict[tuple[int, ...], str] = {
            (0, 1, 2, 3): "y x in out",
            (2, 3, 1, 0): "out in y x",
            (0, 1): "in out",
            (1, 0): "out in",
        }
        for layer, parameters in (
            ("conv1", (self.reading.conv1,)),
            ("primary", self.reading.primary),
            ("digit", (self.reading.digit,)),
            *((f"dec{number}", (each,)) for number, each in enumerate(self.reading.dense, start=1)),
        ):
            first = parameters[0]
            own = first.name if len(parameters) == 1 else f"{first.name} ... {parameters[-1].name} ({len(parameters)})"
            how = f"{first.shape} = ({spelled.get(first.order, '')})"
            if layer == "digit":
                how = self.digit_w.said(first.shape)
                how += ", by effect" if self.layers.is_verified else ", by shape alone"
            if layer == "primary":
                how += {
                    "right": ", order of capsules by effect",
                    "unknown": ", order of capsules not found",
                    "wrong": ", capsules of neighbouring places or of other channels: numbered as they are",
                }[self.grouping]
            rows.append((f"{layer}.w", own, how))
            if layer == "digit":
                continue
            bias = self.biases.get(first.name)
            rows.append((f"{layer}.b", bias.name if bias else "-", str(bias.shape) if bias else "the model has none"))
        rows += [
            ("-", each.name, f"{each.shape}: no weight of the specification, left as it is") for each in self.extra
        ]
        return rows


def match(network: Network, named: Mapping[str, str], asked: Mapping[str, Any], seed: int = 1) -> Match:
    """Matches the model, on drawn parameters and images; the model keeps these parameters.

    Raises `UserError` if the model is not the paper's network, or cannot be called.
    """
    parameters = network.parameters()
    original = network.values()
    found = candidates(parameters, named, asked)
    batch = next(size for size in _BATCHES if size not in _sizes_of(found[0]))
    calling, reading = _called(network, found, batch)
    used = {each.name for each in (reading.conv1, *reading.primary, reading.digit, *reading.dense)}
    biases = {each.of: each for each in parameters if each.kind == "bias" and each.of in used}
    used |= {each.name for each in biases.values()}
    extra = tuple(each for each in parameters if each.name not in used)
    generator = np.random.default_rng(seed)
    values = {each.name: _drawn(generator, each) for each in parameters if each.name in used}
    values |= {each.name: original[each.name] for each in extra}
    layers = located(network, reading, calling, biases, values, batch)
    is_fixed = _places(layers) == _places(located(network, reading, calling, biases, values, batch + 2))
    if not layers.count:
        raise UserError(
            "--model: none of its operations can be seen (TorchScript?); pass the class or function it comes from"
        )
    channels, rows, grouping = _numbered(layers, reading)
    shape_only = next(layouts(reading.digit.shape, {name: layers.sizes[name] for name in _DIGIT}), None)
    digit_w = layers.digit_w or shape_only
    if digit_w is None:
        raise UserError(
            f"--model: {reading.digit.name} {reading.digit.shape} cannot be [I, J, d, e]. {told(parameters)}"
        )
    return Match(reading, calling, layers, digit_w, biases, channels, rows, grouping, extra, values, is_fixed)


def located(
    network: Network,
    reading: Candidate,
    calling: Calling,
    biases: dict[str, Parameter],
    values: dict[str, np.ndarray],
    batch: int,
) -> Layers:
    """Where the layers are in a pass on `batch` images; the model keeps the parameters `values`."""
    network.assign(values)
    images = np.random.default_rng(batch).uniform(0, 1, (batch, *reading.image))
    ran = network.run(calling.arguments(images, None, reading.classes), as_list=calling.as_list, record=True)
    return locate(ran.steps, values, reading, biases, batch, network.channels_first)


def _places(layers: Layers) -> tuple[Any, ...]:
    """The operations of the layers: they change with the batch if a model processes its images one by one."""
    found = [layers.votes, *layers.couplings, *layers.outputs]
    return layers.count, layers.conv1, layers.grid, *(each.index if each else None for each in found)


def _called(network: Network, found: Sequence[Candidate], batch: int) -> tuple[Calling, Candidate]:
    """The first candidate with which the model runs and its outputs make sense; else the first with which it runs."""
    fallback: tuple[Calling, Candidate] | None = None
    failure: UserError | None = None
    runs: dict[tuple[tuple[int, int, int], int], Any] = {}
    for reading in found[:40]:
        key = reading.image, reading.classes
        if key not in runs:
            try:
                runs[key] = find_calling(network, reading.image, reading.classes, batch)
            except UserError as error:
                runs[key] = None
                failure = failure or error
        if runs[key] is None:
            continue
        calling, ran = runs[key]
        if fits(ran, batch, reading.sizes):
            return calling, reading
        fallback = fallback or (calling, reading)
    if fallback is None:
        assert failure is not None
        raise failure
    return fallback


def _sizes_of(reading: Candidate) -> set[int]:
    sizes = reading.sizes
    plain = {value for value in sizes.values() if isinstance(value, int)}
    return plain | set(reading.image) | {canonical_shape(reading.primary[0])[3], len(reading.primary)}


def _drawn(generator: np.random.Generator, parameter: Parameter) -> np.ndarray:
    """Random values at which layers keep their scale, and routing has something to decide."""
    inputs = math.prod(canonical_shape(parameter)[:-1]) if parameter.kind in ("conv", "dense") else 1
    sigma = {"conv": 1.5 * inputs**-0.5, "dense": inputs**-0.5, "bias": 0.1}.get(parameter.kind, 0.3)
    return sigma * generator.standard_normal(parameter.shape)


def _numbered(layers: Layers, reading: Candidate) -> tuple[np.ndarray, np.ndarray, str]:
    """Canonical channels and capsules by the model's own; unchanged if capsules are not grouped as in the paper."""
    inputs, dim = layers.sizes["I"], layers.sizes["d"]
    as_is = np.arange(reading.primary_channels), np.arange(inputs)
    if layers.capsules is None or layers.capsules.source is None:
        return *as_is, "unknown"
    places = inputs * dim // reading.primary_channels
    channel, place = np.divmod(layers.capsules.source, places)
    if (place != place[:, :1]).any():
        return *as_is, "wrong"
    first = [row for row in range(inputs) if place[row, 0] == 0]
    kinds = {tuple(channel[row].tolist()): number for number, row in enumerate(first)}
    rows = np.full(inputs, -1)
    for row in range(inputs):
        number = kinds.get(tuple(channel[row].tolist()))
        if number is None:
            return *as_is, "wrong"
        rows[place[row, 0] * len(first) + number] = row
    if (rows < 0).any():
        return *as_is, "wrong"
    return channel[first].reshape(-1), rows, "right"
