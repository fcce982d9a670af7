"""`capsbench speed --baseline FILE`: is a training step slower than in a stored measurement?

Two measurements are days and often machines apart, so seconds say little. What is compared is the step over the
machine's own floor, which each measurement has taken in the same rounds; seconds only where there is no floor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from harness.errors import UserError
from harness.sniff import what_is

_BASES = {"over floor": "step_over_floor", "s": "step_s"}
"""What is compared, in the order of preference -> its key in the documents; the interval's has "_ci" behind it."""


@dataclass(frozen=True)
class Row:
    """A measurement beside the stored one. `ratio` is now over then, above 1 if slower; `low` to `high` its interval."""

    name: str
    basis: str  # "over floor" or "s"
    then: float | None
    now: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Literal["slower", "faster", "none shown", "no verdict"]
    reason: str | None = None


@dataclass(frozen=True)
class Against:
    """All measurements that both have, and what is not alike."""

    path: Path
    tolerance_pct: float
    rows: list[Row]
    warnings: list[str]

    @property
    def ok(self) -> bool:
        return all(row.verdict != "slower" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path), "ok": self.ok, "tolerance_pct": self.tolerance_pct,
            "rows": [asdict(row) for row in self.rows], "warnings": self.warnings,
        }  # fmt: skip


def read(path: Path, names: Sequence[str], tolerance_pct: float) -> dict[str, Any]:
    """The stored document. Raises `UserError` unless it is one of `speed --json` with a measurement of `names`."""
    if not (tolerance_pct >= 0 and math.isfinite(tolerance_pct)):
        raise UserError(f"--tolerance {tolerance_pct:g} is no tolerance: give percent, 0 or more")
    try:
        found: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"--baseline {path}: {error.strerror}; make it with: capsbench speed --json > {path}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"--baseline {path} is {what_is(path)}; expected what `capsbench speed --json` prints"
        ) from error
    cells: Any = cast("dict[str, Any]", found).get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not all(_is_cell(each) for each in cast("list[Any]", cells)):
        raise UserError(f"--baseline {path} is another JSON; expected what `capsbench speed --json` prints")
    stored = [str(cell["name"]) for cell in cast("list[dict[str, Any]]", cells) if cell["status"] == "ok"]
    if not set(names) & set(stored):
        raise UserError(
            f"--baseline {path} has {', '.join(stored) or 'no measurement'}, but to be measured: {', '.join(names)}; "
            "give the same options as for the baseline, or make a new one"
        )
    return cast("dict[str, Any]", found)


def against(path: Path, stored: Mapping[str, Any], document: Mapping[str, Any], tolerance_pct: float) -> Against:
    """Compares `document` (of `speed --json`) with `stored`, which was read from `path`."""
    then = {cell["name"]: cell for cell in stored["cells"] if cell["status"] == "ok"}
    now = {cell["name"]: cell for cell in document["cells"] if cell["status"] == "ok"}
    rows = [_row(name, then[name], now[name], tolerance_pct) for name in now if name in then]
    said = [f"not in the baseline: {name}" for name in now if name not in then]
    said += [f"only in the baseline: {name}" for name in then if name not in now]
    machines = [cast("dict[str, Any]", each.get("environment") or {}) for each in (stored, document)]
    for key in ("cpu", "cores", "gpus"):
        a, b = (machine.get(key) for machine in machines)
        if a != b:
            said.append(
                f"another machine: {key} was {a} and is {b}; steps over the floor of each are compared, which differ "
                "somewhat between kinds of machine, too"
            )
    return Against(path, tolerance_pct, rows, said)


def _row(name: str, then: Mapping[str, Any], now: Mapping[str, Any], tolerance_pct: float) -> Row:
    basis = next((each for each, key in _BASES.items() if _number(then.get(key)) and _number(now.get(key))), None)
    if basis is None:
        return Row(name, "s", None, None, None, None, None, "no verdict", "the baseline has no time of a step")
    key = _BASES[basis]
    a, b = float(then[key]), float(now[key])
    ends_a, ends_b = (_interval(each.get(f"{key}_ci")) for each in (then, now))
    if ends_a is None or ends_b is None:
        which = "the baseline" if ends_a is None else "this measurement"
        reason = f"{which} has too few rounds for an interval: --rounds 7"
        return Row(name, basis, a, b, b / a, None, None, "no verdict", reason)
    low, high, room = ends_b[0] / ends_a[1], ends_b[1] / ends_a[0], 1 + tolerance_pct / 100
    verdict = "slower" if low > room else "faster" if high < 1 / room else "none shown"
    return Row(name, basis, a, b, b / a, low, high, verdict)


def _is_cell(each: Any) -> bool:
    if not isinstance(each, dict):
        return False
    cell = cast("dict[str, Any]", each)
    return isinstance(cell.get("name"), str) and isinstance(cell.get("status"), str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list):
        return None
    ends = cast("list[Any]", value)
    return (float(ends[0]), float(ends[1])) if len(ends) == 2 and all(map(_number, ends)) else None
