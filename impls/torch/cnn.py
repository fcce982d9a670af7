"""The paper's baseline CNN (section 4.1) as a module, and its loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from harness.spec import ModelSpec
from impls.torch.precision import linear, operand, result

CONVOLUTIONS, DENSE = ("conv1", "conv2", "conv3"), ("fc1", "fc2", "fc3")

# canonical name -> parameter of the module, and the permutation that takes it to the canonical layout
CANONICAL = {f"{name}.w": (f"{name}.weight", (2, 3, 1, 0)) for name in CONVOLUTIONS}
CANONICAL |= {f"{name}.w": (f"{name}.weight", (1, 0)) for name in DENSE}
CANONICAL |= {f"{name}.b": (f"{name}.bias", (0,)) for name in (*CONVOLUTIONS, *DENSE)}


class Cnn(nn.Module):
    """Weights are set by `load`: the module's own initial values are never used."""

    def __init__(self, model: ModelSpec, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        height, width, channels = model.image
        first, second, third = model.cnn_channels
        self.conv1 = nn.Conv2d(channels, first, model.cnn_kernel, padding="same")
        self.conv2 = nn.Conv2d(first, second, model.cnn_kernel, padding="same")
        self.conv3 = nn.Conv2d(second, third, model.cnn_kernel, padding="same")
        self.fc1 = nn.Linear(height * width * third, model.cnn_units[0])
        self.fc2 = nn.Linear(*model.cnn_units)
        self.fc3 = nn.Linear(model.cnn_units[1], model.classes)

    def forward(
        self, images: Float[Tensor, "B y x c"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> tuple[Float[Tensor, "B J"]]:
        """Pixels in 0..1 to logits; in training `kept` is 1 where dropout keeps a unit of fc2, and 0 where not."""
        return (self.logits(self.features(images), kept),)

    def once(self) -> tuple[()]:
        """Nothing that stays the same over the batches of an evaluation needs to be computed first."""
        return ()

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B yxf"]:
        """Three ReLU convolutions, stride 1, SAME padding, flattened: rows, columns, channels."""
        x = images.permute(0, 3, 1, 2)
        for layer in (self.conv1, self.conv2, self.conv3):
            weight = operand(layer.weight, self.precision)
            product = F.conv2d(operand(x, self.precision), weight, padding="same")
            x = F.relu(result(product, self.precision) + layer.bias[:, None, None])
        return x.permute(0, 2, 3, 1).flatten(1)

    def logits(
        self, features: Float[Tensor, "B yxf"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B J"]:
        """Two ReLU layers, dropout, a linear layer."""
        hidden1 = F.relu(self._dense(self.fc1, features))
        hidden2 = F.relu(self._dense(self.fc2, hidden1))
        if kept is not None:
            hidden2 = hidden2 * (kept.to(hidden2.dtype) / (1 - self.model.dropout))  # so that evaluation need not scale
        return self._dense(self.fc3, hidden2)

    def _dense(self, layer: nn.Linear, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, layer.weight, layer.bias, self.precision)


Network = Cnn


def scores(logits: Float[Tensor, "B J"]) -> Float[Tensor, "B J"]:
    """The probabilities of the classes."""
    return torch.softmax(logits, dim=1)


def outputs(net: Cnn, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (logits,) = net(images)
    return None, scores(logits), None, None


def losses(
    net: Cnn,
    logits: Float[Tensor, "B J"],
    images: Float[Tensor, "B y x c"],
    labels: Int[Tensor, " B"],
    mask: Int[Tensor, " B"],
) -> Float[Tensor, "1 B"]:
    """Each image's cross-entropy; there is no decoder that `images` and `mask` could mean anything to."""
    return F.cross_entropy(logits, labels, reduction="none")[None]
