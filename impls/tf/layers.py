"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions.

`f_vjp` takes the gradient at f's output back to its inputs; it is written by hand if TensorFlow's own takes longer.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Float
from tensorflow import Tensor

from harness.spec import SQUASH_EPSILON
from impls.tf.precision import operand, result

Routing = list[tuple[Float[Tensor, "B J 1 I"], Float[Tensor, "B J 1 e"], Float[Tensor, "B J 1 e"]]]
"""One (coupling c, input s, output v) per iteration."""


def squash(s: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = tf.reduce_sum(s * s, -1, keepdims=True)
    return s * (square / (1 + square) / tf.sqrt(square + SQUASH_EPSILON))


def squash_vjp(s: Float[Tensor, "*n d"], grad: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """squash(s) = s f(n) with n = s.s, so its gradient is f(n) g + 2 f'(n) (s.g) s."""
    square = tf.reduce_sum(s * s, -1, keepdims=True)
    root = tf.sqrt(square + SQUASH_EPSILON)
    scale = square / (1 + square) / root
    slope = 1 / (1 + square) / (1 + square) / root - 0.5 * scale / root / root
    return scale * grad + 2 * slope * tf.reduce_sum(s * grad, -1, keepdims=True) * s


def lengths(v: Float[Tensor, "*n e"]) -> Float[Tensor, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return tf.sqrt(tf.reduce_sum(v * v, -1) + SQUASH_EPSILON)


def scaled(x: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """factor * x, at no cost if the profile's factor is 1."""
    return x if factor == 1 else factor * x


def softmax(logits: Float[Tensor, "B J 1 I"], leak: bool = False) -> Float[Tensor, "B J 1 I"]:
    """Eq. 3: over the output capsules. TensorFlow's own would transpose the axis to the end and back.

    `leak` adds a category that is none of them: its logit stays 0, and its share is left out (section 7).
    """
    if leak:
        logits = tf.pad(logits, ((0, 0), (0, 1), (0, 0), (0, 0)))
    exponential = tf.exp(logits - tf.reduce_max(logits, 1, keepdims=True))
    coupling = exponential / tf.reduce_sum(exponential, 1, keepdims=True)
    return coupling[:, :-1] if leak else coupling


def softmax_vjp(coupling: Float[Tensor, "B J 1 I"], grad: Float[Tensor, "B J 1 I"]) -> Float[Tensor, "B J 1 I"]:
    """From softmax's output c: c (g - c.g), summed over the output capsules; what leaks has no gradient."""
    return coupling * (grad - tf.reduce_sum(coupling * grad, 1, keepdims=True))


def votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I J d e"]) -> Float[Tensor, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    flat = tf.reshape(tf.transpose(w, (0, 2, 1, 3)), (capsules, dim, classes * digit_dim))
    product = tf.matmul(tf.transpose(u, (1, 0, 2)), flat)
    return tf.transpose(tf.reshape(product, (capsules, -1, classes, digit_dim)), (1, 2, 0, 3))


def route(
    u_hat: Float[Tensor, "B J I e"], iterations: int, bias: Float[Tensor, "J e"] | None = None, leak: bool = False
) -> Routing:
    """Procedure 1, as matrix products over the votes.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement uses only the votes. `leak` as in
    `softmax`.
    """
    batch, classes, capsules, _ = u_hat.shape
    logits = tf.zeros((batch, classes, 1, capsules), u_hat.dtype)
    history: Routing = []
    for iteration in range(iterations):
        coupling = softmax(logits, leak)
        s = tf.matmul(coupling, u_hat)  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        history.append((coupling, s, v))
        if iteration < iterations - 1:
            logits = logits + tf.matmul(v, u_hat, transpose_b=True)
    return history


def route_vjp(
    u_hat: Float[Tensor, "B J I e"], history: Routing, grad: Float[Tensor, "B J 1 e"]
) -> tuple[Float[Tensor, "B J I e"], Float[Tensor, "J e"]]:
    """Gradients for the votes and for the bias, even if there is none.

    Every use of the votes adds a product of a number per vote and a vector per output capsule to their gradient. These
    are collected, and the gradient is written once.
    """
    numbers: list[Tensor] = []
    vectors: list[Tensor] = []
    grad_bias = tf.zeros_like(grad[0, :, 0])
    grad_logits = tf.zeros_like(history[0][0])
    for k in reversed(range(len(history))):
        coupling, s, _ = history[k]
        grad_s = squash_vjp(s, grad)
        grad_bias = grad_bias + tf.reduce_sum(grad_s, (0, 2))
        numbers.append(coupling)
        vectors.append(grad_s)
        if k:
            grad_logits = grad_logits + softmax_vjp(coupling, tf.matmul(grad_s, u_hat, transpose_b=True))
            numbers.append(grad_logits)
            vectors.append(history[k - 1][2])
            grad = tf.matmul(grad_logits, u_hat)
    return tf.matmul(tf.concat(numbers, 2), tf.concat(vectors, 2), transpose_a=True), grad_bias


def routed(
    u_hat: Float[Tensor, "B J I e"], iterations: int, leak: bool, bias: Float[Tensor, "J e"] | None = None
) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
    """The output capsules of `route`, with `route_vjp` as gradient, and the last coupling coefficients, without one."""

    @tf.custom_gradient
    def capsules(
        u_hat: Float[Tensor, "B J I e"], *bias: Float[Tensor, "J e"]
    ) -> tuple[tuple[Tensor, Tensor], Callable[[Tensor, Tensor], tuple[Tensor, ...]]]:
        history = route(u_hat, iterations, *bias, leak=leak)
        coupling, _, v = history[-1]
        return (v, coupling), lambda grad, _: route_vjp(u_hat, history, grad)[: 1 + len(bias)]

    v, coupling = capsules(u_hat, *(() if bias is None else (bias,)))
    return tf.squeeze(v, 2), tf.squeeze(coupling, 2)


def digit_votes(u: Float[Tensor, "B I d"], w: Float[Tensor, "I J d e"], precision: str) -> Float[Tensor, "B J I e"]:
    """The votes as `digit_capsules` computes them."""
    return result(votes(operand(u, precision), operand(w, precision)), precision)


def digit_capsules(
    u: Float[Tensor, "B I d"],
    w: Float[Tensor, "I J d e"],
    bias: Float[Tensor, "J e"] | None,
    routing: int,
    leak: bool,
    precision: str,
) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
    """The output capsules, and the last coupling coefficients."""
    return routed(digit_votes(u, w, precision), routing, leak, bias)
