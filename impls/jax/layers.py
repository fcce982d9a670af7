"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions.

`f_vjp` takes the gradient at f's output back to its inputs; it is written by hand if JAX's own takes longer.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from harness.spec import SQUASH_EPSILON
from impls.jax.precision import Precision, matmul

Routing = list[tuple[Float[Array, "B J 1 I"], Float[Array, "B J 1 e"], Float[Array, "B J 1 e"]]]
"""One (coupling c, input s, output v) per iteration."""


def squash(s: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Eq. 1: |s|^2 / (1 + |s|^2) * s / |s|, with |s| = sqrt(s.s + epsilon)."""
    square = (s * s).sum(-1, keepdims=True)
    return s * (square / (1 + square) / jnp.sqrt(square + SQUASH_EPSILON))


def squash_vjp(s: Float[Array, "*n d"], grad: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """JAX's own."""
    return jax.vjp(squash, s)[1](grad)[0]


def lengths(v: Float[Array, "*n e"]) -> Float[Array, "*n"]:
    """Capsule lengths |v| = sqrt(v.v + epsilon)."""
    return jnp.sqrt((v * v).sum(-1) + SQUASH_EPSILON)


def scaled(x: Float[Array, "*n"], factor: float) -> Float[Array, "*n"]:
    """factor * x, at no cost if the profile's factor is 1."""
    return x if factor == 1 else factor * x


def softmax(logits: Float[Array, "B J 1 I"], leak: bool = False) -> Float[Array, "B J 1 I"]:
    """Eq. 3: over the output capsules.

    `leak` adds a category that is none of them: its logit stays 0, and its share is left out (section 7).
    """
    if leak:
        logits = jnp.pad(logits, ((0, 0), (0, 1), (0, 0), (0, 0)))
    coupling = jax.nn.softmax(logits, axis=1)
    return coupling[:, :-1] if leak else coupling


def softmax_vjp(coupling: Float[Array, "B J 1 I"], grad: Float[Array, "B J 1 I"]) -> Float[Array, "B J 1 I"]:
    """From softmax's output c: c (g - c.g), summed over the output capsules; what leaks has no gradient."""
    return coupling * (grad - (coupling * grad).sum(1, keepdims=True))


def votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"], precision: Precision) -> Float[Array, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    matrices = w.transpose(0, 2, 1, 3).reshape(capsules, dim, classes * digit_dim)
    product = matmul(u.transpose(1, 0, 2), matrices, precision)
    return product.reshape(capsules, -1, classes, digit_dim).transpose(1, 2, 0, 3)


def route(
    u_hat: Float[Array, "B J I e"], iterations: int, bias: Float[Array, "J e"] | None = None, leak: bool = False
) -> Routing:
    """Procedure 1, as matrix products over the votes.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement uses only the votes. `leak` as in
    `softmax`.
    """
    # the barrier keeps XLA from computing the softmax of zeros at compile time, which takes seconds
    logits = lax.optimization_barrier(jnp.zeros((*u_hat.shape[:2], 1, u_hat.shape[2]), u_hat.dtype))
    history: Routing = []
    for iteration in range(iterations):
        coupling = softmax(logits, leak)
        s = coupling @ u_hat  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        history.append((coupling, s, v))
        if iteration < iterations - 1:
            logits = logits + v @ u_hat.mT
    return history


def route_vjp(
    u_hat: Float[Array, "B J I e"], history: Routing, grad: Float[Array, "B J 1 e"]
) -> tuple[Float[Array, "B J I e"], Float[Array, "J e"]]:
    """Gradients for the votes and for the bias, even if there is none.

    Every use of the votes adds a product of a number per vote and a vector per output capsule to their gradient. These
    are collected, and the gradient is written once.
    """
    numbers: list[Array] = []
    vectors: list[Array] = []
    grad_bias = jnp.zeros_like(grad[0, :, 0])
    grad_logits = jnp.zeros_like(history[0][0])
    for k in reversed(range(len(history))):
        coupling, s, _ = history[k]
        grad_s = squash_vjp(s, grad)
        grad_bias = grad_bias + grad_s.sum((0, 2))
        numbers.append(coupling)
        vectors.append(grad_s)
        if k:
            grad_logits = grad_logits + softmax_vjp(coupling, grad_s @ u_hat.mT)
            numbers.append(grad_logits)
            vectors.append(history[k - 1][2])
            grad = grad_logits @ u_hat
    # XLA fuses the products and their sum; in the votes' own order, input capsules first
    products = zip(numbers, vectors, strict=True)
    grad_u_hat = cast(
        Array, sum(number[:, :, 0].transpose(2, 0, 1)[..., None] * vector[:, :, 0] for number, vector in products)
    )
    return grad_u_hat.transpose(1, 2, 0, 3), grad_bias


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def routed(
    u_hat: Float[Array, "B J I e"], iterations: int, leak: bool, bias: Float[Array, "J e"] | None = None
) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
    """The output capsules of `route`, with `route_vjp` as gradient, and the last coupling coefficients, without one."""
    return _routed(u_hat, iterations, leak, bias)[0]


_Saved = tuple[Float[Array, "B J I e"], Routing, Float[Array, "J e"] | None]


def _routed(
    u_hat: Float[Array, "B J I e"], iterations: int, leak: bool, bias: Float[Array, "J e"] | None
) -> tuple[tuple[Float[Array, "B J e"], Float[Array, "B J I"]], _Saved]:
    history = route(u_hat, iterations, bias, leak)
    coupling, _, v = history[-1]
    return (v.squeeze(2), coupling.squeeze(2)), (u_hat, history, bias)


def _routed_vjp(
    _iterations: int, _leak: bool, saved: _Saved, grads: tuple[Float[Array, "B J e"], Float[Array, "B J I"]]
) -> tuple[Float[Array, "B J I e"], Float[Array, "J e"] | None]:
    u_hat, history, bias = saved
    grad_u_hat, grad_bias = route_vjp(u_hat, history, grads[0][:, :, None])
    return grad_u_hat, None if bias is None else grad_bias


routed.defvjp(_routed, _routed_vjp)


def digit_votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"], precision: Precision) -> Float[Array, "B J I e"]:
    """The votes as `digit_capsules` computes them."""
    return votes(u, w, precision)


def digit_capsules(
    u: Float[Array, "B I d"],
    w: Float[Array, "I J d e"],
    bias: Float[Array, "J e"] | None,
    routing: int,
    leak: bool,
    precision: Precision,
) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
    """The output capsules, and the last coupling coefficients."""
    return routed(digit_votes(u, w, precision), routing, leak, bias)
