"""What a kind of model is within a framework: `impls/X/models/KIND.py` has what stands here, in every framework alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from harness.spec import Loss, ModelSpec


class Network(Protocol):
    """A kind's network with its weights, which it keeps as its framework does.

    In PyTorch it is a module, in TensorFlow a Keras model, and `canonical` says which of its tensors is which weight. In JAX
    it is a value, made anew of each step's weights under their canonical names.
    """

    model: ModelSpec

    def __call__(self, images: Any, *more: Any) -> tuple[Any, ...]:
        """Pixels in 0..1, (B, y, x, c), to the `top` of `Architecture.losses`, and whatever else `outputs` needs.

        `more` is `once()` in an evaluation, and in training the mask of dropout, (B, U), where the model has any.
        """
        ...

    def once(self) -> tuple[Any, ...]:
        """What stays the same over the batches of an evaluation and is computed once; may be empty."""
        ...


class Architecture(Protocol):
    """A kind of model: a module with these names, in this order. `steps` and `breakdown` ask for nothing else.

    Tensors are the framework's own, images lie in memory as (B, y, x, c), and every function can be compiled.
    """

    Network: Any
    """The class of `Network`, made of the model and what else the framework needs: `Steps` makes it."""

    def scores(self, model: ModelSpec, top: Any, /) -> Any:
        """(B, J): the higher, the surer that an image shows the class. The K highest are what is predicted."""
        ...

    def outputs(self, net: Any, images: Any, /) -> tuple[Any, ...]:
        """The fields of `harness.spec.Outputs` in their order, without labels; None for what the kind has not."""
        ...

    def losses(self, net: Any, top: Any, digits: Any, labels: Any, mask: Any, /) -> Any:
        """(T, B): each image's terms of the loss, in the order of `ModelSpec.loss_terms`; the first is what training descends.

        `digits` (B, K, y, x, c) are the pixels in 0..1 that a decoder is to make, `labels` (B, K) the classes that are there,
        `mask` (B, K) those whose capsules a decoder sees: the labels in training, in evaluation `ModelSpec.evaluation_mask`.
        """
        ...

    def parts(
        self, net: Any, digits: Any, labels: Any, both: Callable[..., Callable[[], object]], /
    ) -> dict[str, Callable[[], object]]:
        """What a training step's layers do, each part by itself: see `harness.spec.Profiled.parts` for the names.

        Args:
            net: with weights that no call changes.
            digits: (B, K, y, x, c), as in `losses`; `labels` (B, K) too.
            both: `breakdown`'s: makes of a function, its inputs and its weights a call that does it forward and backward.
        """
        ...


class Specification(Protocol):
    """A kind of model in the executable specification, whose backward pass is written by hand: a module of these functions.

    Weights `w` come under canonical names, as `operand` has made them: what the precision makes of an operand of a product.
    `acts` is whatever `forward` keeps.
    """

    def forward(self, model: ModelSpec, w: Any, digits: Any, /, *more: Any, **conventions: Any) -> Any:
        """Pixels in 0..1, (B, K, y, x, c), overlaid where K > 1. `more` is `operand`, and in training dropout's mask."""
        ...

    def scores(self, model: ModelSpec, acts: Any, /) -> Any:
        """As `Architecture.scores`."""
        ...

    def outputs(self, model: ModelSpec, w: Any, acts: Any, /) -> tuple[Any, ...]:
        """As `Architecture.outputs`."""
        ...

    def mean_losses(self, model: ModelSpec, w: Any, acts: Any, labels: Any, mask: Any, /) -> Any:
        """(T,): the terms of the loss, means over the images, where they were computed."""
        ...

    def losses(self, model: ModelSpec, w: Any, acts: Any, labels: Any, mask: Any, /) -> Loss:
        """`mean_losses`, read back."""
        ...

    def backward(self, model: ModelSpec, w: Any, acts: Any, labels: Any, /) -> Any:
        """The gradient of the mean training loss, whose mask is the labels, for every weight."""
        ...
