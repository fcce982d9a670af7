"""A model layer by layer: shapes, parameters, operations, bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.cost.operations import forward_flops, products
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from harness.weights import parameter_count, weight_table


@dataclass(frozen=True)
class Layer:
    """One layer; `output` is the shape for one image, `flops` its operations on one image's way forward."""

    name: str
    what: str
    output: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """One model of a suite, and the settings by which it differs from the suite's others."""

    model: ModelSpec
    differs: dict[str, Any]
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    def to_json(self) -> dict[str, Any]:
        """One model of `summary --json`."""
        return {
            "differs": self.differs,
            "kind": self.model.kind,
            "profile": self.model.variant,
            "image": list(self.model.image),
            "layers": [asdict(layer) | {"output": list(layer.output)} for layer in self.layers],
            "parameters": self.parameters,
            "forward_flops": forward_flops(self.model),
        }


def summaries(trials: Iterable[Trial]) -> list[Summary]:
    """Each model of the trials once, in their order."""
    first: dict[ModelSpec, Trial] = {}
    for trial in trials:
        first.setdefault(trial.model, trial)
    # a model setting, or one of the images that it is built for
    return [
        Summary(
            model,
            {key: value for key, value in trial.params.items() if key.startswith(("model.", "data."))}
            if len(first) > 1
            else {},
            layers(model),
        )
        for model, trial in first.items()
    ]


def layers(model: ModelSpec) -> list[Layer]:
    """The layers of `model` in the order of the forward pass (section 4 of the paper)."""
    found = _cnn_layers(model) if model.kind == "cnn" else _capsnet_layers(model)
    return [replace(each, flops=2 * each.flops) for each in found]


def _counts(model: ModelSpec) -> dict[str, int]:
    """Layer -> its parameters."""
    counts: dict[str, int] = {}
    for row in weight_table(model):
        layer = row.name.partition(".")[0]
        counts[layer] = counts.get(layer, 0) + math.prod(row.shape)
    return counts


def _cnn_layers(model: ModelSpec) -> list[Layer]:
    """With multiplications in the place of operations, as `_capsnet_layers`."""
    counts, multiplied, pool = _counts(model), products(model), model.cnn_pool
    pooled = f", max {pool}x{pool}" if pool > 1 else ""
    convolutions = zip(model.cnn_convolutions, model.cnn_kernels, model.cnn_grids[1:], model.cnn_channels, strict=True)
    found = [
        Layer(name, f"{k}x{k} SAME, ReLU{pooled}", (*grid, channels), counts[name], multiplied[name])
        for name, k, grid, channels in convolutions
    ]
    kinds = ["dense, ReLU"] * len(model.cnn_units)
    kinds[-1] += f", dropout {model.dropout:g}" if model.dropout else ""
    kinds.append("dense, softmax" if model.overlaid == 1 else "dense, sigmoid")
    widths = itertools.pairwise(model.cnn_widths)
    for name, what, (fan_in, fan_out) in zip(model.cnn_dense, kinds, widths, strict=True):
        found.append(Layer(name, what, (fan_out,), counts[name], fan_in * fan_out))
    return found


def _capsnet_layers(model: ModelSpec) -> list[Layer]:
    counts, multiplied, k, capsules = _counts(model), products(model), model.kernel, model.primary_capsules
    found = [
        Layer("conv1", f"{k}x{k}, ReLU", (*model.conv_grid, model.conv_channels), counts["conv1"], multiplied["conv1"]),
        Layer(
            "primary", f"{k}x{k} stride 2, {model.primary_types} types of {model.primary_dim}D, squash",
            (capsules, model.primary_dim), counts["primary"], multiplied["primary"],
        ),
        Layer(
            "digit", f"votes, routing x{model.routing}", (model.classes, model.digit_dim), counts["digit"],
            multiplied["votes"] + multiplied["routing"],
        ),
    ]  # fmt: skip
    if model.decoder:
        widths = (model.classes * model.digit_dim, *model.decoder_units, model.pixels)
        for number, what in enumerate(("one capsule, dense, ReLU", "dense, ReLU", "dense, sigmoid"), start=1):
            fan_in, fan_out = widths[number - 1 : number + 1]
            output = (*model.several, *(model.image if number == 3 else (fan_out,)))
            multiplications = model.overlaid * fan_in * fan_out  # for each digit that the image shows
            found.append(Layer(f"dec{number}", what, output, counts[f"dec{number}"], multiplications))
    return found
