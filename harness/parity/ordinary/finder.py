"""Finds the layers of a CapsNet in a recorded forward pass by the results of its operations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from harness.parity.ordinary.found import COUPLING, DIGIT, INPUTS, SAME, VOTES, Capsules, Found, Layers, relative
from harness.parity.ordinary.layout import Layout, layouts
from harness.spec.network import Step


class Finder:
    """Finds layers among the results of operations by their sizes, values and order."""

    def __init__(self, steps: Sequence[Step], sizes: dict[str, int]) -> None:
        self.steps, self.sizes = steps, sizes
        self.arrays = {step.index: step.array for step in steps}
        self.order: list[str] = []  # of the votes' axes: prefer it for later arrays that can be read in several ways

    def _size(self, axes: Sequence[str]) -> int:
        return math.prod(self.sizes[name] for name in axes)

    def _of_size(self, size: int, start: float, end: float = math.inf) -> list[Step]:
        return [step for step in self.steps if start < step.index < end and step.array.size == size]

    def _layouts(self, array: np.ndarray, axes: Sequence[str]) -> list[Layout]:
        found = list(layouts(array.shape, {name: self.sizes[name] for name in axes}))
        return sorted(found, key=self._inversions) if self.order else found

    def _inversions(self, layout: Layout) -> int:
        places = [self.order.index(name) for name in layout.names if name in self.order]
        return sum(a > b for a, b in itertools.combinations(places, 2))

    def unevenness(self, layers: Layers) -> float:
        """How far the first output capsules are from multiples of the votes' sum: zero unless J and e are confused."""
        if layers.votes is None or not layers.outputs:
            return math.inf
        votes, first = layers.votes, layers.outputs[0]
        s = votes.read(self.arrays[votes.index], self.sizes, VOTES).sum(1)
        v = first.read(self.arrays[first.index], self.sizes, DIGIT)
        scale = (v * s).sum(2, keepdims=True) / np.square(s).sum(2, keepdims=True)
        return relative(scale * s, v)

    def capsules(self, grids: Sequence[np.ndarray], channels_first: bool, steps: Sequence[Step]) -> Capsules | None:
        """Follows the grid's values through reshapes, transpositions and elementwise operations."""
        if not grids:
            return None
        batch, whole = self.sizes["B"], self._size(INPUTS)
        flat = [each if channels_first else each.transpose(0, 3, 1, 2) for each in grids]
        source: np.ndarray = np.arange(whole // batch)
        known = np.concatenate([each.reshape(batch, -1) for each in flat], axis=1)
        if known.size != whole:
            return None
        by_shape: dict[tuple[int, ...], np.ndarray] = {}
        values, last, renamed = known, None, True
        first = steps[0]
        if len(steps) == 1:
            own = source if channels_first else source.reshape(flat[0].shape[1:]).transpose(1, 2, 0)
            by_shape[first.array.shape] = own.reshape(-1)
            last = first
        for step in self.steps:
            if step.index <= steps[-1].index:
                continue
            if step.array.size > whole and step.array.size % whole == 0 and step.array.shape != first.array.shape:
                break
            if step.array.size != whole or batch not in step.array.shape or step.array.shape[0] != batch:
                continue
            here = step.array.reshape(batch, -1)
            if (order := _reordering(values, here)) is not None:
                source = source[order]
            elif step.array.shape in by_shape:
                source, renamed = by_shape[step.array.shape], False
            else:
                continue
            values, last = here, step
            by_shape[step.array.shape] = source
        if last is None:
            return None
        layout = next(iter(self._layouts(last.array, INPUTS)), None)
        if layout is None:
            return None
        own = source.reshape(1, *last.array.shape[1:])
        return Capsules(Found(last.index, last.array.shape, layout), self._arranged(own, layout), renamed)

    def _arranged(self, own: np.ndarray, layout: Layout) -> np.ndarray:
        coarse = (1, *layout.coarse[1:])
        one = Layout(coarse, (tuple(n for n in layout.groups[0] if n != "B"), *layout.groups[1:]))
        return one.arrange(own, self.sizes, ("I", "d"))

    def votes(self, start: float, capsules: Capsules | None, parameter: np.ndarray) -> list[tuple[Found, Layout, bool]]:
        """The votes, with each layout of the parameter for which they follow from the capsules: every way to read them.

        If there is none, the first result of their size.
        """
        axes = {name: self.sizes[name] for name in ("I", "J", "d", "e")}
        among = self._of_size(self._size(VOTES), start)
        readings = list(layouts(parameter.shape, axes))
        found: list[tuple[Found, Layout, bool]] = []
        if capsules is not None:
            u = capsules.found.read(self.arrays[capsules.found.index], self.sizes, INPUTS)
            for layout in readings:
                w = layout.arrange(parameter, axes, ("I", "J", "d", "e"))
                expected = np.einsum("bid,ijde->bije", u, w, optimize=True)
                if (same := self._equal(among[:8], expected)) is not None:
                    found.append((same, layout, True))
        if found or not readings:
            return found
        guess = next(((each, own) for each in among for own in self._layouts(each.array, VOTES)), None)
        return [(Found(guess[0].index, guess[0].array.shape, guess[1]), readings[0], False)] if guess else []

    def _equal(self, among: Sequence[Step], expected: np.ndarray) -> Found | None:
        """The first result equal to the votes (B, I, J, e), with its layout."""
        total = float(np.square(expected).sum())
        for each in among:
            if abs(float(np.square(each.array).sum()) - total) > 1e-3 * total:
                continue
            for own in self._layouts(each.array, VOTES):
                if relative(own.arrange(each.array, self.sizes, VOTES), expected) < SAME:
                    return Found(each.index, each.array.shape, own)
        return None

    def couplings(self, start: float) -> tuple[Found, ...]:
        """Results of a softmax over some axis, one per iteration: the first of those with the same values."""
        found: list[tuple[Found, np.ndarray]] = []
        for step in self.steps:
            each = self._coupling(step) if step.index > start or step.op.lower().endswith("softmax") else None
            if each is None:
                continue
            read = each.read(step.array, self.sizes, COUPLING)
            if found and relative(read, found[-1][1]) < 1e-12 and not step.op.lower().endswith("softmax"):
                continue
            found.append((each, read))
        if any("softmax" in self._op(each.index) for each, _ in found):
            found = [(each, read) for each, read in found if "softmax" in self._op(each.index)]
        return tuple(each for each, _ in found)

    def _op(self, index: int) -> str:
        return next(step.op.lower() for step in self.steps if step.index == index)

    def _coupling(self, step: Step) -> Found | None:
        array, sizes = step.array, self.sizes
        if array.dtype.kind != "f" or array.size < 2 or not (array.min() >= 0 and array.max() <= 1 + 1e-6):
            return None
        for axes, shared in ((COUPLING, False), (VOTES, False), (COUPLING[1:], True)):
            if array.size != self._size(axes):
                continue
            for layout in self._layouts(array, axes):
                found = Found(step.index, array.shape, layout, shared)
                if axes == VOTES:
                    full = layout.arrange(array, sizes, VOTES)
                    if float(np.ptp(full, axis=3).max()) > 1e-6:
                        continue
                read = found.read(array, sizes, COUPLING)
                if any(np.allclose(read.sum(axis), 1, rtol=1e-4) for axis in (2, 1)) or "softmax" in step.op.lower():
                    return found
        return None

    def outputs(self, start: float, couplings: Sequence[Found]) -> tuple[Found, ...]:
        """v after each iteration: the last result before the next coupling that can be capsules, with values of both signs."""
        ends = [each.index for each in couplings[1:]] + [math.inf] if couplings else [math.inf]
        starts = [max(start, each.index) for each in couplings] if couplings else [start]
        found: list[Found] = []
        for begin, end in zip(starts, ends, strict=True):
            good = [each for step in self._of_size(self._size(DIGIT), begin, end) if (each := self._digit(step))]
            short = [each for each in good if each[1]] or good
            if not short:
                return ()
            found.append(short[-1][0])
        return tuple(found)

    def _digit(self, step: Step) -> tuple[Found, bool] | None:
        """The step read as output capsules, if possible, and whether none is longer than one."""
        if step.array.dtype.kind != "f" or step.array.min() >= 0:
            return None
        for layout in self._layouts(step.array, DIGIT):
            read = layout.arrange(step.array, self.sizes, DIGIT)
            length = np.sqrt(np.square(read).sum(2))
            if (length == 0).any():  # masked
                return None
            return Found(step.index, step.array.shape, layout), bool((length < 1 + 1e-6).all())
        return None


def _reordering(values: np.ndarray, here: np.ndarray) -> np.ndarray | None:
    """For each column of `here`, the equal column of `values`; None if the columns differ."""
    if values.dtype != here.dtype:
        return None
    if np.array_equal(values, here):
        return np.arange(len(values.T))
    a, b = (np.lexsort(array) for array in (values, here))
    if not np.array_equal(values[:, a], here[:, b]):
        return None
    order = np.empty(len(a), np.int64)
    order[b] = a
    return order
