"""What only a framework itself can answer: the functions of its `device.py`, beside its implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Device(Protocol):
    """The module `device.py` in the package of an implementation. Every function is optional; without one, see its default.

    The bench runs the file by itself, apart from its package and before any framework is imported: it imports its framework
    within its functions alone, and nothing relative. `environment` and `without_gpu` are called in the bench's own process
    and import no framework at all; the others are called in a process that is there for the framework.

    The module may hold facts besides, as constants: see `harness.frameworks.FACTS`.
    """

    def environment(self, threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
        """Environment variables of a worker, set before Python starts there; None is for one that must not be set.

        Those of built-in frameworks are set for every worker, since any implementation may use them; those of others for
        their own workers. What the bench sets itself (threads of BLAS, the visible GPUs) is not theirs to change. Default:
        none.

        Args:
            threads: how many the worker has.
            precision: as in `Runtime.precision`.
            gpu: whether it has a GPU.
        """
        ...

    def without_gpu(self) -> str | None:
        """Why what is installed cannot compute on a GPU, as the end of "the trial is for a GPU, but"; default: None."""
        ...

    def gpus(self) -> list[str]:
        """The names of the GPUs that the framework sees; default: none."""
        ...

    def product(self, a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
        """A function that multiplies the float32 matrix `a` (N, N) by its transpose, and blocks until the device is done.

        On a GPU, operands are of `precision`, as in training: float32 for "tf32", whose rounding is the hardware's. It is
        what the framework's rate is measured by. Default: the product of a built-in framework that the implementation has
        imported, else NumPy's.
        """
        ...

    def copy(self, count: int) -> Callable[[], None]:
        """A function that reads and writes `count` bytes of the GPU's memory, and blocks until that is done.

        Default: the framework multiplies on the CPU only, wherever it trains.
        """
        ...
