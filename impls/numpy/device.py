"""Questions that only NumPy can answer: see `harness.spec.device.Device`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def product(a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
    import numpy as np

    b, out = a.T.copy(), np.empty_like(a)

    def run() -> None:
        np.matmul(a, b, out=out)

    return run
