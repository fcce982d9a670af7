"""Trained weights as PyTorch's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harness.spec import ModelSpec, Weights
from impls.torch import standalone
from impls.torch.model import CANONICAL


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    """Writes weights.pt, a `state_dict`, and program.pt2, of any batch size; returns their names.

    config.json lies in the folder already.
    """
    state = {
        own: torch.tensor(weights[name]).permute(np.argsort(order).tolist()).contiguous()
        for name, (own, order) in CANONICAL.items()
        if name in weights
    }
    torch.save(state, folder / "weights.pt")
    height, width, channels = model.image
    example = torch.zeros(2, channels, height, width)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(standalone.load(folder), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "program.pt2")
    return ["weights.pt", "program.pt2"]
