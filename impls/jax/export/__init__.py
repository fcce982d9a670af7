"""Trained weights as files for JAX: a NumPy archive and a serialised program."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from harness.spec import ModelSpec, Weights
from impls.jax.export import capsnet, cnn

STANDALONE = {"capsnet": capsnet, "cnn": cnn}
"""Kind of model -> the module exported as its model.py."""
_FORWARD = {"capsnet": capsnet.capsnet, "cnn": cnn.cnn}


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    """Writes weights.npz and program.bin (any batch size, for CPUs and NVIDIA GPUs); returns their names.

    config.json is already in the folder.
    """
    np.savez(folder / "weights.npz", allow_pickle=False, **weights)
    shape = (*jax_export.symbolic_shape("batch"), *model.image)
    forward = jax.jit(partial(_FORWARD[model.kind], *STANDALONE[model.kind].load(folder)))
    program = jax_export.export(forward, platforms=("cpu", "cuda"))(jax.ShapeDtypeStruct(shape, jnp.float32))
    (folder / "program.bin").write_bytes(program.serialize())
    return ["weights.npz", "program.bin"]
