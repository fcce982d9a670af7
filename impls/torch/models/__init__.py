"""The kinds of model in PyTorch, a module each."""

from __future__ import annotations

from impls.torch.models import capsnet, cnn

ARCHITECTURES = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""
