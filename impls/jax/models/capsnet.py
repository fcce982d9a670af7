"""The CapsNet of section 4 as functions over canonical weights, and its losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.jax.convolution import convolution, kernel_spectrum
from impls.jax.layers import lengths, routed, scaled, squash, votes
from impls.jax.overlay import one_hot, present, winners
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


def decode(w: Params, v: Float[Array, "B J e"], mask: Int[Array, "B K"], products: Products) -> Float[Array, "BK p"]:
    """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer.

    K digits of an image one after the other, each from its own capsule alone (section 6.2).
    """
    masked = (v[:, None] * one_hot(mask, v)[..., None]).reshape(mask.size, -1)
    hidden1 = jax.nn.relu(products.matmul(masked, w["dec1.w"]) + w["dec1.b"])
    hidden2 = jax.nn.relu(products.matmul(hidden1, w["dec2.w"]) + w["dec2.b"])
    return jax.nn.sigmoid(products.matmul(hidden2, w["dec3.w"]) + w["dec3.b"])


def scores(model: ModelSpec, v: Float[Array, "B J e"]) -> Float[Array, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return lengths(v)


def outputs(
    model: ModelSpec, w: Params, images: Float[Array, "B y x c"], products: Products
) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsules."""
    v, coupling = network(model, w, images, products)
    length, reconstruction = scores(model, v), None
    if model.decoder:
        found = decode(w, v, winners(length, model.overlaid), products)
        reconstruction = found.reshape(-1, *model.several, *model.image)
    return v, length, coupling.mT, reconstruction


def margin_loss(length: Float[Array, "B J"], present: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Eq. 4, summed over the classes."""
    missed = jax.nn.relu(MARGIN_PLUS - length) ** 2
    imagined = jax.nn.relu(length - MARGIN_MINUS) ** 2
    return (present * missed + MARGIN_LAMBDA * (1 - present) * imagined).sum(1)


def reconstruction_loss(reconstruction: Float[Array, "BK p"], digits: Float[Array, "B K y x c"]) -> Float[Array, " B"]:
    """Section 4.1: the sum of squared differences of an image's pixels, of all its digits; not yet scaled down by 0.0005."""
    return ((reconstruction.reshape(len(digits), -1) - digits.reshape(len(digits), -1)) ** 2).sum(1)


def losses(
    model: ModelSpec,
    w: Params,
    v: Float[Array, "B J e"],
    digits: Float[Array, "B K y x c"],
    labels: Int[Array, "B K"],
    mask: Int[Array, "B K"],
    products: Products,
) -> Float[Array, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsules of the classes `mask`."""
    margin = scaled(margin_loss(lengths(v), present(labels, v)), model.margin_scale)
    if not model.decoder:
        return jnp.stack([margin, margin, jnp.zeros_like(margin)])
    reconstruction = reconstruction_loss(decode(w, v, mask, products), digits)
    return jnp.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])
