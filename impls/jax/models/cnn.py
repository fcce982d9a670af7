"""The paper's baseline CNNs (sections 4.1 and 6.1) as functions over canonical weights, and its loss."""

from __future__ import annotations

import jax
import optax
from jax import Array
from jaxtyping import Float, Int, UInt8

from harness.spec import ModelSpec
from impls.jax.convolution import same_convolution
from impls.jax.overlay import present
from impls.jax.precision import Products

Params = dict[str, Array]
"""Canonical names and layouts."""


def network(
    model: ModelSpec,
    w: Params,
    images: Float[Array, "B y x c"],
    products: Products,
    kept: UInt8[Array, "B U"] | None = None,
) -> tuple[Float[Array, "B J"]]:
    """Pixels in 0..1 to logits; in training `kept` is 1 where dropout keeps a unit, and 0 where not."""
    return (logits(model, w, features(model, w, images, products), products, kept),)


def once(model: ModelSpec, w: Params, products: Products) -> tuple[()]:
    """Nothing that stays the same over the batches of an evaluation needs to be computed first."""
    return ()


def features(model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products) -> Float[Array, "B yxf"]:
    """ReLU convolutions, stride 1, SAME padding, each with max pooling, flattened: rows, columns, channels."""
    x = images
    for layer in model.cnn_convolutions:
        x = jax.nn.relu(same_convolution(x, w[f"{layer}.w"], products) + w[f"{layer}.b"])
        if model.cnn_pool > 1:
            x = max_pool(x, model.cnn_pool)
    return x.reshape(len(x), -1)


def max_pool(x: Float[Array, "B y x f"], side: int) -> Float[Array, "B h w f"]:
    """The largest of each side x side pixels; incomplete ones at the end are left out."""
    count, height, width, filters = x.shape
    inside = x[:, : height // side * side, : width // side * side]
    return inside.reshape(count, height // side, side, width // side, side, filters).max((2, 4))


def logits(
    model: ModelSpec,
    w: Params,
    features: Float[Array, "B yxf"],
    products: Products,
    kept: UInt8[Array, "B U"] | None = None,
) -> Float[Array, "B J"]:
    """ReLU layers, dropout, a linear layer."""
    *hidden, last = model.cnn_dense
    x = features
    for layer in hidden:
        x = jax.nn.relu(products.matmul(x, w[f"{layer}.w"]) + w[f"{layer}.b"])
    if kept is not None:
        x = x * (kept.astype(x.dtype) / (1 - model.dropout))  # so that evaluation need not scale
    return products.matmul(x, w[f"{last}.w"]) + w[f"{last}.b"]


def scores(model: ModelSpec, logits: Float[Array, "B J"]) -> Float[Array, "B J"]:
    """The probabilities of the classes; of several digits, each by itself."""
    return jax.nn.softmax(logits, axis=1) if model.overlaid == 1 else jax.nn.sigmoid(logits)


def outputs(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products
) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (found,) = network(model, w, images, products)
    return None, scores(model, found), None, None


def losses(
    model: ModelSpec,
    w: Params,
    logits: Float[Array, "B J"],
    digits: Float[Array, "B K y x c"],
    labels: Int[Array, "B K"],
    mask: Int[Array, "B K"],
    products: Products,
) -> Float[Array, "1 B"]:
    """Each image's cross-entropy; there is no decoder that `digits` and `mask` could mean anything to."""
    if model.overlaid == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, 0])[None]
    return optax.sigmoid_binary_cross_entropy(logits, present(labels, logits)).sum(1)[None]
