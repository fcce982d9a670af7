"""Where a training step's time goes: its parts, each a program of its own, and a trace by JAX's profiler."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from harness.spec import EpochPlan
from impls.jax.layers import routed, votes
from impls.jax.models import cnn
from impls.jax.models.capsnet import Params, losses, primary_capsules
from impls.jax.optim import add_decayed_weights
from impls.jax.overlay import overlay

if TYPE_CHECKING:
    from impls.jax.impl import JaxImpl


def parts(impl: JaxImpl) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `impl.batch` images, on the weights and images that it has; see `harness.spec.Profiled`.

    Each is compiled as the training step is, at its first call. Together they take longer than the step, which takes its
    memory from the system once and hands on in fused loops what the parts write out and read again.
    """
    shape = (impl.batch, impl.model.overlaid)
    order = jax.device_put(np.arange(math.prod(shape), dtype=np.int32).reshape(shape) % len(impl.labels), impl.device)
    shifts = jax.device_put(np.ones((*shape, 2), np.int8), impl.device)

    def data(images: Array, order: Array, shifts: Array) -> Array:
        return overlay(impl.moved_digits(images, order, shifts))

    def optimiser(state: Any, grads: Params) -> Any:
        updates, moments = impl.adam.update(add_decayed_weights(impl.optim, grads, state[0]), state[1])
        return optax.apply_updates(state[0], updates), moments

    layers = _cnn_layers if impl.model.kind == "cnn" else _capsnet_layers
    digits = impl.jit(impl.moved_digits)(impl.images, order, shifts)
    between = layers(impl, dict(impl.state[0]), digits, impl.labels[order])
    params, state = dict(impl.state[0]), jax.tree.map(jnp.copy, impl.state)
    update = impl.jit(optimiser, donate_argnums=0)

    def optimise() -> None:
        nonlocal state
        state = jax.block_until_ready(update(state, params))  # weights have their gradients' shapes

    return {"data": _blocking(impl.jit(data), impl.images, order, shifts), **between, "optimiser": optimise}


def _capsnet_layers(impl: JaxImpl, params: Params, digits: Array, labels: Array) -> dict[str, Callable[[], None]]:
    model, products, pixels = impl.model, impl.products, overlay(digits)

    def conv(weights: Params, pixels: Array) -> Array:
        return primary_capsules(model, weights, pixels, products)

    def predict(u: Array, w: Array) -> Array:
        return votes(u, w, products)

    def routing(u_hat: Array, bias: Array | None) -> Array:
        return routed(u_hat, model.routing, bias)[0]

    def decoder(weights: Params, v: Array) -> Array:
        return losses(model, weights, v, digits, labels, labels, products).mean(1)[0]

    convolutions = {name: w for name, w in params.items() if name.startswith(("conv1", "primary"))}
    dense = {name: w for name, w in params.items() if name.startswith("dec")}
    u = impl.jit(conv)(convolutions, pixels)
    u_hat = impl.jit(predict)(u, params["digit.w"])
    v = impl.jit(routing)(u_hat, params.get("digit.b"))
    found = {
        "conv": _there_and_back(impl, lambda weights: conv(weights, pixels), convolutions),
        "votes": _there_and_back(impl, predict, u, params["digit.w"]),
        "routing": _there_and_back(impl, routing, u_hat, params.get("digit.b")),
        "decoder": _there_and_back(impl, decoder, dense, v),
    }
    if not model.decoder:
        del found["decoder"]
    return found


def _cnn_layers(impl: JaxImpl, params: Params, digits: Array, labels: Array) -> dict[str, Callable[[], None]]:
    model, products, pixels = impl.model, impl.products, overlay(digits)

    def conv(weights: Params) -> Array:
        return cnn.features(model, weights, pixels, products)

    def loss(weights: Params, features: Array) -> Array:
        logits = cnn.logits(model, weights, features, products, *kept)
        return cnn.losses(model, weights, logits, digits, labels, labels, products).mean()

    kept = [jnp.ones((len(pixels), model.dropped_units), jnp.uint8)] if model.dropped_units else []
    convolutions = {name: w for name, w in params.items() if name.startswith("conv")}
    dense = {name: w for name, w in params.items() if name.startswith("fc")}
    return {
        "conv": _there_and_back(impl, conv, convolutions),
        "dense": _there_and_back(impl, loss, dense, impl.jit(conv)(convolutions)),
    }


def _blocking(function: Callable[..., Any], *inputs: Any) -> Callable[[], None]:
    def run() -> None:
        jax.block_until_ready(function(*inputs))

    return run


def _there_and_back(impl: JaxImpl, function: Callable[..., Array], *inputs: Any) -> Callable[[], None]:
    """The function, and the gradients for all its inputs of a gradient of ones."""

    def both(*inputs: Any) -> tuple[Array, Any]:
        result, pull = jax.vjp(function, *inputs)
        return result, pull(jnp.ones_like(result))

    return _blocking(impl.jit(both), *inputs)


def trace(impl: JaxImpl, plan: EpochPlan, path: Path) -> None:
    """Trains an epoch under JAX's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            impl.train(plan)
        [written] = Path(folder).rglob("*.trace.json.gz")
        shutil.move(written, path)
