"""What the machine can do, as each library reaches it: the rate of a matrix product, and of copying memory.

Nothing here is a dependency: a library is looked for among those that are installed, and imported by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness.registry import Entry

LIBRARIES = ("numpy", "torch", "tensorflow", "jax")
_COPIED = 1 << 28  # bytes: larger than any cache
_AT_LEAST_S = 0.02  # a timed region; shorter ones are repeated within


def installed() -> list[str]:
    """The libraries that can be imported here."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def library_of(entry: Entry) -> str:
    """What an implementation that has been imported computes with: its own package, else what it has imported, else NumPy."""
    own = [name for name in LIBRARIES if name in entry.packages]
    loaded = [name for name in LIBRARIES[1:] if name in sys.modules]
    return (*own, *loaded, "numpy")[0]


def product_rate(product: Callable[[], None], size: int) -> float:
    """Operations per second of a product of `size` x `size` matrices, best of two; a multiply and an add count as two."""
    return 2 * size**3 / min(_seconds(product), _seconds(product))


def product(library: str, size: int, precision: str = "fp32", gpu: bool = False) -> Callable[[], None]:
    """A product of two random matrices that blocks until the device is done; called once already.

    On a GPU, operands are of `precision`, as in training: float32 for "tf32", whose rounding is the hardware's.
    """
    makers = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "jax": _jax}
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    made = makers[library](a, precision, gpu)
    made()
    return made


def _numpy(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    b, out = a.T.copy(), np.empty_like(a)

    def run() -> None:
        np.matmul(a, b, out=out)

    return run


def _torch(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    torch: Any = importlib.import_module("torch")
    dtype = {"fp64": torch.float64, "bf16": torch.bfloat16}.get(precision, torch.float32)
    left = torch.tensor(a, device="cuda" if gpu else "cpu", dtype=dtype)
    right, out = left.T.contiguous(), torch.empty_like(left)

    def run() -> None:
        torch.mm(left, right, out=out)
        if gpu:
            torch.cuda.synchronize()

    return run


def _tensorflow(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    tf: Any = importlib.import_module("tensorflow")
    with tf.device("/GPU:0" if gpu else "/CPU:0"):
        left = tf.cast(tf.constant(a), {"fp64": tf.float64, "bf16": tf.bfloat16}.get(precision, tf.float32))
        right = tf.transpose(left)

    def run() -> None:
        out = tf.matmul(left, right)
        float(out[0, 0])  # waits for the whole product, and brings one number back

    return run


def _jax(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    dtype = {"fp64": jnp.float64, "bf16": jnp.bfloat16}.get(precision, jnp.float32)
    left = jax.device_put(jnp.asarray(a, dtype))
    right = left.T.copy()
    wanted = {"fp32": "highest", "tf32": "tensorfloat32"}.get(precision, "default") if gpu else "highest"
    multiply = jax.jit(partial(jnp.matmul, precision=wanted))

    def run() -> None:
        multiply(left, right).block_until_ready()

    return run


def copy_rate(library: str) -> float | None:
    """Bytes per second of copying within the GPU's memory, read and written; None without a GPU library."""
    copy: Callable[[], None]
    if library == "torch":
        torch: Any = importlib.import_module("torch")
        source = torch.zeros(_COPIED, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            torch.cuda.synchronize()

    elif library == "jax":
        jax: Any = importlib.import_module("jax")
        array = jax.device_put(np.zeros(_COPIED, np.uint8))
        invert = jax.jit(importlib.import_module("jax.numpy").invert)  # XLA would elide a plain copy

        def copy() -> None:
            invert(array).block_until_ready()

    elif library == "tensorflow":
        tf: Any = importlib.import_module("tensorflow")
        with tf.device("/GPU:0"):
            tensor = tf.zeros(_COPIED // 4, tf.float32)

        def copy() -> None:
            float((tensor + 1.0)[0])

    else:
        return None
    copy()
    return 2 * _COPIED / min(_seconds(copy), _seconds(copy))


def _seconds(call: Callable[[], None]) -> float:
    """Seconds of one call, the mean of as many as a clock can tell from nothing."""
    times = 1
    while True:
        start = time.perf_counter()
        for _ in range(times):
            call()
        elapsed = time.perf_counter() - start
        if elapsed >= _AT_LEAST_S:
            return elapsed / times
        times = min(1000 * times, max(2 * times, round(1.2 * times * _AT_LEAST_S / max(elapsed, 1e-9))))
