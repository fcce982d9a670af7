"""The kinds of model in the specification, one module each: see `impls.architecture.Specification`."""

from __future__ import annotations

from typing import cast

from harness.spec import part
from impls.architecture import Specification
from impls.numpy.models import capsnet, cnn

ARCHITECTURES: dict[str, Specification] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its specification."""


def architecture(kind: str) -> Specification:
    """A built-in kind's specification, or one that an external kind registers for NumPy; `UserError` if it has none."""
    return ARCHITECTURES.get(kind) or cast(Specification, part(kind, "numpy", Specification))
