"""The CapsNet of section 4 as functions over canonical weights, and its losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.jax.convolution import convolution, kernel_spectrum
from impls.jax.layers import lengths, routed, scaled, squash, votes
from impls.jax.precision import Products

Params = dict[str, Array]
"""Canonical names and layouts."""


def primary_capsules(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products, spectrum: Array | None = None
) -> Float[Array, "B I d"]:
    """Both convolutions: no ReLU after the second, whose channels are squashed in groups."""
    conv1 = jax.nn.relu(convolution(images, w["conv1.w"], 1, products) + w["conv1.b"])
    # scaling its input scales the convolution, but not its bias
    grid = convolution(scaled(conv1, model.primary_scale), w["primary.w"], 2, products, spectrum) + w["primary.b"]
    # channel = type * dim + d, so capsule i = (row * width + column) * types + type
    primary = grid.reshape(-1, model.primary_capsules, model.primary_dim)
    return squash(primary)


def once(model: ModelSpec, w: Params, products: Products) -> tuple[Float[Array, "R phases*c f"] | None]:
    """What stays the same over the batches of an evaluation: what `network` takes besides."""
    return (kernel_spectrum(model.conv_grid, w["primary.w"], 2, products),)


def network(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products, spectrum: Array | None = None
) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
    """Pixels in 0..1 to output capsules and coupling coefficients.

    `spectrum` is `once`'s, for when the weights stay the same over many batches.
    """
    u_hat = votes(primary_capsules(model, w, images, products, spectrum), w["digit.w"], products)
    return routed(u_hat, model.routing, w["digit.b"] if model.digit_bias else None)


def decode(w: Params, v: Float[Array, "B J e"], mask: Int[Array, " B"], products: Products) -> Float[Array, "B p"]:
    """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer."""
    masked = (v * one_hot(mask, v)[..., None]).reshape(len(v), -1)
    hidden1 = jax.nn.relu(products.matmul(masked, w["dec1.w"]) + w["dec1.b"])
    hidden2 = jax.nn.relu(products.matmul(hidden1, w["dec2.w"]) + w["dec2.b"])
    return jax.nn.sigmoid(products.matmul(hidden2, w["dec3.w"]) + w["dec3.b"])


def scores(v: Float[Array, "B J e"]) -> Float[Array, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return lengths(v)


def outputs(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products
) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsule."""
    v, coupling = network(model, w, images, products)
    length, reconstruction = scores(v), None
    if model.decoder:
        reconstruction = decode(w, v, length.argmax(1), products).reshape(images.shape)
    return v, length, coupling.mT, reconstruction


def one_hot(classes: Int[Array, " B"], v: Float[Array, "B J e"]) -> Float[Array, "B J"]:
    """Masks for the capsules `v`, in their precision."""
    return jax.nn.one_hot(classes, v.shape[1], dtype=v.dtype)


def margin_loss(length: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Eq. 4, summed over the classes."""
    missed = jax.nn.relu(MARGIN_PLUS - length) ** 2
    imagined = jax.nn.relu(length - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(reconstruction: Float[Array, "B p"], images: Float[Array, "B y x c"]) -> Float[Array, " B"]:
    """Section 4.1: the sum of squared differences of an image's pixels, not yet scaled down by 0.0005."""
    return ((reconstruction - images.reshape(reconstruction.shape)) ** 2).sum(1)


def losses(
    model: ModelSpec,
    w: Params,
    v: Float[Array, "B J e"],
    images: Float[Array, "B y x c"],
    labels: Int[Array, " B"],
    mask: Int[Array, " B"],
    products: Products,
) -> Float[Array, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsule of class `mask`."""
    margin = scaled(margin_loss(lengths(v), one_hot(labels, v)), model.margin_scale)
    if not model.decoder:
        return jnp.stack([margin, margin, jnp.zeros_like(margin)])
    reconstruction = reconstruction_loss(decode(w, v, mask, products), images)
    return jnp.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])
