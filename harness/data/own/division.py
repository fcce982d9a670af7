"""How one's own pictures are divided: parts that files give are kept, others are drawn, once for all trials of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.spec.trial import Division

if TYPE_CHECKING:
    from jaxtyping import Int64

_STREAM = 0x646976696465  # "divide"


@dataclass(frozen=True)
class Divided:
    """Indices of the training part, validation pictures last, and of the test part, in a fixed mixed order.

    `test` counts in the training part if it was drawn from there (`is_drawn`), else in the files' own test part.
    """

    training: Int64[np.ndarray, " N"]
    validation: int  # how many, at the end of `training`
    test: Int64[np.ndarray, " M"]
    is_drawn: bool


def divided(
    labels: Int64[np.ndarray, " N"],
    own_validation: int,
    own_test: int | None,
    copies: Sequence[Sequence[int]],
    division: Division,
) -> Divided:
    """Divides a training part of N pictures, whose last `own_validation` have files of their own.

    For each class, `division.test` of its pictures are drawn for testing unless there are test files, then
    `division.validation` of the others for validation unless there are validation files; one picture of each class
    stays to train on. Copies of one picture are never divided.

    Args:
        own_test: the number of pictures in test files; None if there are none.
        copies: groups of indices of equal pictures.
    """
    free = np.arange(len(labels) - own_validation)
    first = np.arange(len(labels))
    for group in copies:
        first[list(group)] = min(group)
    originals = free[first[free] == free]
    part = np.zeros(len(labels), np.int8)  # 0 training, 1 validation, 2 test
    part[len(free) :] = 1
    drawn = originals[_mixed(len(originals), division.seed)]
    for label in np.unique(labels[drawn]):
        of_class = drawn[labels[drawn] == label]
        test = 0 if own_test is not None else _share(len(of_class), division.test)
        validation = 0 if own_validation else _share(len(of_class) - test, division.validation)
        part[of_class[:test]] = 2
        part[of_class[test : test + validation]] = 1
    part[free] = part[first[free]]
    mixed = _mixed(len(labels), 0)
    training = np.concatenate([mixed[part[mixed] == 0], mixed[part[mixed] == 1]])
    test = mixed[part[mixed] == 2] if own_test is None else _mixed(own_test, 0)
    return Divided(training, int((part == 1).sum()), test, own_test is None)


def _share(count: int, fraction: float) -> int:
    """At least one if any are asked for, but never all."""
    return min(count - 1, max(1, round(count * fraction))) if fraction and count > 1 else 0


def _mixed(count: int, seed: int) -> Int64[np.ndarray, " N"]:
    words = np.random.Philox(key=[seed, _STREAM]).random_raw(count)  # guaranteed forever: see `harness.data.base.order`
    return np.argsort(words, kind="stable")
