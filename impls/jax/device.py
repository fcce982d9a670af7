"""Questions that only JAX can answer: see `harness.spec.device.Device`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")


def environment(threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
    return {
        # GPU memory on demand, so that the reported peak is what the trial used.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # Otherwise JAX looks for accelerators, and warns that there are none.
        "JAX_PLATFORMS": None if gpu else "cpu",
        # JAX turns every float64 into float32 unless told otherwise at the start.
        "JAX_ENABLE_X64": "1" if precision == "fp64" else "0",
    }


def keep_compiled(folder: str) -> dict[str, str | None]:
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def without_gpu() -> str | None:
    if any(importlib.util.find_spec(plugin) for plugin in _PLUGINS):
        return None
    return "JAX is installed here without a CUDA plugin"


def gpus() -> list[str]:
    import jax

    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def product(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp

    dtype = {"fp64": jnp.float64, "bf16": jnp.bfloat16}.get(precision, jnp.float32)
    left = jax.device_put(jnp.asarray(a, dtype))
    right = left.T.copy()
    wanted = {"fp32": "highest", "tf32": "tensorfloat32"}.get(precision, "default") if gpu else "highest"
    multiply = jax.jit(partial(jnp.matmul, precision=wanted))

    def run() -> None:
        multiply(left, right).block_until_ready()

    return run


def copy(count: int) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    array = jax.device_put(np.zeros(count, np.uint8))
    invert = jax.jit(jnp.invert)  # XLA would elide a plain copy

    def run() -> None:
        invert(array).block_until_ready()

    return run
