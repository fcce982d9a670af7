"""The linear classifier in PyTorch: see `impls.architecture.Architecture`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsbench import ModelSpec


class Network(nn.Module):
    """One dense layer."""

    def __init__(self, model: ModelSpec, precision: str) -> None:
        super().__init__()
        self.model = model
        self.fc1 = nn.Linear(model.pixels, model.classes)

    @staticmethod
    def canonical(model: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"fc1.w": ("fc1.weight", (1, 0)), "fc1.b": ("fc1.bias", (0,))}

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.flatten(1) @ self.fc1.weight.T / self.model.temperature + self.fc1.bias,)

    def once(self) -> tuple[()]:
        return ()


def scores(model: ModelSpec, logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)


def outputs(net: Network, images: Tensor) -> tuple[Tensor | None, ...]:
    (logits,) = net(images)
    return None, scores(net.model, logits), None, None


def losses(net: Network, logits: Tensor, digits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels[:, 0], reduction="none")[None]


def stages(model: ModelSpec) -> dict[str, Callable[..., Tensor]]:
    """Optional, for the parts of a training step: see `impls.architecture.Staged`."""
    return {"dense": lambda net, images, labels: net(images)[0]}
