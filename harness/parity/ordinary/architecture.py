"""Which CapsNets a model's parameters can be, by their shapes alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.spec.network import Parameter

_MOST_CLASSES = 200


@dataclass(frozen=True)
class Candidate:
    """One interpretation of the parameters: their roles, and the sizes that follow."""

    conv1: Parameter
    primary: tuple[Parameter, ...]
    digit: Parameter
    dense: tuple[Parameter, ...]  # the decoder's three layers, or empty
    image: tuple[int, int, int]
    classes: int
    primary_dim: int
    digit_dim: int

    @property
    def kernel(self) -> int:
        return canonical_shape(self.conv1)[0]

    @property
    def conv_channels(self) -> int:
        return canonical_shape(self.conv1)[3]

    @property
    def primary_channels(self) -> int:
        return sum(canonical_shape(each)[3] for each in self.primary)

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes as keys of `ModelSpec`, without the number of routing iterations."""
        found: dict[str, Any] = {
            "image": self.image,
            "classes": self.classes,
            "conv_channels": self.conv_channels,
            "primary_types": self.primary_channels // self.primary_dim,
            "primary_dim": self.primary_dim,
            "digit_dim": self.digit_dim,
            "kernel": self.kernel,
            "decoder": bool(self.dense),
        }
        if self.dense:
            found["decoder_units"] = tuple(canonical_shape(each)[1] for each in self.dense[:2])
        return found


def canonical_shape(parameter: Parameter) -> tuple[int, ...]:
    """(y, x, in, out) for a convolution, (in, out) for a dense layer."""
    return tuple(parameter.shape[axis] for axis in parameter.order) if parameter.order else parameter.shape


def candidates(parameters: Sequence[Parameter], named: Mapping[str, str], asked: Mapping[str, Any]) -> list[Candidate]:
    """Every interpretation that agrees with `asked` (keys of `ModelSpec`) and `named` (canonical name -> parameter).

    The likeliest comes first. If there is none, raises `UserError` with the parameters found.
    """
    by_name = {each.name: each for each in parameters}
    for canonical, own in named.items():
        if own not in by_name:
            raise UserError(f'--weights {canonical}={own}: the model has no "{own}". {told(parameters)}')
    conv1, primary = _convolutions(parameters, by_name, named)
    found = list[Candidate]()
    rest = [each for each in parameters if each.kind not in ("conv", "bias")]
    matrices = [by_name[named["digit.w"]]] if "digit.w" in named else [p for p in rest if _dims(p) in (3, 4)]
    for digit in sorted(matrices, key=lambda each: -math.prod(each.shape)):
        for dense in (*_chains([p for p in rest if p is not digit], by_name, named), ()):
            found += _readings(conv1, primary, digit, dense)
    agreeing = [each for each in found if all(each.sizes.get(key, value) == value for key, value in asked.items())]
    if not agreeing:
        why = (
            "no tensor is [primary capsules, classes, dimension, dimension] in any order"
            if not found
            else ("no reading of them has " + ", ".join(f"{key}={value}" for key, value in asked.items()))
        )
        raise UserError(
            f"--model: {why}, where the primary convolution has {sum(canonical_shape(p)[3] for p in primary)} channels. "
            f"{told(parameters)} Name it: --weights digit.w=NAME; or the architecture is not the paper's: see docs/parity.md"
        )
    return agreeing


def told(parameters: Sequence[Parameter]) -> str:
    """All parameters in one line."""
    if not parameters:
        return "It has no weights."
    return "Its weights: " + ", ".join(f"{each.name} {each.shape}" for each in parameters[:40]) + "."


def _convolutions(
    parameters: Sequence[Parameter], by_name: Mapping[str, Parameter], named: Mapping[str, str]
) -> tuple[Parameter, tuple[Parameter, ...]]:
    convolutions = [each for each in parameters if each.kind == "conv"]
    if not parameters:
        raise UserError("--model: the model has no weights; where it gets them when it is built, give it an Input")
    firsts = [by_name[named["conv1.w"]]] if "conv1.w" in named else convolutions
    for first in firsts:
        fits = [p for p in convolutions if p is not first and canonical_shape(p)[2] == canonical_shape(first)[3]]
        if "primary.w" in named:
            fits = [by_name[named["primary.w"]]]
        if fits and len(fits) + 1 == len(convolutions) and len({each.shape for each in fits}) == 1:
            kernels = {canonical_shape(each)[axis] for each in (first, fits[0]) for axis in (0, 1)}
            if len(kernels) > 1:
                raise UserError(
                    f"--model: kernels of {sorted(kernels)} pixels, where the specification has one size for both "
                    f"convolutions. {told(parameters)}"
                )
            return first, tuple(fits)
    shapes = ", ".join(f"{each.name} {each.shape}" for each in convolutions) or "none"
    raise UserError(
        f"--model: found as convolutions: {shapes}; expected one from pixels to channels, and the primary capsules', one or "
        f"several of equal shape, on its output. {told(parameters)}"
    )


def _dims(parameter: Parameter) -> int:
    return sum(size > 1 for size in parameter.shape)


def _chains(
    parameters: Sequence[Parameter], by_name: Mapping[str, Parameter], named: Mapping[str, str]
) -> Iterator[tuple[Parameter, ...]]:
    """Chains of three dense layers."""
    if all(f"dec{layer}.w" in named for layer in (1, 2, 3)):
        yield tuple(by_name[named[f"dec{layer}.w"]] for layer in (1, 2, 3))
        return
    dense = [each for each in parameters if each.kind == "dense"]
    for chain in itertools.permutations(dense, 3):
        shapes = [canonical_shape(each) for each in chain]
        if shapes[0][1] == shapes[1][0] and shapes[1][1] == shapes[2][0]:
            yield chain


def _readings(
    conv1: Parameter, primary: tuple[Parameter, ...], digit: Parameter, dense: tuple[Parameter, ...]
) -> Iterator[Candidate]:
    dims = [size for size in digit.shape if size > 1]
    channels, kernel = sum(canonical_shape(each)[3] for each in primary), canonical_shape(conv1)[0]
    quadruples = itertools.permutations(dims) if len(dims) == 4 else _unmerged(dims)
    seen, found = set[tuple[int, ...]](), list[tuple[float, Candidate]]()
    for inputs, classes, dim, digit_dim in quadruples:
        if (inputs, classes, dim, digit_dim) in seen or channels % dim or inputs % (channels // dim):
            continue
        seen.add((inputs, classes, dim, digit_dim))
        grid = math.isqrt(inputs * dim // channels)
        if grid * grid * channels != inputs * dim:
            continue
        if dense and canonical_shape(dense[0])[0] != classes * digit_dim:
            continue
        smallest = 2 * (grid - 1) + 2 * kernel - 1
        for side in (smallest + smallest % 2, smallest + 1 - smallest % 2):  # even ones are likelier
            image = (side, side, canonical_shape(conv1)[2])
            if dense and canonical_shape(dense[2])[1] != math.prod(image):
                continue
            unlikely = (classes != 10) + (digit_dim < classes) / 2 + (len(primary) not in (1, dim, channels // dim))
            found.append((unlikely, Candidate(conv1, primary, digit, dense, image, classes, dim, digit_dim)))
    yield from (candidate for _, candidate in sorted(found, key=lambda each: each[0]))


def _unmerged(dims: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Shapes of three dimensions with one split in two: classes times dimension."""
    for inputs, dim, both in itertools.permutations(dims):
        for classes in range(2, min(both, _MOST_CLASSES) + 1):
            if both % classes == 0 and both // classes > 1:
                yield inputs, classes, dim, both // classes
