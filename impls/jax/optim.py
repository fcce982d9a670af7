"""Adam as Kingma & Ba define it, and the learning rate per step, as an optax transformation."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, OptimSpec


def adam(optim: OptimSpec, dtype: type) -> optax.GradientTransformation:
    """Algorithm 1: epsilon is added to the root of the *bias-corrected* second moment. `update` needs the weights, too.

    optax's own Adam uses the plain form of the bias correction: in float32, its first step is off by 1e-5.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
        )

    def update(
        grads: dict[str, Array], state: optax.ScaleByAdamState, params: dict[str, Array]
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        grads = _add_decayed_weights(optim, grads, params)
        step, lr = (state.count + 1).astype(dtype), _lr_at(optim, state.count, dtype)
        first = jax.tree.map(lambda m, g: ADAM_BETA1 * m + (1 - ADAM_BETA1) * g, state.mu, grads)
        second = jax.tree.map(lambda m, g: ADAM_BETA2 * m + (1 - ADAM_BETA2) * g**2, state.nu, grads)

        def move(scale: float, m: Array, n: Array) -> Array:
            root = jnp.sqrt(n / _correction(ADAM_BETA2, step))
            return -lr * scale * (m / _correction(ADAM_BETA1, step)) / (root + ADAM_EPSILON)

        scales = {name: optim.lr_scale(name) for name in first}
        return jax.tree.map(move, scales, first, second), optax.ScaleByAdamState(state.count + 1, first, second)

    return optax.GradientTransformation(init, update)


def _lr_at(optim: OptimSpec, step: Int[Array, ""], dtype: type) -> Float[Array, ""]:
    """`OptimSpec.lr_at`, after `step` completed steps."""
    decay = optim.lr_decay
    if decay.kind == "constant":
        return jnp.asarray(optim.lr, dtype)
    is_smooth = decay.kind == "exponential"
    # a staircase divides integers: XLA multiplies by the reciprocal of a floating-point divisor
    periods = step.astype(dtype) / decay.steps if is_smooth else (step // decay.steps).astype(dtype)
    return jnp.maximum(optim.lr * decay.rate**periods, decay.floor)


def _correction(beta: float, step: Float[Array, ""]) -> Float[Array, ""]:
    """1 - beta^step. The plain form loses three digits of float32 in its first steps, where beta^step is nearly 1."""
    return -jnp.expm1(step * math.log(beta))


def _add_decayed_weights(optim: OptimSpec, grads: dict[str, Array], params: dict[str, Array]) -> dict[str, Array]:
    """The gradients with weight decay: L2, before Adam's moments."""
    decays = {name: optim.weight_decay_of(name) for name in params}
    return {name: grad + decays[name] * params[name] if decays[name] else grad for name, grad in grads.items()}
