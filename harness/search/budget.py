"""What a budget buys: how many proposals, trained for how many epochs. It is the same for every contestant.

The unit is an epoch of all training images. Validation and the confirmation are not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """`count` proposals are trained until each has `epochs` epochs."""

    count: int
    epochs: int


def at_once(count: int, epochs: int) -> tuple[Rung, ...]:
    """Every proposal is trained to the end."""
    return (Rung(count, epochs),)


def halving(count: int, epochs: int, first: int = 1, factor: int = 3) -> tuple[Rung, ...]:
    """Successive halving: all for `first` epochs; of each rung the best, one in `factor`, go on `factor` times as long.

    The last rung has `epochs` epochs. Rungs are closed before the next begins: asynchronous halving (ASHA) would let
    the order in which trials end decide which go on. (Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification".)
    """
    rungs = [Rung(count, min(first, epochs))]
    while rungs[-1].epochs < epochs:
        rungs.append(Rung(max(1, rungs[-1].count // factor), min(rungs[-1].epochs * factor, epochs)))
    return tuple(rungs)


def cost(rungs: Sequence[Rung]) -> int:
    """Epochs of all rungs together: who goes on trains only the epochs that are new."""
    before = [0, *(rung.epochs for rung in rungs)]
    return sum(rung.count * (rung.epochs - trained) for rung, trained in zip(rungs, before, strict=False))


def affordable(budget: int, epochs: int) -> int:
    """How many proposals can be trained to the end for `budget` epochs; 0 if not even one."""
    return budget // epochs


def affordable_halving(budget: int, epochs: int, first: int = 1, factor: int = 3) -> int:
    """The same of successive halving."""
    count = 0
    while cost(halving(count + 1, epochs, first, factor)) <= budget:
        count += 1
    return count


def best(errors: Sequence[tuple[float, float]], count: int) -> list[int]:
    """The places of the `count` best, best first: by validation error, then by validation loss, then the earlier one."""
    return sorted(range(len(errors)), key=lambda place: (errors[place], place))[:count]
