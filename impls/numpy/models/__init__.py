"""The kinds of model in NumPy, a module each."""

from __future__ import annotations

from impls.numpy.models import capsnet, cnn

ARCHITECTURES = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""
