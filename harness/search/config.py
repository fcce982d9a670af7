"""What a suite says of its search: what is searched, by which method, for which budget, and how the best is confirmed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.spec.model import Count, Section

Method = Literal["random", "optuna", "halving"]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]

_DIGITS = 4
"""Significant digits of what is drawn from a range: all of them can be read, and written into another suite."""


@dataclass(frozen=True)
class Dimension:
    """One searched key: a range from `low` to `high`, both included, or else `choices`."""

    key: str
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """Both ends of the range, or all of the list."""
        return self.choices or (self.low, self.high)

    def at(self, share: float) -> Any:
        """The value at `share`, from 0 up to but not including 1, of the way through the range or the list."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        if self.is_whole:  # each whole number has its own part of the range
            low, high = self.low - 0.5, self.high + 0.5
            value = (
                math.exp(_between(math.log(low), math.log(high), share)) if self.is_log else _between(low, high, share)
            )
            return int(min(max(math.floor(value + 0.5), self.low), self.high))
        if self.is_log:
            return self.rounded(math.exp(_between(math.log(self.low), math.log(self.high), share)))
        return self.rounded(_between(self.low, self.high, share))

    def rounded(self, value: float) -> Any:
        """A value of the range as it is proposed."""
        if self.is_whole:
            return int(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)


Space = tuple[Dimension, ...]


class Confirmation(Section):
    """How the best proposal is judged: trained anew with seeds of its own, and tested on the test images."""

    seed: Annotated[
        tuple[Seed, ...],
        Field(strict=False, min_length=1, max_length=100, description="a list of 1 to 100 seeds, such as [1, 2, 3]"),
    ] = (1, 2, 3)


class SearchConfig(Section):
    """The section `search` of a suite. Each point of its grid is a contestant: it gets the same budget for itself."""

    method: Method = "random"
    space: Annotated[
        tuple[Dimension, ...], Field(description="a mapping of keys to ranges, such as {train.lr: {log: [1e-4, 1e-2]}}")
    ] = ()
    # The budget, one of the two: how many proposals, or how many epochs of training in all.
    trials: Annotated[int, Field(ge=1, le=1000)] | None = None
    epochs: Count | None = None
    together: Count = 4  # optuna: proposals made at a time, before the results of these are known
    first: Count = 1  # halving: epochs of the first rung
    factor: Annotated[int, Field(ge=2, le=100)] = 3  # halving: of so many, one goes on, for so many times the epochs
    confirm: Confirmation = Confirmation()


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)
