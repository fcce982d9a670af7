"""The kinds of model in TensorFlow, a module each."""

from __future__ import annotations

from impls.tf.models import capsnet, cnn

ARCHITECTURES = {"capsnet": capsnet, "cnn": cnn}
"""Model kind -> the module that is its architecture."""
