"""A model layer by layer: shapes, parameters, operations, bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness import models
from harness.cost.operations import forward_flops
from harness.spec import ModelSpec
from harness.spec.trial import Trial
from harness.weights import parameter_count, weight_table


@dataclass(frozen=True)
class LayerCost:
    """One layer; `output` is the shape for one image, `flops` the operations of one image's forward pass."""

    name: str
    what: str
    output: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """One model of a suite, and the settings in which it differs from the suite's others."""

    model: ModelSpec
    differs: dict[str, Any]
    layers: list[LayerCost]

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    def to_json(self) -> dict[str, Any]:
        """The model's entry in `summary --json`."""
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
    """Each model of the trials once, in the trials' order."""
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


def layers(model: ModelSpec) -> list[LayerCost]:
    """The layers of `model` in the order of the forward pass; a multiply and an add count as two operations."""
    counts: dict[str, int] = {}
    for row in weight_table(model):
        layer = row.name.partition(".")[0]
        counts[layer] = counts.get(layer, 0) + math.prod(row.shape)
    return [
        LayerCost(each.name, each.what, each.output, counts.get(each.name, 0), 2 * each.multiplications)
        for each in models.of(model).layers(model)
    ]
