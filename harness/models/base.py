"""What a kind of model is: `ModelKind`, the contract, and the rows of its tables.

A kind is one object of a class derived from `ModelKind`. Two methods are required, `weights` and `layers`; every other
one has a default that holds for a plain classifier: no capsules, no decoder, no dropout, one loss term.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harness.models import probing
from harness.spec import Weights
from harness.spec.model import ModelSpec


@dataclass(frozen=True)
class WeightRow:
    """One canonical tensor. Axis letters: y, x kernel; k, l, p channels in/out; I, J capsules; d, e dimensions."""

    name: str
    shape: tuple[int, ...]
    layout: str
    sigma: float  # of the truncated normal it starts from; 0 starts at `start`
    start: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One layer; `output` is the shape for one image, `multiplications` those of one image's way forward."""

    name: str
    what: str
    output: tuple[int, ...]
    multiplications: int


@dataclass(frozen=True)
class ProbeStart:
    """What a kind makes its probes from: weights, some of the images that are compared, and a class to favour.

    `decided` are the initial weights with `ModelKind.emphasis` and with every bias drawn. `images` are uint8 (N, *K, H, W, C).
    """

    initial: Weights
    decided: Weights
    images: np.ndarray
    favoured: int


class ModelKind(ABC):
    """One kind of model: all that the bench knows of it. Methods raise nothing; models come validated.

    A distribution registers its own by an entry point of the group `capsbench.models`: `name = "package.module:KIND"`,
    where KIND is an object of a class derived from this one. `parts` says where each implementation finds its half.
    """

    name: ClassVar[str]
    """What a suite calls it: `model.kind`."""
    spec: ClassVar[type[ModelSpec]]
    """Its settings as fields, its geometry as properties, and in `check` what settings and images do not fit together."""
    parts: ClassVar[Mapping[str, str]] = {}
    """Implementation -> the module with its architecture; empty for a built-in kind, which each implementation brings."""

    has_capsules: ClassVar[bool] = False
    """Whether it has output capsules and routing: a setting `routing`, weights named `primary.*`, and an L2 to climb."""
    can_decode: ClassVar[bool] = False
    """Whether it can have a decoder: a setting `decoder`, true where there is one."""
    decoder_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that mean nothing to a model without a decoder."""
    size_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that make a model smaller, as advice where memory runs out."""

    # -- what it is

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of its own settings, in order: keys of a suite's section `model`."""
        return tuple(name for name in self.spec.model_fields if name not in ModelSpec.model_fields)

    def title(self, model: ModelSpec) -> str:
        """What `capsbench summary` calls a model."""
        return self.name

    def label(self, model: ModelSpec) -> str:
        """The shortest name of a model, as `capsbench speed` prints it."""
        return self.name

    def loss_label(self, model: ModelSpec) -> str:
        """What the total is made of, for the axis of a figure."""
        return "loss"

    def has_decoder(self, settings: Any) -> bool:
        """Whether a model, or a suite's section `model`, has one."""
        return self.can_decode and bool(settings.decoder)

    @abstractmethod
    def weights(self, model: ModelSpec) -> tuple[WeightRow, ...]:
        """The trainable tensors, in canonical order. A name is "layer.w" or "layer.b"."""

    # -- what it costs

    @abstractmethod
    def layers(self, model: ModelSpec) -> list[Layer]:
        """The layers in the order of the forward pass, under the names that their weights begin with."""

    def products(self, model: ModelSpec) -> dict[str, int]:
        """Multiplications, each with an addition, of one image's forward pass. The first is what sees the image itself."""
        return {layer.name: layer.multiplications for layer in self.layers(model)}

    def activations(self, model: ModelSpec) -> int:
        """Numbers that training keeps of one image for the backward pass, whatever the implementation."""
        return sum(math.prod(layer.output) for layer in self.layers(model))

    def live_values(self, model: ModelSpec) -> int:
        """Numbers that an implementation holds of one image, of which temporary arrays are multiples."""
        return self.activations(model)

    def scratch_values(self, model: ModelSpec, batch: int) -> int:
        """Numbers to expect at the peak of a training step of `batch` images, beyond weights, gradients and activations."""
        return batch * self.activations(model)

    # -- how it is proven equal

    outputs: ClassVar[tuple[str, ...]] = ("probabilities",)
    """The fields of `harness.spec.Outputs` that are compared."""

    def skipped(self, level: str) -> str | None:
        """Why it does not climb a level of the ladder; None where it does."""
        return (
            None
            if self.has_capsules or level != "L2"
            else f"a model of kind {self.name} has neither capsules nor routing"
        )

    def output_shapes(self, model: ModelSpec, count: int) -> dict[str, tuple[int, ...] | None]:
        """Of each output for `count` images; None where there is to be none."""
        return {"digit": None, "probabilities": (count, model.classes), "coupling": None, "reconstruction": None}

    def class_axes(self, model: ModelSpec) -> dict[str, int]:
        """The weights of the layer that tells the classes apart, and which of their axes counts the classes.

        By default the last layer's, in the last axis.
        """
        names = [row.name for row in self.weights(model)]
        last = names[-1].partition(".")[0]
        return {name: -1 for name in names if name.partition(".")[0] == last}

    def late_biases(self, model: ModelSpec) -> tuple[str, ...]:
        """Biases behind the convolutions: zero before the first step that is compared, since a move from zero is exact."""
        return tuple(row.name for row in self.weights(model) if row.name.endswith(".b"))

    def relu_pairs(self, model: ModelSpec) -> tuple[tuple[str, str], ...]:
        """Pairs of layers with nothing but a ReLU between: one may be scaled up and the other down."""
        return ()

    def emphasis(self, model: ModelSpec) -> Mapping[str, float]:
        """By how much initial weights are multiplied so that there is something to decide."""
        return {}

    def probes(self, model: ModelSpec, start: ProbeStart) -> dict[str, Weights]:
        """Weights at which everyone is compared, by name: "decided" first, "graded" and "initial" among them.

        Of "even", if there is one, each image has a winner of its own; "short" leaves next to nothing to decide.
        """
        decided = probing.turned(model, start.decided, start.images, self.class_axes(model))
        graded = probing.steep(decided, self.relu_pairs(model))
        return {"decided": decided, "graded": graded, "initial": start.initial}

    def relus(self, model: ModelSpec, net: Any, acts: Any, classes: np.ndarray) -> Mapping[str, np.ndarray]:
        """What every ReLU gave, by the name of its layer; `acts` is what the NumPy architecture's `forward` returned."""
        return {}

    def branches(self, model: ModelSpec, scores: np.ndarray, classes: np.ndarray) -> Mapping[str, int]:
        """How many elements took each side of the loss's own branches; `scores` (N, J), true `classes` (N, K)."""
        return {}

    def faults(self) -> Sequence[Any]:
        """Faults of its own (`harness.parity.faults.fault.Fault`) that a diagnosis compares with; none by default."""
        return ()
