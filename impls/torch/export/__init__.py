"""Trained weights as PyTorch's own files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from harness.spec import ModelSpec, Weights
from impls.torch.export import capsnet, cnn
from impls.torch.models import architecture

STANDALONE = {"capsnet": capsnet, "cnn": cnn}
"""Kind of model -> the module exported as its model.py."""
_LISTS: dict[str, Callable[[ModelSpec], dict[str, tuple[str, ...]]]] = {
    "capsnet": lambda model: {},
    "cnn": lambda model: {"conv": model.cnn_convolutions, "fc": model.cnn_dense},
}
"""Kind of model -> the lists of layers in model.py: their names, and the layers in them."""


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    """Writes weights.pt (a `state_dict`) and program.pt2 (any batch size); returns their names.

    config.json is already in the folder.
    """
    state = {
        own: torch.tensor(weights[name]).permute(np.argsort(order).tolist()).contiguous()
        for name, (own, order) in _canonical(model).items()
        if name in weights
    }
    torch.save(state, folder / "weights.pt")
    height, width, channels = model.image
    example = torch.zeros(2, channels, height, width)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(STANDALONE[model.kind].load(folder), (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "program.pt2")
    return ["weights.pt", "program.pt2"]


def _canonical(model: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Canonical name -> name in the `state_dict`, and the permutation that takes that tensor to the canonical layout."""
    lists = _LISTS[model.kind](model)
    own = {layer: f"{name}.{place}" for name, layers in lists.items() for place, layer in enumerate(layers)}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (parameter, order) in architecture(model.kind).Network.canonical(model).items():
        layer, dot, tensor = parameter.partition(".")
        found[name] = (f"{own.get(layer, layer)}{dot}{tensor}", order)
    return found
