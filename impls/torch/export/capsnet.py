"""A trained CapsNet (Sabour, Frosst, Hinton, NIPS 2017) in PyTorch alone; config.json and weights.pt lie beside this file.

    from model import load

    net = load()
    lengths, capsules = net(pixels)  # pixels / 255 as float32 (B, C, H, W) -> (B, classes), (B, classes, dimensions)
    predicted = lengths.argmax(1)  # or topk(K); images with K digits ("overlaid") have K, one column at a time
    images = net.reconstruct(capsules, predicted)  # (B, C, H, W), of a model with a decoder

It is an ordinary module: train it on, or take `torch.load("weights.pt", weights_only=True)` for a model of your own.
program.pt2 needs no code at all: `torch.export.load("program.pt2").module()(pixels)`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-9  # under every root: gradients are finite at zero


class CapsNet(nn.Module):
    """`model` is the section "model" of config.json."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        height, width, channels = model["image"]
        kernel, self.dim, self.types = model["kernel"], model["primary_dim"], model["primary_types"]
        rows, columns = ((side - 2 * kernel + 1) // 2 + 1 for side in (height, width))
        self.image, self.routing = (channels, height, width), model["routing"]
        self.leak = model["none_of_the_above"]
        official = model["profile"] == "official"  # the authors' code where it differs from the paper
        self.scale = 1 / self.types if official else 1.0
        self.conv1 = nn.Conv2d(channels, model["conv_channels"], kernel)
        self.primary = nn.Conv2d(model["conv_channels"], self.types * self.dim, kernel, stride=2)
        classes, digit_dim = model["classes"], model["digit_dim"]
        self.digit = nn.Parameter(torch.zeros(rows * columns * self.types, self.dim, classes, digit_dim))
        self.digit_bias = nn.Parameter(torch.zeros(classes, digit_dim)) if official else None
        if model["decoder"]:
            first, second = model["decoder_units"]
            self.dec1 = nn.Linear(classes * digit_dim, first)
            self.dec2 = nn.Linear(first, second)
            self.dec3 = nn.Linear(second, height * width * channels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in 0..1, (B, C, H, W), to the lengths of the class capsules, (B, J), and the capsules, (B, J, e)."""
        grid = self.primary(F.relu(self.conv1(pixels)) * self.scale)
        # channel = type * dim + d, capsule = (row * columns + column) * types + type
        u = squash(grid.permute(0, 2, 3, 1).reshape(-1, self.digit.shape[0], self.dim))
        capsules = self.route(torch.einsum("bid,idje->bije", u, self.digit))
        return lengths(capsules), capsules

    def route(self, votes: Tensor) -> Tensor:
        """Procedure 1 of the paper: votes (B, I, J, e) to capsules (B, J, e).

        With `leak`, a category that is none of them, with logit 0, takes a share (section 7).
        """
        logits = torch.zeros_like(votes[..., 0])
        for iteration in range(self.routing):
            coupling = F.pad(logits, (0, 1)).softmax(2)[..., :-1] if self.leak else logits.softmax(2)
            s = torch.einsum("bij,bije->bje", coupling, votes)
            v = squash(s if self.digit_bias is None else s + self.digit_bias)
            if iteration + 1 < self.routing:
                logits = logits + torch.einsum("bije,bje->bij", votes, v)
        return v  # pyright: ignore[reportPossiblyUnboundVariable]

    def reconstruct(self, capsules: Tensor, classes: Tensor) -> Tensor:
        """The decoder's output for the capsule of each image's class: pixels in 0..1, (B, C, H, W)."""
        mask = F.one_hot(classes, capsules.shape[1]).to(capsules.dtype)
        hidden = F.relu(self.dec2(F.relu(self.dec1((capsules * mask[..., None]).flatten(1)))))
        channels, height, width = self.image
        return torch.sigmoid(self.dec3(hidden)).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def squash(s: Tensor) -> Tensor:
    """Eq. 1 of the paper."""
    square = (s * s).sum(-1, keepdim=True)
    return s * (square / (1 + square) / torch.sqrt(square + EPSILON))


def lengths(capsules: Tensor) -> Tensor:
    return torch.sqrt((capsules * capsules).sum(-1) + EPSILON)


def load(folder: str | Path = Path(__file__).parent) -> CapsNet:
    """The trained model."""
    net = CapsNet(json.loads((Path(folder) / "config.json").read_text())["model"])
    net.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
    return net.eval()
