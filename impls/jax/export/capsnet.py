"""A trained CapsNet (Sabour, Frosst, Hinton, NIPS 2017) in JAX alone; config.json and weights.npz lie beside this file.

    from model import capsnet, load, reconstruct

    model, params = load()
    lengths, capsules = capsnet(model, params, pixels)  # pixels / 255, (B, H, W, C) -> (B, classes), (B, classes, dims)
    predicted = lengths.argmax(1)  # or lax.top_k; images with K digits ("overlaid") have K, one column at a time
    images = reconstruct(model, params, capsules, predicted)  # (B, H, W, C), of a model with a decoder

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

EPSILON = 1e-9  # under every root: gradients are finite at zero
Model = dict[str, Any]
Params = dict[str, Array]


def convolution(x: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def capsnet(model: Model, params: Params, pixels: Array) -> tuple[Array, Array]:
    """Pixels in 0..1, (B, H, W, C), to the lengths of the class capsules, (B, J), and the capsules, (B, J, e)."""
    # the authors' code, where it differs from the paper, has a scale here and a bias in routing
    scale = 1 / model["primary_types"] if model["profile"] == "official" else 1.0
    conv1 = jax.nn.relu(convolution(pixels, params["conv1.w"], 1) + params["conv1.b"])
    grid = convolution(conv1 * scale, params["primary.w"], 2) + params["primary.b"]
    # channel = type * dim + d, capsule = (row * columns + column) * types + type
    u = squash(grid.reshape(-1, len(params["digit.w"]), model["primary_dim"]))
    votes, bias = jnp.einsum("bid,ijde->bije", u, params["digit.w"]), params.get("digit.b", 0.0)
    capsules = route(votes, model["routing"], bias, model["none_of_the_above"])
    return lengths(capsules), capsules


def route(votes: Array, iterations: int, bias: Array | float, leak: bool) -> Array:
    """Procedure 1 of the paper: votes (B, I, J, e) to capsules (B, J, e).

    With `leak`, a category that is none of them, with logit 0, takes a share (section 7).
    """
    logits = jnp.zeros_like(votes[..., 0])
    for iteration in range(iterations):
        shares = jax.nn.softmax(jnp.pad(logits, ((0, 0), (0, 0), (0, 1))) if leak else logits, 2)
        v = squash(jnp.einsum("bij,bije->bje", shares[..., :-1] if leak else shares, votes) + bias)
        if iteration + 1 < iterations:
            logits = logits + jnp.einsum("bije,bje->bij", votes, v)
    return v  # pyright: ignore[reportPossiblyUnboundVariable]


def reconstruct(model: Model, params: Params, capsules: Array, classes: Array) -> Array:
    """The decoder's output for the capsule of each image's class: pixels in 0..1, (B, H, W, C)."""
    mask = jax.nn.one_hot(classes, capsules.shape[1], dtype=capsules.dtype)
    hidden = (capsules * mask[..., None]).reshape(len(capsules), -1)
    for layer in ("dec1", "dec2"):
        hidden = jax.nn.relu(hidden @ params[f"{layer}.w"] + params[f"{layer}.b"])
    return jax.nn.sigmoid(hidden @ params["dec3.w"] + params["dec3.b"]).reshape(-1, *model["image"])


def squash(s: Array) -> Array:
    """Eq. 1 of the paper."""
    square = (s * s).sum(-1, keepdims=True)
    return s * (square / (1 + square) / jnp.sqrt(square + EPSILON))


def lengths(capsules: Array) -> Array:
    return jnp.sqrt((capsules * capsules).sum(-1) + EPSILON)


def load(folder: str | Path = Path(__file__).parent) -> tuple[Model, Params]:
    """The section "model" of config.json, and the trained parameters."""
    model = json.loads((Path(folder) / "config.json").read_text())["model"]
    with np.load(Path(folder) / "weights.npz") as arrays:
        return model, {name: jnp.asarray(array) for name, array in arrays.items()}
