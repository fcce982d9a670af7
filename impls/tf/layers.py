"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions."""

from __future__ import annotations

import tensorflow as tf
from jaxtyping import Float

from harness.spec import SQUASH_EPSILON

Tensor = tf.Tensor


def squash(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = tf.reduce_sum(s * s, -1, keepdims=True)
    return s * (square / (1 + square) / tf.sqrt(square + SQUASH_EPSILON))


def lengths(v: Float[Tensor, "*n e"]) -> Float[Tensor, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return tf.sqrt(tf.reduce_sum(v * v, -1) + SQUASH_EPSILON)


def scaled(x: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """factor * x, at no cost where the profile's factor is 1."""
    return x if factor == 1 else factor * x


def votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I J d e"]) -> Float[Tensor, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    flat = tf.reshape(tf.transpose(w, (0, 2, 1, 3)), (capsules, dim, classes * digit_dim))
    product = tf.matmul(tf.transpose(u, (1, 0, 2)), flat)
    return tf.transpose(tf.reshape(product, (capsules, -1, classes, digit_dim)), (1, 2, 0, 3))


def route(
    u_hat: Float[Tensor, "B J I e"], iterations: int, bias: Float[Tensor, "J e"] | None = None
) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
    """Procedure 1, as matrix products over the votes: the output capsules, and the last coupling coefficients.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement is with the votes alone.
    """
    batch, classes, capsules, _ = u_hat.shape
    logits = tf.zeros((batch, classes, 1, capsules), u_hat.dtype)
    for iteration in range(iterations):
        coupling = tf.nn.softmax(logits, axis=1)  # Eq. 3: over the output capsules
        s = tf.matmul(coupling, u_hat)  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        if iteration < iterations - 1:
            logits = logits + tf.matmul(v, u_hat, transpose_b=True)
    return tf.squeeze(v, 2), tf.squeeze(coupling, 2)
