"""Named conventions in which correct implementations may differ: a part of `harness.spec`, the border.

The paper does not mention an epsilon; every codebase has its own value, in its own place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, cast, get_args

from harness.errors import UserError, nearest

SQUASH_EPSILON = 1e-9  # added to |s|^2 under the root; keeps value and gradient finite at s = 0
Place = Literal["inside", "outside", "product", "square"]
WORDS: dict[Place, str] = {
    "inside": "inside the root",
    "outside": "outside the root",
    "product": "to the whole denominator",
    "square": "to the squared norm wherever that stands",
}
"""Where it is added: sqrt(n + e), sqrt(n) + e, (1 + n) sqrt(n) + e, or n + e replaces n everywhere."""
_EXAMPLES = "squash_epsilon=1e-7 (inside the root), squash_epsilon=1e-7@outside, length_epsilon=0"


@dataclass(frozen=True)
class Epsilon:
    """A number added somewhere in a norm. If it is 0, the place says whether s = 0 leads to 0 / 0: with "inside" it does;
    "square" is written without a division by |s|.
    """

    value: float = SQUASH_EPSILON
    place: Place = "inside"

    def __str__(self) -> str:
        value = f"{self.value:g}".replace("e-0", "e-")
        return value if self.place == "inside" or not self.value else f"{value}@{self.place}"


@dataclass(frozen=True)
class Conventions:
    """The defaults are the specification's. `squash_epsilon` is for both squashes, `length_epsilon` for capsule lengths."""

    squash_epsilon: Epsilon = Epsilon()
    length_epsilon: Epsilon = Epsilon()

    def named(self) -> tuple[str, ...]:
        """The differences from the specification, as `--accept` takes them: "squash_epsilon=1e-7@outside"."""
        default = Conventions()
        return tuple(
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        )

    def said(self) -> tuple[str, ...]:
        """The same in words: "squash adds 1e-7 outside the root"."""
        default, says = Conventions(), list[str]()
        for field in fields(self):
            epsilon = cast(Epsilon, getattr(self, field.name))
            subject = {"squash_epsilon": "squash", "length_epsilon": "the length of a capsule"}[field.name]
            if epsilon == getattr(default, field.name):
                continue
            value = str(Epsilon(epsilon.value))
            says.append(
                f"{subject} adds {value} {WORDS[epsilon.place]}" if epsilon.value else f"{subject} has no epsilon"
            )
        return tuple(says)


PLACES: dict[str, tuple[Place, ...]] = {"squash_epsilon": get_args(Place), "length_epsilon": ("inside", "outside")}
"""Key -> its possible places."""


def accepted(settings: Iterable[str]) -> Conventions:
    """Conventions from KEY=VALUE, where VALUE is a number or number@place. Raises `UserError` for anything else."""
    found = Conventions()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f'--accept: found "{setting}", expected KEY=VALUE; for example {_EXAMPLES}')
        if key not in PLACES:
            raise UserError(f'--accept: unknown convention "{key}"{nearest(key, PLACES)}')
        found = replace(found, **{key: _epsilon(key, value)})
    return found


def _epsilon(key: str, text: str) -> Epsilon:
    number, at, place = text.partition("@")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise UserError(
            f'--accept {key}: found "{number}", expected a number from 0 to below 1; for example {_EXAMPLES}'
        )
    if at and place not in PLACES[key]:
        raise UserError(f'--accept {key}: unknown place "{place}"{nearest(place, PLACES[key])}')
    if not value:
        return NO_EPSILON
    return Epsilon(value, cast(Place, place) if at else "inside")


NO_EPSILON = Epsilon(0.0, "square")
"""No epsilon, and no division by |s|: finite at zero."""
