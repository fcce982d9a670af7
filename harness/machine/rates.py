"""The rates that each library reaches on this machine: of a matrix product, and of copying memory.

An implementation's library is the one that it computes with; its `device.py` multiplies and copies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from harness import modules, registry
from harness.registry import Entry

_COPIED = 1 << 28  # bytes: larger than any cache
_AT_LEAST_S = 0.02  # length of a timed region; shorter calls are repeated


def installed() -> list[Entry]:
    """The built-in implementations whose library can be imported here."""
    return [entry for name in registry.BUILT_IN if modules.locate((entry := registry.resolve(name)).library)]


def library_of(entry: Entry) -> Entry:
    """The entry whose library an imported implementation computes with.

    Its own if its `device.py` can multiply; else that of a built-in framework that it has imported; else NumPy's.
    """
    if registry.framework_of(entry).has("product"):
        return entry
    frameworks = map(registry.resolve, registry.FRAMEWORKS)
    loaded = [framework for framework in frameworks if framework.library in sys.modules]
    return (*loaded, registry.resolve(registry.SPECIFICATION))[0]


def on_gpu(library: Entry) -> bool:
    """Whether the library's matrix product can run on a GPU."""
    return registry.framework_of(library).has("copy")


def product_rate(product: Callable[[], None], size: int) -> float:
    """Operations per second of a product of `size` x `size` matrices, best of two; a multiply and an add count as two."""
    return 2 * size**3 / min(_seconds(product), _seconds(product))


def product(library: Entry, size: int, precision: str = "fp32", gpu: bool = False) -> Callable[[], None]:
    """A product of two random matrices that blocks until the device is done; already called once.

    On a GPU, operands have `precision`, as in training: float32 for "tf32", which the hardware rounds. Raises
    `UserError` for a plug-in whose product is wrong.
    """
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    return registry.framework_of(library).product(a, precision, gpu)


def copy_rate(library: Entry) -> float | None:
    """Bytes per second of copying within the GPU's memory, read and written; None without a GPU library."""
    if not on_gpu(library):
        return None
    copy = registry.framework_of(library).copy(_COPIED)
    return 2 * _COPIED / min(_seconds(copy), _seconds(copy))


def _seconds(call: Callable[[], None]) -> float:
    """Seconds of one call: the mean of enough calls to be measurable."""
    times = 1
    while True:
        start = time.perf_counter()
        for _ in range(times):
            call()
        elapsed = time.perf_counter() - start
        if elapsed >= _AT_LEAST_S:
            return elapsed / times
        times = min(1000 * times, max(2 * times, round(1.2 * times * _AT_LEAST_S / max(elapsed, 1e-9))))
