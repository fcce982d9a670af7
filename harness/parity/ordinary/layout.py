"""The meaning of an array's axes: converts a network's own layouts, merged or split, to the bench's and back.

Axis letters as in `harness.weights`: B images, y x rows and columns, c channels, I J capsules, d e dimensions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """`groups` has the axes that make up each dimension of `coarse`, the slowest first; none for a dimension of 1.

    `coarse` is the array's shape, possibly with neighbouring dimensions merged.
    """

    coarse: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> list[str]:
        return [name for group in self.groups for name in group]

    def arrange(self, array: np.ndarray, sizes: Mapping[str, int], order: Sequence[str]) -> np.ndarray:
        """The array with an axis for each of `order`; an axis that it lacks has length 1."""
        names = self.names
        full = array.reshape([sizes[name] for name in names])
        ordered = full.transpose([names.index(name) for name in order if name in names])
        return ordered.reshape([sizes[name] if name in names else 1 for name in order])

    def restore(self, array: np.ndarray, sizes: Mapping[str, int], order: Sequence[str]) -> np.ndarray:
        """The inverse of `arrange`; axes that the layout lacks are taken at index 0."""
        names, kept = self.names, [name for name in order if name in self.names]
        index = tuple(slice(None) if name in names else 0 for name in order)
        return np.ascontiguousarray(array[index].transpose([kept.index(name) for name in names]))

    def said(self, shape: tuple[int, ...]) -> str:
        """In words: "(1, 1152, 10, 16, 8) = (1, I, J, e, d)"."""
        inner = ", ".join(" ".join(group) or "1" for group in self.groups)
        return f"{shape} = ({inner})"


def layouts(shape: Sequence[int], sizes: Mapping[str, int]) -> Iterator[Layout]:
    """Every way to read an array of `shape` as one with all the axes in `sizes`.

    A dimension may be several axes, and one axis several neighbouring dimensions.
    """
    wanted = {name: size for name, size in sizes.items() if size > 1}
    if math.prod(shape) != math.prod(wanted.values()):
        return
    for coarse, merged in _coarser(tuple(shape)):
        for groups in _assign(coarse, tuple(wanted), wanted):
            if merged is None or len(groups[merged]) == 1:
                yield Layout(coarse, groups)


def _coarser(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """The shape itself, then each shape with one run of neighbouring dimensions merged, and the index of that dimension."""
    yield shape, None
    for start, end in itertools.combinations(range(len(shape) + 1), 2):
        run = shape[start:end]
        if sum(size > 1 for size in run) > 1:
            yield (*shape[:start], math.prod(run), *shape[end:]), start


def _assign(
    dims: tuple[int, ...], left: tuple[str, ...], sizes: Mapping[str, int]
) -> Iterator[tuple[tuple[str, ...], ...]]:
    if not dims:
        if not left:
            yield ()
        return
    choices: list[tuple[str, ...]] = [()] if dims[0] == 1 else []
    if dims[0] > 1:
        for count in range(1, len(left) + 1):
            choices += [
                names
                for names in itertools.permutations(left, count)
                if math.prod(sizes[name] for name in names) == dims[0]
            ]
    for names in choices:
        for rest in _assign(dims[1:], tuple(name for name in left if name not in names), sizes):
            yield (names, *rest)
