"""The paper's baseline CNN (section 4.1) as functions over canonical weights, and its loss."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int, UInt8

from harness.spec import ModelSpec
from impls.jax.convolution import same_convolution
from impls.jax.precision import Products

CONVOLUTIONS, DENSE = ("conv1", "conv2", "conv3"), ("fc1", "fc2", "fc3")

Params = dict[str, Array]
"""Canonical names and layouts."""


def network(
    model: ModelSpec,
    w: Params,
    images: Float[Array, "B y x c"],
    products: Products,
    kept: UInt8[Array, "B U"] | None = None,
) -> tuple[Float[Array, "B J"]]:
    """Pixels in 0..1 to logits; in training `kept` is 1 where dropout keeps a unit of fc2, and 0 where not."""
    return (logits(model, w, features(w, images, products), products, kept),)


def once(model: ModelSpec, w: Params, products: Products) -> tuple[()]:
    """Nothing that stays the same over the batches of an evaluation needs to be computed first."""
    return ()


def features(w: Params, images: Float[Array, "B y x c"], products: Products) -> Float[Array, "B yxf"]:
    """Three ReLU convolutions, stride 1, SAME padding, flattened: rows, columns, channels."""
    x = images
    for layer in CONVOLUTIONS:
        x = jax.nn.relu(same_convolution(x, w[f"{layer}.w"], products) + w[f"{layer}.b"])
    return x.reshape(len(x), -1)


def logits(
    model: ModelSpec,
    w: Params,
    features: Float[Array, "B yxf"],
    products: Products,
    kept: UInt8[Array, "B U"] | None = None,
) -> Float[Array, "B J"]:
    """Two ReLU layers, dropout, a linear layer."""
    hidden1 = jax.nn.relu(products.matmul(features, w["fc1.w"]) + w["fc1.b"])
    hidden2 = jax.nn.relu(products.matmul(hidden1, w["fc2.w"]) + w["fc2.b"])
    if kept is not None:
        hidden2 = hidden2 * (kept.astype(hidden2.dtype) / (1 - model.dropout))  # so that evaluation need not scale
    return products.matmul(hidden2, w["fc3.w"]) + w["fc3.b"]


def scores(logits: Float[Array, "B J"]) -> Float[Array, "B J"]:
    """The probabilities of the classes."""
    return jax.nn.softmax(logits, axis=1)


def outputs(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products
) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (found,) = network(model, w, images, products)
    return None, scores(found), None, None


def losses(
    model: ModelSpec,
    w: Params,
    logits: Float[Array, "B J"],
    images: Float[Array, "B y x c"],
    labels: Int[Array, " B"],
    mask: Int[Array, " B"],
    products: Products,
) -> Float[Array, "1 B"]:
    """Each image's cross-entropy; there is no decoder that `images` and `mask` could mean anything to."""
    present = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return -(present * jax.nn.log_softmax(logits, axis=1)).sum(1)[None]
