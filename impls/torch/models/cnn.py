"""The paper's baseline CNNs (sections 4.1 and 6.1) as a module, and its loss."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from harness.spec import ModelSpec
from impls.torch.overlay import present
from impls.torch.precision import linear, operand, result


class Cnn(nn.Module):
    """Weights are set by `load`: the module's own initial values are never used."""

    def __init__(self, model: ModelSpec, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        channels = itertools.pairwise((model.image[2], *model.cnn_channels))
        for name, kernel, (fan_in, fan_out) in zip(model.cnn_convolutions, model.cnn_kernels, channels, strict=True):
            self.add_module(name, nn.Conv2d(fan_in, fan_out, kernel, padding="same"))
        for name, (fan_in, fan_out) in zip(model.cnn_dense, itertools.pairwise(model.cnn_widths), strict=True):
            self.add_module(name, nn.Linear(fan_in, fan_out))

    @staticmethod
    def canonical(model: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Canonical name -> parameter of the module, and the permutation that takes it to the canonical layout."""
        kernels = {f"{name}.w": (f"{name}.weight", (2, 3, 1, 0)) for name in model.cnn_convolutions}
        matrices = {f"{name}.w": (f"{name}.weight", (1, 0)) for name in model.cnn_dense}
        biases = {f"{name}.b": (f"{name}.bias", (0,)) for name in (*model.cnn_convolutions, *model.cnn_dense)}
        return kernels | matrices | biases

    def forward(
        self, images: Float[Tensor, "B y x c"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> tuple[Float[Tensor, "B J"]]:
        """Pixels in 0..1 to logits; in training `kept` is 1 if dropout keeps a unit, else 0."""
        return (self.logits(self.features(images), kept),)

    def once(self) -> tuple[()]:
        """Empty: nothing is shared by the batches of an evaluation."""
        return ()

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B yxf"]:
        """ReLU convolutions, stride 1, SAME padding, each with max pooling, flattened: rows, columns, channels."""
        x = images.permute(0, 3, 1, 2)
        for layer in self._named(self.model.cnn_convolutions):
            weight = operand(layer.weight, self.precision)
            product = F.conv2d(operand(x, self.precision), weight, padding="same")
            x = F.relu(result(product, self.precision) + layer.bias[:, None, None])
            if self.model.cnn_pool > 1:
                x = F.max_pool2d(x, self.model.cnn_pool)
        return x.permute(0, 2, 3, 1).flatten(1)

    def logits(
        self, features: Float[Tensor, "B yxf"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B J"]:
        """ReLU layers, dropout, a linear layer."""
        *hidden, last = self._named(self.model.cnn_dense)
        x = features
        for layer in hidden:
            x = F.relu(self._dense(layer, x))
        if kept is not None:
            x = x * (kept.to(x.dtype) / (1 - self.model.dropout))  # so that evaluation need not scale
        return self._dense(last, x)

    def _named(self, names: Sequence[str]) -> list[Any]:
        return [getattr(self, name) for name in names]

    def _dense(self, layer: nn.Linear, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, layer.weight, layer.bias, self.precision)


Network = Cnn


def scores(model: ModelSpec, logits: Float[Tensor, "B J"]) -> Float[Tensor, "B J"]:
    """The probabilities of the classes; for several digits, independent ones."""
    return torch.softmax(logits, dim=1) if model.overlaid == 1 else torch.sigmoid(logits)


def outputs(net: Cnn, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (logits,) = net(images)
    return None, scores(net.model, logits), None, None


def losses(
    net: Cnn,
    logits: Float[Tensor, "B J"],
    digits: Float[Tensor, "B K y x c"],
    labels: Int[Tensor, "B K"],
    mask: Int[Tensor, "B K"],
) -> Float[Tensor, "1 B"]:
    """Each image's cross-entropy; `digits` and `mask`, meant for a decoder, are ignored."""
    if net.model.overlaid == 1:
        return F.cross_entropy(logits, labels[:, 0], reduction="none")[None]
    return F.binary_cross_entropy_with_logits(logits, present(labels, logits), reduction="none").sum(1)[None]


def stages(model: ModelSpec) -> dict[str, Callable[..., Tensor]]:
    """See `impls.architecture`."""

    def conv(net: Cnn, images: Tensor, labels: Tensor, *kept: Tensor) -> Float[Tensor, "B yxf"]:
        return net.features(images)

    def dense(net: Cnn, images: Tensor, labels: Tensor, *kept: Tensor) -> Float[Tensor, "B J"]:
        return net(images, *kept)[0]

    return {"conv": conv, "dense": dense}
