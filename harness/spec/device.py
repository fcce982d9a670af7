"""Questions that only a framework can answer: the functions of its `device.py`, beside its implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Device(Protocol):
    """The module `device.py` in the package of an implementation. Every function is optional; each has a default.

    The bench runs the file on its own, outside its package and before any framework is imported. It must import its
    framework only inside its functions, and use no relative imports. `environment`, `keep_compiled` and `without_gpu` are
    called in the bench's own process and must import no framework; the others are called in a process meant for the framework.

    The module may also hold facts as constants: see `harness.frameworks.FACTS`.
    """

    def environment(self, threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
        """Environment variables of a worker, set before its Python starts; None marks one that must not be set.

        Those of built-in frameworks are set for every worker, since any implementation may use them; those of others
        only for their own workers. They cannot change what the bench itself sets (BLAS threads, visible GPUs). Default:
        none.

        Args:
            threads: the worker's number of threads.
            precision: as in `Runtime.precision`.
            gpu: whether it has a GPU.
        """
        ...

    def keep_compiled(self, folder: str) -> dict[str, str | None]:
        """Environment variables with which the framework keeps what it compiles in `folder`, for the next process.

        They are set while it is imported, and only where trials are not timed: each of them is the fork of a process that
        has imported everything, and would compile the same again. Results must not depend on it. Default: none.
        """
        ...

    def without_gpu(self) -> str | None:
        """Why the installed version cannot use a GPU, completing "the trial is for a GPU, but ..."; default: None."""
        ...

    def gpus(self) -> list[str]:
        """The names of the GPUs that the framework sees; default: none."""
        ...

    def product(self, a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
        """A function that multiplies the float32 matrix `a` (N, N) by its transpose, and blocks until the device is done.

        On a GPU, operands have `precision`, as in training: float32 for "tf32", which the hardware rounds. This product
        measures the framework's rate. Default: the product of a built-in framework that the implementation has
        imported, else NumPy's.
        """
        ...

    def copy(self, count: int) -> Callable[[], None]:
        """A function that reads and writes `count` bytes of the GPU's memory, and blocks until that is done.

        Default: the framework's product is measured only on the CPU, wherever it trains.
        """
        ...
