"""Layers beside the specification's: each is fed with the model's own input, and with the specification's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import registry
from harness.parity.diagnosis.variant_layers import squash
from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.found import COUPLING, DIGIT, INPUTS, VOTES, relative
from harness.parity.tolerances import bound
from harness.spec import Conventions, Epsilon, ModelSpec, OptimSpec, Runtime, Weights

_LAST = ("lengths", "decoder")
_EPSILON = Epsilon()


@dataclass(frozen=True)
class Row:
    """One layer's errors, relative to its largest value; None if it was not seen, or cannot be fed."""

    layer: str
    own: float | None
    fed: float | None
    note: str = ""

    @property
    def ok(self) -> bool:
        tolerance = bound("forward", "fp64")
        return all(error is None or error <= tolerance for error in (self.own, self.fed))

    @property
    def is_at_fault(self) -> bool:
        """Whether the layer itself is wrong: with the right input or, if it cannot be fed, with its own."""
        error = self.own if self.fed is None else self.fed
        return error is not None and error > bound("forward", "fp64")


Values = dict[str, np.ndarray]
"""Layer -> its result, in the bench's layouts."""


def seen(examined: Examined, images: np.ndarray, replace: Mapping[int, np.ndarray] | None = None) -> Values:
    """The results of the model's layers for uint8 images; `replace` (operation -> array) replaces results on the way."""
    layers, match, batch = examined.layers(len(images)), examined.match, len(images)
    sizes = examined.sizes(batch)
    pixels = examined.pixels(images)
    keep = [*layers.grid, *(each.index for each in (*layers.couplings, *layers.outputs))]
    keep += [layers.conv1] if layers.conv1 is not None else []
    keep += [layers.capsules.found.index] if layers.capsules else []
    keep += [layers.votes.index] if layers.votes else []
    guessed = None
    if match.calling.needs_labels:
        first = examined.run(pixels, None, keep=keep, replace=replace)
        guessed = examined.outputs(first, batch).lengths.argmax(1)
    ran = examined.run(pixels, guessed, keep=keep, replace=replace)
    array = {index: examined.network.numpy(tensor) for index, tensor in ran.kept.items()}
    found: Values = {}
    last = examined.network.channels_first
    if layers.conv1 in array:
        found["conv1"] = array[layers.conv1].transpose(0, 2, 3, 1) if last else array[layers.conv1]
    if layers.grid and all(index in array for index in layers.grid):
        grids = [array[index] if last else array[index].transpose(0, 3, 1, 2) for index in layers.grid]
        whole = np.concatenate(grids, axis=1)[:, match.channels].transpose(0, 2, 3, 1)
        found["primary"] = whole.reshape(batch, sizes["I"], sizes["d"])
    if layers.capsules and layers.capsules.found.index in array:
        read = layers.capsules.found.read(array[layers.capsules.found.index], sizes, INPUTS)
        found["capsules"] = read[:, match.rows]
    if layers.votes and layers.votes.index in array:
        found["votes"] = layers.votes.read(array[layers.votes.index], sizes, VOTES)[:, match.rows]
    for number, (coupling, v) in enumerate(itertools.zip_longest(layers.couplings, layers.outputs), start=1):
        if coupling and coupling.index in array:
            read = coupling.read(array[coupling.index], sizes, COUPLING)
            found[f"coupling {number}"] = read[:, match.rows]
        if v and v.index in array:
            found[f"capsules {number}"] = v.read(array[v.index], sizes, DIGIT)
    outputs = examined.outputs(ran, batch)
    found["lengths"] = outputs.lengths
    if outputs.reconstruction is not None:
        found["decoder"] = outputs.reconstruction
    return found


def replacement(examined: Examined, values: Mapping[str, np.ndarray], batch: int) -> dict[int, np.ndarray]:
    """Operation -> the array that replaces its result; `values` are results of layers in the bench's layouts."""
    layers, match, sizes = examined.layers(batch), examined.match, examined.sizes(batch)
    rows = np.empty(sizes["I"], np.int64)
    rows[match.rows] = np.arange(sizes["I"])
    made: dict[int, np.ndarray] = {}
    for layer, value in values.items():
        kind, _, number = layer.partition(" ")
        if layer == "conv1" and layers.conv1 is not None:
            made[layers.conv1] = value.transpose(0, 3, 1, 2) if examined.network.channels_first else value
        elif layer == "primary" and layers.grid:
            side = math.isqrt(sizes["I"] * sizes["d"] // match.reading.primary_channels)
            grid = value.reshape(batch, side, side, -1).transpose(0, 3, 1, 2)[:, np.argsort(match.channels)]
            for index, part in zip(layers.grid, np.split(grid, len(layers.grid), axis=1), strict=True):
                made[index] = part if examined.network.channels_first else part.transpose(0, 2, 3, 1)
        elif layer == "capsules" and layers.capsules:
            made[layers.capsules.found.index] = layers.capsules.found.write(value[:, rows], sizes, INPUTS)
        elif layer == "votes" and layers.votes:
            made[layers.votes.index] = layers.votes.write(value[:, rows], sizes, VOTES)
        elif kind == "coupling" and len(layers.couplings) >= int(number):
            found = layers.couplings[int(number) - 1]
            if not found.shared:
                made[found.index] = found.write(value[:, rows], sizes, COUPLING)
        elif kind == "capsules" and number and len(layers.outputs) >= int(number):
            found = layers.outputs[int(number) - 1]
            made[found.index] = found.write(value, sizes, DIGIT)
    return made


def specified(model: ModelSpec, weights: Weights, images: np.ndarray, conventions: Conventions | None = None) -> Values:
    """The results of the specification's layers, in float64."""
    maker: Any = registry.specification()
    impl = maker(model, OptimSpec(), Runtime(precision="fp64"), conventions=conventions)
    impl.load(weights)
    acts, outputs = impl._forward(images), impl.forward(images)
    found: Values = {
        "conv1": acts.conv1,
        "primary": acts.primary,
        "capsules": acts.u,
        "votes": acts.u_hat.transpose(0, 2, 1, 3),
    }
    for number, (coupling, _, v) in enumerate(acts.routing, start=1):
        found[f"coupling {number}"], found[f"capsules {number}"] = coupling.transpose(0, 2, 1), v
    found["lengths"] = outputs.lengths
    if outputs.reconstruction is not None:
        found["decoder"] = outputs.reconstruction
    return found


def _inputs(layer: str, expected: Values) -> tuple[str, ...]:
    """The layers whose results a layer is fed with."""
    kind, _, number = layer.partition(" ")
    previous = {"conv1": (), "primary": ("conv1",), "capsules": ("primary",), "votes": ("capsules",)}
    if layer in previous:
        return previous[layer]
    last = iterations(expected)
    if kind == "coupling":
        return ("votes", *(f"{what} {each}" for each in range(1, int(number)) for what in ("coupling", "capsules")))
    if kind == "capsules":
        earlier = (f"{what} {each}" for each in range(1, int(number)) for what in ("coupling", "capsules"))
        return ("votes", *earlier, f"coupling {number}")
    return (f"capsules {last}",)  # lengths, decoder


def fed_with(examined: Examined, layer: str, expected: Values) -> Values:
    """A layer's inputs; those after routing get the last capsules, however many iterations the model makes."""
    inputs = _inputs(layer, expected)
    if layer in _LAST:
        return {f"capsules {len(examined.match.layers.outputs)}": expected[inputs[-1]]}
    return {each: expected[each] for each in inputs}


def iterations(expected: Values) -> int:
    """The number of routing iterations among the layers."""
    return max((int(each.partition(" ")[2]) for each in expected if " " in each), default=0)


def report(examined: Examined, expected: Values, images: np.ndarray, epsilon: Epsilon = _EPSILON) -> Iterator[Row]:
    """A row for each layer of `expected`, in the order of computation; `epsilon` is that of its squash."""
    own = seen(examined, images)
    observed, wanted = examined.observed, iterations(expected)
    for layer, value in expected.items():
        kind, _, number = layer.partition(" ")
        if number and observed and int(number) > observed:
            if kind == "coupling" and int(number) == observed + 1:
                yield Row(f"routing iteration {number}", math.inf, None, f"it makes {observed} of {wanted} iterations")
            continue
        if layer not in own:
            yield Row(_said(layer), None, None, "not seen")
            continue
        note = ""
        inputs = _inputs(layer, expected)
        has_all = all(each in expected and (layer in _LAST or each in own) for each in inputs)
        given = fed_with(examined, layer, expected) if has_all else {}
        made = replacement(examined, given, len(images))
        fed = None
        if not inputs:
            fed = relative(own[layer], value)
        elif has_all and replacement(examined, dict([*given.items()][-1:]), len(images)):
            fed = relative(seen(examined, images, made)[layer], value)
        elif kind == "capsules" and number and f"coupling {number}" in own and "votes" in own:
            # a coupling shared by all images cannot be fed: use the specification's result for the model's own coupling
            s = np.einsum("bij,bije->bje", own[f"coupling {number}"], own["votes"])
            fed = relative(own[layer], squash(s, "paper", "dimensions", epsilon))
        if layer == "capsules":
            note = {"wrong": "grouped otherwise", "unknown": "order not found"}.get(examined.match.grouping, "")
        if kind == "coupling" and examined.match.layers.couplings[int(number) - 1].shared and int(number) > 1:
            note = "shared by all images"
        yield Row(_said(layer), relative(own[layer], value), fed, note)
    if observed > wanted > 0:
        yield Row(
            f"routing iteration {wanted + 1}", math.inf, None, f"it makes {observed} iterations, expected {wanted}"
        )


def _said(layer: str) -> str:
    kind, _, number = layer.partition(" ")
    if kind == "coupling":
        return f"coupling, iteration {number}"
    if kind == "capsules" and number:
        return f"output capsules, iteration {number}"
    return {"primary": "primary convolution", "capsules": "primary capsules"}.get(layer, layer)
