"""Where a training step's time goes: its parts, each a separate program, and a trace by JAX's profiler."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from impls.jax.overlay import overlay
from impls.jax.steps import Steps


def parts(steps: Steps, batch: int) -> dict[str, Callable[[], None]]:
    """The parts of a training step of `batch` images, on the current weights and images.

    See `harness.spec.Profiled`. Each is compiled like the training step, at its first call. Together they take longer
    than the step, which gets its memory from the system once, and fuses loops where the parts write and read
    intermediate results.
    """
    shape = (batch, steps.model.overlaid)
    order = jax.device_put(np.arange(math.prod(shape), dtype=np.int32).reshape(shape) % len(steps.labels), steps.device)
    shifts = jax.device_put(np.ones((*shape, 2), np.int8), steps.device)
    staged = steps.images, steps.labels

    def data(staged: tuple[Array, Array], order: Array, shifts: Array) -> Array:
        return overlay(steps.batch_of(staged, order, shifts)[0])

    def both(function: Callable[..., Array], inputs: tuple[Array, ...], weights: Any) -> Callable[[], None]:
        """Runs the function, and computes the gradients for its inputs and the weights from a gradient of ones."""

        def there_and_back(*inputs: Any) -> tuple[Array, Any]:
            result, pull = jax.vjp(function, *inputs)
            return result, pull(jnp.ones_like(result))

        return _blocking(steps.compiled(there_and_back), *inputs, weights)

    params, state = dict(steps.state[0]), jax.tree.map(jnp.copy, steps.state)
    digits, classes = steps.compiled(steps.batch_of)(staged, order, shifts)
    layers = cast("dict[str, Callable[[], None]]", steps.kind.parts(steps.net(params), digits, classes, both))
    update = steps.compiled(steps.update, donate_argnums=0)

    def optimiser() -> None:
        nonlocal state
        state = jax.block_until_ready(update(state, params))  # weights have their gradients' shapes

    return {"data": _blocking(steps.compiled(data), staged, order, shifts), **layers, "optimiser": optimiser}


def _blocking(function: Callable[..., Any], *inputs: Any) -> Callable[[], None]:
    def run() -> None:
        jax.block_until_ready(function(*inputs))

    return run


def trace(train: Callable[[], object], path: Path) -> None:
    """Runs `train` under JAX's profiler; `path`, which ends in .json.gz, opens in Perfetto (ui.perfetto.dev)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            train()
        [written] = Path(folder).rglob("*.trace.json.gz")
        shutil.move(written, path)
