"""The kinds of model in the specification, a module each: see `impls.architecture.Specification`."""

from __future__ import annotations

from impls.architecture import Specification
from impls.numpy.models import capsnet, cnn

ARCHITECTURES: dict[str, Specification] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its specification."""
