"""The kinds of model in PyTorch, one module each: see `impls.architecture`."""

from __future__ import annotations

from typing import cast

from harness.spec import part
from impls.architecture import Architecture
from impls.torch.models import capsnet, cnn

ARCHITECTURES: dict[str, Architecture] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""


def architecture(kind: str) -> Architecture:
    """A built-in kind's architecture, or one that an external kind registers for PyTorch; `UserError` if it has none."""
    return ARCHITECTURES.get(kind) or cast(Architecture, part(kind, "torch", Architecture))
