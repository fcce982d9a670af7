"""A trained CNN, a baseline for CapsNets, in JAX alone; config.json and weights.npz lie beside this file.

    from model import cnn, load

    model, params = load()
    probabilities, logits = cnn(model, params, pixels)  # pixels / 255, (B, H, W, C) -> (B, classes) both
    predicted = probabilities.argmax(1)  # or lax.top_k, where config.json says that images show K digits: "overlaid"

They are ordinary functions of a dictionary of arrays: differentiate them, jit them, train on. program.bin needs no code at
all: `jax.export.deserialize(open("program.bin", "rb").read()).call(pixels)`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Model = dict[str, Any]
Params = dict[str, Array]


def convolution(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def max_pool(x: Array, side: int) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, side, side, 1), (1, side, side, 1), "VALID")


def dropout(x: Array, rate: float, key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def cnn(model: Model, params: Params, pixels: Array, key: Array | None = None) -> tuple[Array, Array]:
    """Pixels in 0..1, (B, H, W, C), to the probabilities of the classes and their logits, (B, J); `key` is for training."""
    x = pixels
    for layer in range(1, len(model["cnn_channels"]) + 1):
        x = jax.nn.relu(convolution(x, params[f"conv{layer}.w"]) + params[f"conv{layer}.b"])
        if model["cnn_pool"] > 1:
            x = max_pool(x, model["cnn_pool"])
    x = x.reshape(x.shape[0], -1)  # rows, columns, channels
    last = len(model["cnn_units"]) + 1
    for layer in range(1, last):
        x = jax.nn.relu(x @ params[f"fc{layer}.w"] + params[f"fc{layer}.b"])
    if key is not None:
        x = dropout(x, model["dropout"], key)
    logits = x @ params[f"fc{last}.w"] + params[f"fc{last}.b"]
    # if an image shows several digits, each class has an independent probability
    return jax.nn.softmax(logits) if model["overlaid"] == 1 else jax.nn.sigmoid(logits), logits


def load(folder: str | Path = Path(__file__).parent) -> tuple[Model, Params]:
    """The section "model" of config.json, and the trained parameters."""
    model = json.loads((Path(folder) / "config.json").read_text())["model"]
    with np.load(Path(folder) / "weights.npz") as arrays:
        return model, {name: jnp.asarray(array) for name, array in arrays.items()}
