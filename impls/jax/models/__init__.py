"""The kinds of model in JAX, a module each: see `impls.architecture`."""

from __future__ import annotations

from impls.architecture import Architecture
from impls.jax.models import capsnet, cnn

ARCHITECTURES: dict[str, Architecture] = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""
