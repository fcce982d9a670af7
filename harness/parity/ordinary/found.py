"""What can be found in a recorded forward pass, and how to read it in the bench's layouts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.parity.ordinary.layout import Layout

SAME = 1e-4  # relative difference between two float32 runs of one computation
INPUTS = ("B", "I", "d")
VOTES = ("B", "I", "J", "e")
COUPLING = ("B", "I", "J")
DIGIT = ("B", "J", "e")


@dataclass(frozen=True)
class Found:
    """One result: its operation, its shape, and the meaning of its axes."""

    index: int
    shape: tuple[int, ...]
    layout: Layout
    shared: bool = False  # a coupling without an axis of images

    def read(self, array: np.ndarray, sizes: Mapping[str, int], order: Sequence[str]) -> np.ndarray:
        if self.shared:
            array = array[None]
        extra = [name for name in self.layout.names if name not in order]  # a coupling repeated over the dimensions
        full = self.layout.arrange(array, dict(sizes) | ({"B": 1} if self.shared else {}), [*order, *extra])
        full = full[(..., *([0] * len(extra)))]
        return np.broadcast_to(full, tuple(sizes[name] for name in order)) if self.shared else full

    def write(self, array: np.ndarray, sizes: Mapping[str, int], order: Sequence[str]) -> np.ndarray:
        extra = [name for name in self.layout.names if name not in order]
        full = np.broadcast_to(
            array.reshape(*array.shape, *([1] * len(extra))), (*array.shape, *(sizes[name] for name in extra))
        )
        return self.layout.restore(full, sizes, [*order, *extra])


@dataclass(frozen=True)
class Capsules:
    """The primary capsules before the votes: `source[i, d]` is the place in the grid, channels first."""

    found: Found
    source: np.ndarray | None  # (I, d); None if it could not be followed
    is_renamed: bool = False  # just the grid's values in another order: there is no squash


@dataclass(frozen=True)
class Layers:
    """Where the layers are; None for what was not found."""

    conv1: int | None
    grid: tuple[int, ...]  # of each primary convolution
    capsules: Capsules | None
    votes: Found | None
    digit_w: Layout | None
    couplings: tuple[Found, ...]
    outputs: tuple[Found, ...]  # v after each iteration
    count: int  # of operations
    is_verified: bool = False  # the votes follow from the parameter and the capsules
    sizes: dict[str, int] = field(default_factory=dict[str, int])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance relative to the largest of b; infinite if shapes differ or a value is not finite."""
    if a.shape != b.shape:
        return math.inf
    error = float(np.abs(a - b).max(initial=0)) / (float(np.abs(b).max(initial=0)) or 1.0)
    return error if math.isfinite(error) else math.inf
