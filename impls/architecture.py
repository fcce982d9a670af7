"""The interface of a kind of model within a framework: `impls/X/models/KIND.py` implements it in every framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from harness.spec import Loss, ModelSpec


class Network(Protocol):
    """A kind's network with its weights, in its framework's form.

    In PyTorch it is a module, in TensorFlow a Keras model, and `canonical` says which tensor is which weight. In JAX it
    is a value, made anew in each step from the weights under their canonical names.
    """

    model: ModelSpec

    def __call__(self, images: Any, *more: Any) -> tuple[Any, ...]:
        """Pixels in 0..1, (B, y, x, c), to the `top` of `Architecture.losses`, and whatever else `outputs` needs.

        `more` is `once()` in evaluation, and in training the dropout mask (B, U) if the model has one.
        """
        ...

    def once(self) -> tuple[Any, ...]:
        """What stays the same over the batches of an evaluation and is computed once; may be empty."""
        ...


class Architecture(Protocol):
    """A kind of model: a module with these names, in this order. `steps` needs nothing else.

    Tensors are the framework's own, images are stored as (B, y, x, c), and every function can be compiled.
    """

    Network: Any
    """The class of `Network`; `Steps` makes it from the model and what else the framework needs."""

    def scores(self, model: ModelSpec, top: Any, /) -> Any:
        """(B, J): higher scores mean greater confidence in the class. The K highest are predicted."""
        ...

    def outputs(self, net: Any, images: Any, /) -> tuple[Any, ...]:
        """The fields of `harness.spec.Outputs` in order, computed without labels; None for those that the kind lacks."""
        ...

    def losses(self, net: Any, top: Any, digits: Any, labels: Any, mask: Any, /) -> Any:
        """(T, B): each image's loss terms, in the order of `ModelSpec.loss_terms`; training minimises the first.

        `digits` (B, K, y, x, c) are a decoder's target pixels in 0..1, `labels` (B, K) the classes present, and `mask`
        (B, K) those whose capsules a decoder sees: the labels in training, `ModelSpec.evaluation_mask` in evaluation.
        """
        ...


class Staged(Protocol):
    """What a kind's module may have besides, for the parts of a training step: see `harness.spec.Truncated`."""

    def stages(self, model: ModelSpec, /) -> dict[str, Callable[..., Any]]:
        """The network cut short after each of its stages, from the shortest on: a name, and a function to the stage's output.

        The functions take the network, its images, the labels (B, K) that mask a decoder, and the dropout mask if the
        model has one. Each contains those before it; none contains the losses. The output is what the next stage takes
        in: whatever is computed for it alone would count as the stage's. Without this function, the network is one part.
        """
        ...


def stages_of(kind: Architecture, model: ModelSpec) -> dict[str, Callable[..., Any]]:
    """`Staged.stages`; none of a kind's module without it."""
    staged: Any = kind
    return staged.stages(model) if hasattr(kind, "stages") else {}


class Specification(Protocol):
    """A kind of model in the executable specification, with a hand-written backward pass: a module of these functions.

    Weights `w` have canonical names and are already rounded by `operand`, which rounds an operand of a product to the
    precision. `acts` is whatever `forward` keeps.
    """

    def forward(self, model: ModelSpec, w: Any, digits: Any, /, *more: Any, **conventions: Any) -> Any:
        """Pixels in 0..1, (B, K, y, x, c), overlaid if K > 1. `more` is `operand`, and in training the dropout mask."""
        ...

    def scores(self, model: ModelSpec, acts: Any, /) -> Any:
        """As `Architecture.scores`."""
        ...

    def outputs(self, model: ModelSpec, w: Any, acts: Any, /) -> tuple[Any, ...]:
        """As `Architecture.outputs`."""
        ...

    def mean_losses(self, model: ModelSpec, w: Any, acts: Any, labels: Any, mask: Any, /) -> Any:
        """(T,): the terms of the loss, means over the images, on the device."""
        ...

    def losses(self, model: ModelSpec, w: Any, acts: Any, labels: Any, mask: Any, /) -> Loss:
        """`mean_losses`, copied back from the device."""
        ...

    def backward(self, model: ModelSpec, w: Any, acts: Any, labels: Any, /) -> Any:
        """The gradient of the mean training loss (with the labels as mask) for every weight."""
        ...
