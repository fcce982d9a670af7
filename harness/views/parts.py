"""The parts of a training step, as `capsbench speed` and a report show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.text import UNKNOWN

_FIRST = "ms a step"
_GAP = 2  # between columns
IN_PLACE = (
    "A part: how much longer a step takes that ends with it than one that ends before it, forward and backward, so that the "
    "parts add up to the step, which was timed in the same turns; in brackets the 95% interval; < where noise "
    "hides the part, - where a step takes no longer with it."
)
ALONE = "Each part was timed alone, which may take longer than in the step."


def breakdown(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> list[Table]:
    """Milliseconds of each part of a step, a column for each measurement that tells them; as many tables as fit `width`."""
    told = [row for row in rows if "breakdown" in row]
    is_impl_enough = len({row["impl"] for row in told}) == len(told)
    columns = [[row["impl" if is_impl_enough else "name"], *_column(row, parts_of(told))] for row in told]
    heads = [_FIRST, *parts_of(told), "sum", "step", "of step", "forward", "backward", "floor"]
    return [_table([heads, *group]) for group in _groups(columns, width and width - max(map(len, heads)))]


def parts_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all parts in their order, "other" last."""
    return sorted(dict.fromkeys(part for row in rows for part in row["breakdown"]), key=lambda part: part == "other")


def shown(row: Mapping[str, Any], part: str) -> str:
    """Milliseconds of a part of a measurement, with its interval; what it is at most, if it cannot be told from noise."""
    if part not in row["breakdown"]:
        return UNKNOWN
    found = {each["part"]: each for each in row["parts"]["rows"]}.get(part) if "parts" in row else None
    if found is None:
        seconds = row["breakdown"][part]
        return UNKNOWN if seconds < 0 else milliseconds(seconds)
    interval = found["s_ci"]
    if found["resolved"]:
        return milliseconds(found["s"]) + (f" ({'-'.join(map(milliseconds, interval))})" if interval else "")
    return f"< {milliseconds(interval[1])}" if interval and interval[1] > 0 else UNKNOWN


def is_told(row: Mapping[str, Any], part: str) -> bool:
    """Whether a part was told from noise, as far as that is known."""
    return all(each["resolved"] for each in row.get("parts", {}).get("rows", ()) if each["part"] == part)


def explained(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How the parts were measured, where there are any."""
    told = [row for row in rows if "breakdown" in row]
    if any("parts" in row for row in told):
        yield IN_PLACE
    if alone := [row["name"] for row in told if "parts" not in row]:
        yield f"{', '.join(alone)}: {ALONE[0].lower()}{ALONE[1:]}"


def milliseconds(seconds: float) -> str:
    """Without a unit."""
    return f"{1e3 * seconds:,.0f}" if abs(seconds) >= 0.01 else f"{1e3 * seconds:,.2f}"


def step(row: Mapping[str, Any]) -> float:
    """Seconds of the step that the parts add up to: in the same turns as theirs, if they were told in place."""
    return row["parts"]["step_s"] if "parts" in row else row["step_s"]


def share(row: Mapping[str, Any]) -> float:
    """The sum of the parts that were measured, over the step."""
    if "parts" in row:
        return row["parts"]["of_step"]
    return sum(seconds for part, seconds in row["breakdown"].items() if part != "other") / row["step_s"]


def _column(row: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    passes = row.get("parts", {})
    seconds = (passes.get("forward_s"), passes.get("backward_s"), row["floor_s"])
    return [
        *(shown(row, part) for part in parts),
        milliseconds(share(row) * step(row)),
        milliseconds(step(row)),
        f"{share(row):.0%}",
        *(UNKNOWN if value is None else milliseconds(value) for value in seconds),
    ]


def _groups(columns: Sequence[Sequence[str]], width: int | None) -> Iterator[list[Sequence[str]]]:
    """Neighbouring columns that fit side by side, at least one."""
    group: list[Sequence[str]] = []
    used = 0
    for column in columns:
        wide = _GAP + max(map(len, column))
        if group and width is not None and used + wide > width:
            yield group
            group, used = [], 0
        group.append(column)
        used += wide
    if group:
        yield group


def _table(columns: Sequence[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(Text(column[0]), justify="right" if place else "left", no_wrap=True)
    for line in zip(*(column[1:] for column in columns), strict=True):
        made.add_row(*map(Text, line))
    return made
