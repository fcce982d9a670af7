"""The capsule layers. Axis letters: B images, I primary capsules of d dimensions, J output capsules of e dimensions."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from harness.spec import SQUASH_EPSILON
from impls.jax.precision import Products


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


def votes(u: Float[Array, "B I d"], w: Float[Array, "I J d e"], products: Products) -> Float[Array, "B J I e"]:
    """Eq. 2: u_hat_j|i = W_ij u_i, as one matrix product per primary capsule."""
    capsules, classes, dim, digit_dim = w.shape
    matrices = w.transpose(0, 2, 1, 3).reshape(capsules, dim, classes * digit_dim)
    product = products.matmul(u.transpose(1, 0, 2), matrices)
    return product.reshape(capsules, -1, classes, digit_dim).transpose(1, 2, 0, 3)


State = tuple[Float[Array, "B J 1 I"], Float[Array, "B J 1 e"], Float[Array, "B J 1 e"]]
"""Of one iteration: coupling c, input s, output v."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def route(
    u_hat: Float[Array, "B J I e"], iterations: int, bias: Float[Array, "J e"] | None = None
) -> tuple[Float[Array, "B J e"], Float[Array, "B J I"]]:
    """Procedure 1, as matrix products over the votes: the output capsules, and the last coupling coefficients.

    `bias`, of profile `official`, is added to s_j in every iteration; the agreement is with the votes alone.
    No gradient flows back through the coupling coefficients that are returned.
    """
    coupling, _, v = _states(u_hat, iterations, bias)[-1]
    return v.squeeze(2), coupling.squeeze(2)


def _states(u_hat: Float[Array, "B J I e"], iterations: int, bias: Float[Array, "J e"] | None) -> list[State]:
    # the barrier keeps XLA from computing the softmax of zeros while it compiles, which takes it seconds
    logits = lax.optimization_barrier(jnp.zeros((*u_hat.shape[:2], 1, u_hat.shape[2]), u_hat.dtype))
    states: list[State] = []
    for iteration in range(iterations):
        coupling = jax.nn.softmax(logits, axis=1)  # Eq. 3: over the output capsules
        s = coupling @ u_hat  # Eq. 2
        if bias is not None:
            s = s + bias[:, None]
        v = squash(s)
        states.append((coupling, s, v))
        if iteration < iterations - 1:
            logits = logits + v @ u_hat.mT
    return states


Saved = tuple[Float[Array, "B J I e"], list[State], Float[Array, "J e"] | None]


def _route_forward(
    u_hat: Float[Array, "B J I e"], iterations: int, bias: Float[Array, "J e"] | None
) -> tuple[tuple[Float[Array, "B J e"], Float[Array, "B J I"]], Saved]:
    states = _states(u_hat, iterations, bias)
    coupling, _, v = states[-1]
    return (v.squeeze(2), coupling.squeeze(2)), (u_hat, states, bias)


def route_vjp(
    iterations: int, saved: Saved, grads: tuple[Float[Array, "B J e"], Float[Array, "B J I"]]
) -> tuple[Float[Array, "B J I e"], Float[Array, "J e"] | None]:
    """Gradients for the votes and the bias, through every iteration.

    The votes are read twice an iteration and their gradient, a sum of outer products, is written once, where
    automatic differentiation would write and add up one such array for each use of the votes.
    """
    u_hat, states, bias = saved
    grad_v, grad_logits, grad_bias = grads[0][:, :, None], jnp.zeros_like(states[0][0]), 0.0
    outer: list[tuple[Float[Array, "B J 1 I"], Float[Array, "B J 1 e"]]] = []
    for iteration in reversed(range(iterations)):
        coupling, s, v = states[iteration]
        if iteration < iterations - 1:
            outer.append((grad_logits, v))
            grad_v = grad_logits @ u_hat
        (grad_s,) = jax.vjp(squash, s)[1](grad_v)
        outer.append((coupling, grad_s))
        grad_bias = grad_bias + grad_s.sum((0, 2))
        if iteration:
            grad_coupling = grad_s @ u_hat.mT
            grad_logits = grad_logits + coupling * (grad_coupling - (coupling * grad_coupling).sum(1, keepdims=True))
    # in the votes' own order: input capsules first
    grad = sum(over_i[:, :, 0].transpose(2, 0, 1)[..., None] * over_e[:, :, 0] for over_i, over_e in outer)
    return grad.transpose(1, 2, 0, 3), None if bias is None else grad_bias


route.defvjp(_route_forward, route_vjp)
