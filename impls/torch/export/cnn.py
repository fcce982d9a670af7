"""A trained CNN, a baseline for CapsNets, in PyTorch alone; config.json and weights.pt lie beside this file.

    from model import load

    net = load()
    probabilities, logits = net(pixels)  # pixels / 255 as float32 (B, C, H, W) -> (B, classes) both
    predicted = probabilities.argmax(1)  # or topk(K), where config.json says that images show K digits: "overlaid"

It is an ordinary module: train it on, or take `torch.load("weights.pt", weights_only=True)` for a model of your own.
program.pt2 needs no code at all: `torch.export.load("program.pt2").module()(pixels)`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Cnn(nn.Module):
    """`model` is the section "model" of config.json."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        height, width, channels = model["image"]
        filters, kernel, self.pool = model["cnn_channels"], model["cnn_kernel"], model["cnn_pool"]
        kernels = [kernel] * len(filters) if isinstance(kernel, int) else kernel
        rows, columns = (side // self.pool ** len(filters) for side in (height, width))
        widths = [rows * columns * filters[-1], *model["cnn_units"], model["classes"]]
        convolutions = zip(pairwise([channels, *filters]), kernels, strict=True)
        self.conv = nn.ModuleList(nn.Conv2d(*sizes, kernel, padding="same") for sizes, kernel in convolutions)
        self.fc = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(widths))
        self.dropout, self.overlaid = model["dropout"], model["overlaid"]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in 0..1, (B, C, H, W), to the probabilities of the classes and their logits, (B, J)."""
        x = pixels
        for layer in self.conv:
            x = F.relu(layer(x))
            if self.pool > 1:
                x = F.max_pool2d(x, self.pool)
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels
        *hidden, last = self.fc
        for layer in hidden:
            x = F.relu(layer(x))
        logits = last(F.dropout(x, self.dropout, self.training))
        # if an image shows several digits, each class has an independent probability
        return logits.softmax(1) if self.overlaid == 1 else logits.sigmoid(), logits


def load(folder: str | Path = Path(__file__).parent) -> Cnn:
    """The trained model."""
    net = Cnn(json.loads((Path(folder) / "config.json").read_text())["model"])
    net.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
    return net.eval()
