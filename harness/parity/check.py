"""One comparison, and the report on an implementation that all of them make."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

LEVELS = ("L1", "L2", "L3", "L4", "L5", "L6")
_SINGLE = {"L2": 1e-3, "L3": 2e-5, "L4": 1e-3}  # with float64 asked for, errors below these are float32's rounding
_EXACT = 1e-9  # and above are not float64's


@dataclass(frozen=True)
class Check:
    """`found` against `expected` at the worst element, and how far apart relative to the tensor's largest value.

    `rel_err` is inf if a value is missing, has the wrong shape, or is not finite; `note` then says what is wrong.
    """

    level: str
    name: str
    rel_err: float
    tolerance: float
    where: tuple[int, ...] | None = None
    found: float | None = None
    expected: float | None = None
    note: str | None = None
    kind: str = "exact"  # the row of `harness.parity.tolerances` that it was judged by

    @property
    def ratio(self) -> float:
        return self.rel_err / self.tolerance

    @property
    def ok(self) -> bool:
        return self.ratio <= 1


@dataclass(frozen=True)
class Report:
    """All checks of one implementation in one precision."""

    impl: str
    precision: str
    profile: str
    checks: tuple[Check, ...]
    skipped: dict[str, str] = field(default_factory=dict[str, str])  # level -> why
    suspects: tuple[str, ...] = ()  # faults that are all present
    conventions: tuple[str, ...] = ()  # as `--accept` takes them; the specification used these
    unexplained: tuple[str, ...] = ()  # what the diagnosis, if one was made, could not explain
    images: int = 0  # number of different images compared

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def verdict(self) -> str:
        """The verdict in words: "ok", "right with conventions" or "FAILED"."""
        return "FAILED" if not self.ok else "right with conventions" if self.conventions else "ok"

    @property
    def failed_level(self) -> str | None:
        """The lowest level with a failure: what fails above it follows from it."""
        return min((check.level for check in self.checks if not check.ok), default=None)

    @property
    def worst(self) -> Check:
        """The check farthest beyond its tolerance in the lowest failing level; if none fails, the one nearest to it."""
        among = [check for check in self.checks if check.level == self.failed_level] or list(self.checks)
        return max(among, key=lambda check: check.ratio)

    @property
    def is_rounding(self) -> bool:
        """Whether float64 was asked for, but nearly every value has an error of float32 rounding, and none a larger one."""
        values = [check for check in self.checks if check.level in _SINGLE and check.kind != "exact"]
        if self.precision != "fp64" or not values:
            return False
        off = sum(check.rel_err > _EXACT for check in values)
        return 2 * off > len(values) and all(check.rel_err < _SINGLE[check.level] for check in values)

    def level_errors(self) -> dict[str, Check]:
        """Each climbed level's worst check."""
        levels = {check.level for check in self.checks}
        return {
            level: max((check for check in self.checks if check.level == level), key=lambda check: check.ratio)
            for level in LEVELS
            if level in levels
        }

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become None: JSON has none."""

        def plain(check: Check) -> dict[str, Any]:
            values = asdict(check)
            for key in ("rel_err", "found", "expected"):
                if values[key] is not None and not math.isfinite(values[key]):
                    values[key] = None
            return {**values, "ok": check.ok}

        return {
            "impl": self.impl,
            "precision": self.precision,
            "profile": self.profile,
            "ok": self.ok,
            "failed_level": self.failed_level,
            "worst": plain(self.worst) if self.checks else None,
            "skipped": self.skipped,
            "verdict": self.verdict,
            "suspects": list(self.suspects),
            "conventions": list(self.conventions),
            "unexplained": list(self.unexplained),
            "checks": [plain(check) for check in self.checks],
        }


def relative_error(found: object, expected: object) -> float:
    """max |found - expected| / max |expected|; inf unless shapes agree and every value is finite."""
    return compare("", "", found, expected, 1.0).rel_err


def compare(level: str, name: str, found: object, expected: object, tolerance: float, spared: float = 0.0) -> Check:
    """Compares two arrays (or numbers, or None for a missing value) and keeps the worst element.

    The scale is the largest expected value; if all expected values are zero, the error is absolute. A fraction `spared`
    of the elements may be worse than the one that is kept, if all are finite.
    """
    if found is None or expected is None:
        if found is expected:
            return Check(level, name, 0.0, tolerance)
        note = "missing" if found is None else "there, but not expected"
        return Check(level, name, math.inf, tolerance, note=note)
    a, b = np.asarray(found), np.asarray(expected)
    if a.shape != b.shape:
        return Check(level, name, math.inf, tolerance, note=f"shape {a.shape}, expected {b.shape}")
    if a.size == 0:
        return Check(level, name, 0.0, tolerance)
    with np.errstate(invalid="ignore", over="ignore"):  # values may be infinite or NaN
        distance = np.atleast_1d(np.subtract(a, b, dtype=np.float64))
        np.abs(distance, out=distance)
    note, place = None, int(distance.argmax())  # argmax finds NaN first
    if not math.isfinite(distance.flat[place]):
        distance, note = ~np.isfinite(distance), "not finite"
        place = int(distance.argmax())
    elif spared:
        kept = distance.size - 1 - int(spared * distance.size)
        place = int(np.argpartition(distance, kept, axis=None)[kept])
    error, scale = (math.inf, 1.0) if note else (float(distance.flat[place]), float(max(b.max(), -b.min())))
    index = np.unravel_index(place, distance.shape)[: a.ndim]
    where = tuple(int(i) for i in index)
    return Check(
        level, name, error / scale if scale else error, tolerance, where, float(a[index]), float(b[index]), note
    )
