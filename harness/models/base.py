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
    """One layer; `output` is the shape for one image, `multiplications` those of one image's forward pass."""

    name: str
    what: str
    output: tuple[int, ...]
    multiplications: int


@dataclass(frozen=True)
class ProbeStart:
    """What a kind makes its probes from: weights, some of the compared images, and a class to favour.

    `decided` are the initial weights with `ModelKind.emphasis` and with every bias drawn. `images` are uint8 (N, *K, H, W, C).
    """

    initial: Weights
    decided: Weights
    images: np.ndarray
    favoured: int


class ModelKind(ABC):
    """One kind of model: all that the bench knows of it. Methods raise nothing; models are already validated.

    A distribution registers its own by an entry point of the group `capsbench.models`: `name = "package.module:KIND"`,
    where KIND is an object of a class derived from this one. `parts` says where each implementation finds its part.
    """

    name: ClassVar[str]
    """Its name in a suite: `model.kind`."""
    spec: ClassVar[type[ModelSpec]]
    """The class with its settings as fields and its geometry as properties; `check` rejects invalid combinations."""
    parts: ClassVar[Mapping[str, str]] = {}
    """Implementation -> the module with its architecture; empty for a built-in kind, which each implementation includes."""

    has_capsules: ClassVar[bool] = False
    """Whether it has output capsules and routing: a setting `routing`, weights named `primary.*`, and an L2 to climb."""
    can_decode: ClassVar[bool] = False
    """Whether it can have a decoder: a setting `decoder`, true if there is one."""
    decoder_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that a model without a decoder ignores."""
    size_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that make a model smaller, suggested when memory runs out."""

    # -- what it is

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of its own settings, in order: keys of a suite's section `model`."""
        return tuple(name for name in self.spec.model_fields if name not in ModelSpec.model_fields)

    def title(self, model: ModelSpec) -> str:
        """A model's name in `capsbench summary`."""
        return self.name

    def label(self, model: ModelSpec) -> str:
        """The short name of a model in `capsbench speed`."""
        return self.name

    def loss_label(self, model: ModelSpec) -> str:
        """The terms of the total loss, for the axis of a figure."""
        return "loss"

    def has_decoder(self, settings: Any) -> bool:
        """Whether a model, or a suite's section `model`, has a decoder."""
        return self.can_decode and bool(settings.decoder)

    @abstractmethod
    def weights(self, model: ModelSpec) -> tuple[WeightRow, ...]:
        """The trainable tensors, in canonical order. A name is "layer.w" or "layer.b"."""

    # -- what it costs

    @abstractmethod
    def layers(self, model: ModelSpec) -> list[Layer]:
        """The layers in the order of the forward pass, named as the prefixes of their weights."""

    def products(self, model: ModelSpec) -> dict[str, int]:
        """Multiply-adds of one image's forward pass, by layer. The first layer is the one that sees the image itself."""
        return {layer.name: layer.multiplications for layer in self.layers(model)}

    def activations(self, model: ModelSpec) -> int:
        """Numbers that training keeps for one image's backward pass, in any implementation."""
        return sum(math.prod(layer.output) for layer in self.layers(model))

    def live_values(self, model: ModelSpec) -> int:
        """Numbers that an implementation holds for one image; temporary arrays are multiples of it."""
        return self.activations(model)

    def scratch_values(self, model: ModelSpec, batch: int) -> int:
        """Numbers expected at the peak of a training step with `batch` images, beyond weights, gradients and activations."""
        return batch * self.activations(model)

    # -- how it is proven equal

    outputs: ClassVar[tuple[str, ...]] = ("probabilities",)
    """The fields of `harness.spec.Outputs` that are compared."""

    def skipped(self, level: str) -> str | None:
        """Why it does not climb a level of the ladder; None if it does."""
        return (
            None
            if self.has_capsules or level != "L2"
            else f"a model of kind {self.name} has neither capsules nor routing"
        )

    def output_shapes(self, model: ModelSpec, count: int) -> dict[str, tuple[int, ...] | None]:
        """The shape of each output for `count` images; None for an output that must be absent."""
        return {"digit": None, "probabilities": (count, model.classes), "coupling": None, "reconstruction": None}

    def class_axes(self, model: ModelSpec) -> dict[str, int]:
        """The weights of the layer that tells the classes apart, and their axis for the classes.

        The default is the last layer's weights and their last axis.
        """
        names = [row.name for row in self.weights(model)]
        last = names[-1].partition(".")[0]
        return {name: -1 for name in names if name.partition(".")[0] == last}

    def late_biases(self, model: ModelSpec) -> tuple[str, ...]:
        """Biases after the convolutions: zero before the first compared step, since a movement from zero is exact."""
        return tuple(row.name for row in self.weights(model) if row.name.endswith(".b"))

    def relu_pairs(self, model: ModelSpec) -> tuple[tuple[str, str], ...]:
        """Pairs of layers with only a ReLU between them: one may be scaled up and the other down."""
        return ()

    def emphasis(self, model: ModelSpec) -> Mapping[str, float]:
        """Factors of the initial weights that give the model something to decide."""
        return {}

    def probes(self, model: ModelSpec, start: ProbeStart) -> dict[str, Weights]:
        """Weights at which implementations are compared, by name: "decided" first, "graded" and "initial" among them.

        With "even", if there is one, each image has a different winner; "short" leaves almost nothing to decide.
        """
        decided = probing.turned(model, start.decided, start.images, self.class_axes(model))
        graded = probing.steep(decided, self.relu_pairs(model))
        return {"decided": decided, "graded": graded, "initial": start.initial}

    def relus(self, model: ModelSpec, net: Any, acts: Any, classes: np.ndarray) -> Mapping[str, np.ndarray]:
        """The output of every ReLU, by the name of its layer; `acts` is the result of the NumPy architecture's `forward`."""
        return {}

    def branches(self, model: ModelSpec, scores: np.ndarray, classes: np.ndarray) -> Mapping[str, int]:
        """How many elements took each side of the loss's own branches; `scores` (N, J), true `classes` (N, K)."""
        return {}

    def faults(self) -> Sequence[Any]:
        """Its own faults (`harness.parity.faults.fault.Fault`), which a diagnosis compares with; none by default."""
        return ()
