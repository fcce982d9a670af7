"""The kinds of model in PyTorch, a module each: see `impls.architecture`."""

from __future__ import annotations

from impls.architecture import Architecture
from impls.torch.models import capsnet, cnn

ARCHITECTURES: dict[str, Architecture] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""
