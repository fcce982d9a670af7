"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from harness.spec import SQUASH_EPSILON


def squash(s: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = (s * s).sum(-1, keepdims=True)
    return s * (square / (1 + square) / jnp.sqrt(square + SQUASH_EPSILON))


def lengths(v: Float[Array, "*n e"]) -> Float[Array, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return jnp.sqrt((v * v).sum(-1) + SQUASH_EPSILON)


def scaled(x: Float[Array, "*n"], factor: float) -> Float[Array, "*n"]:
    """factor * x, at no cost where the profile's factor is 1."""
    return x if factor == 1 else factor * x


def votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"]) -> Float[Array, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    product = u.transpose(1, 0, 2) @ w.transpose(0, 2, 1, 3).reshape(capsules, dim, classes * digit_dim)
    return product.reshape(capsules, -1, classes, digit_dim).transpose(1, 2, 0, 3)


def route(
    u_hat: Float[Array, "B J I e"], iterations: int, bias: Float[Array, "J e"] | None = None
) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
    """Procedure 1, as matrix products over the votes: the output capsules, and the last coupling coefficients.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement is with the votes alone.
    """
    # the barrier keeps XLA from computing the softmax of zeros while it compiles, which takes it seconds
    logits = lax.optimization_barrier(jnp.zeros((*u_hat.shape[:2], 1, u_hat.shape[2]), u_hat.dtype))
    for iteration in range(iterations):
        coupling = jax.nn.softmax(logits, axis=1)  # Eq. 3: over the output capsules
        s = coupling @ u_hat  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        if iteration < iterations - 1:
            logits = logits + v @ u_hat.mT
    return v.squeeze(2), coupling.squeeze(2)
