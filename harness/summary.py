"""`capsbench summary`: the models of a suite, layer by layer: what comes out of each, and how many parameters it has."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from harness.config import Trial
from harness.cost import forward_flops, products
from harness.spec import ModelSpec
from harness.tables import setting
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
    counts, multiplied, k = _counts(model), products(model), model.cnn_kernel
    found = [
        Layer(
            f"conv{n}", f"{k}x{k} SAME, ReLU", (*model.image[:2], channels), counts[f"conv{n}"], multiplied[f"conv{n}"]
        )
        for n, channels in enumerate(model.cnn_channels, start=1)
    ]
    widths = (math.prod(found[-1].output), *model.cnn_units, model.classes)
    kinds = ("dense, ReLU", f"dense, ReLU, dropout {model.dropout:g}", "dense, softmax")
    for n, what in enumerate(kinds, start=1):
        fan_in, fan_out = widths[n - 1 : n + 1]
        found.append(Layer(f"fc{n}", what, (fan_out,), counts[f"fc{n}"], fan_in * fan_out))
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
            output = model.image if number == 3 else (fan_out,)
            found.append(Layer(f"dec{number}", what, output, counts[f"dec{number}"], fan_in * fan_out))
    return found


def table(summary: Summary) -> Table:
    """One model: a row a layer, and the totals."""
    variant = f"profile {summary.model.profile}" if summary.model.kind == "capsnet" else summary.model.kind
    title = ", ".join(filter(None, (variant, setting(summary.differs))))
    shown = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    shown.add_column("layer", no_wrap=True)
    shown.add_column("what", no_wrap=True)
    for name in ("output", "parameters", "MFLOP/image"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_row("image", "pixels in 0..1", _by(summary.model.image), "", "")
    for layer in summary.layers:
        megaflops = f"{layer.flops / 1e6:,.2f}"
        shown.add_row(layer.name, layer.what, _by(layer.output), f"{layer.parameters:,}", megaflops)
    total = f"{forward_flops(summary.model) / 1e6:,.2f}"
    shown.add_row("total", "", "", f"{summary.parameters:,}", total, style="bold")
    return shown


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
