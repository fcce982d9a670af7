"""The kinds of model in PyTorch, a module each: see `impls.architecture`."""

from __future__ import annotations

from typing import cast

from harness.spec import part
from impls.architecture import Architecture
from impls.torch.models import capsnet, cnn

ARCHITECTURES: dict[str, Architecture] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""


def architecture(kind: str) -> Architecture:
    """A built-in kind's, or what a kind from elsewhere registers for PyTorch. Raises `UserError` where it has none."""
    return ARCHITECTURES.get(kind) or cast(Architecture, part(kind, "torch", Architecture))
