"""Locates the layers of a CapsNet in a model's recorded forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.parity.ordinary.architecture import Candidate, canonical_shape
from harness.parity.ordinary.finder import Finder
from harness.parity.ordinary.found import SAME, Found, Layers, relative
from harness.parity.ordinary.layout import Layout
from harness.spec.network import Parameter, Step


def convolve(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """(B, y, x, c), (k, k, c, f) -> (B, h, w, f); VALID."""
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(windows, w, axes=([4, 5, 3], [0, 1, 2]))


def locate(
    steps: Sequence[Step],
    values: dict[str, np.ndarray],
    reading: Candidate,
    biases: dict[str, Parameter],
    batch: int,
    channels_first: bool,
) -> Layers:
    """The layers in `steps`, a pass on `batch` images with the parameters `values`."""
    architecture = reading.sizes
    side = reading.image[0] - reading.kernel + 1
    grid = (side - reading.kernel) // 2 + 1
    sizes = {
        "B": batch,
        "J": reading.classes,
        "d": reading.primary_dim,
        "e": reading.digit_dim,
        "I": grid * grid * architecture["primary_types"],
    }
    finder = Finder(steps, sizes)
    channels = reading.conv_channels
    shape = (batch, channels, side, side) if channels_first else (batch, side, side, channels)
    per_kernel = canonical_shape(reading.primary[0])[3]
    grid_shape = (batch, per_kernel, grid, grid) if channels_first else (batch, grid, grid, per_kernel)
    of_grid = [step for step in steps if step.array.shape == grid_shape]
    before = of_grid[0].index if of_grid else math.inf
    conv1 = next((step for step in reversed(steps) if step.array.shape == shape and step.index < before), None)
    found_grid = _grids(conv1, of_grid, values, reading, biases, channels_first)
    capsules = finder.capsules([steps_of.array for steps_of in found_grid], channels_first, found_grid)
    start = capsules.found.index if capsules else max((each.index for each in found_grid), default=0)
    readings = finder.votes(start, capsules, values[reading.digit.name])

    def with_votes(votes: tuple[Found, Layout, bool] | None) -> Layers:
        after = votes[0].index if votes else start
        finder.order = votes[0].layout.names if votes else []
        couplings = finder.couplings(after)
        return Layers(
            conv1.index if conv1 else None,
            tuple(each.index for each in found_grid),
            capsules,
            votes[0] if votes else None,
            votes[1] if votes else None,
            couplings,
            finder.outputs(after, couplings),
            len(steps),
            bool(votes and votes[2]),
            sizes,
        )

    possible = [with_votes(votes) for votes in readings] or [with_votes(None)]
    return min(possible, key=finder.unevenness) if len(possible) > 1 else possible[0]


def _grids(
    conv1: Step | None,
    among: Sequence[Step],
    values: dict[str, np.ndarray],
    reading: Candidate,
    biases: dict[str, Parameter],
    channels_first: bool,
) -> list[Step]:
    """The result of each primary convolution: by value, else by the order of computation."""
    chosen: list[Step] = []
    if conv1 is not None:
        first = conv1.array[:1]  # one image suffices, and convolving all would take the longest
        x = first.transpose(0, 2, 3, 1) if channels_first else first
        for parameter in reading.primary:
            expected = convolve(x, values[parameter.name].transpose(parameter.order), 2)
            if parameter.name in biases:
                expected = expected + values[biases[parameter.name].name]
            expected = expected.transpose(0, 3, 1, 2) if channels_first else expected
            same = [step for step in among if relative(step.array[:1], expected) < SAME]
            if not same:
                break
            chosen.append(same[0])
    if len(chosen) == len(reading.primary):
        return chosen
    firsts = [step for step in among if "conv" in step.op.lower()] or list(among)
    return list(firsts[: len(reading.primary)])
