"""The parts of a training step: from the times of steps cut short to a part's time with its interval. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.stats import median_interval

TOLERANCE = 0.1
"""The parts' sum should be within this of the step in the same turns, and that within this of the step before them."""

_LAST = "other"  # is measured first, and shown last


def in_place(turns: Sequence[Sequence[Mapping[str, Any]]], step_s: float) -> dict[str, Any]:
    """The parts of a step, from turns of `harness.worker.parts.turn`; `step_s` is the whole step's time in these turns.

    A part is the median of what the step that ends with it takes longer than the one that ends before it, each pair from the
    same pass. If the interval of that difference includes 0 (with too few passes for one: if any of them does), the part is
    not `resolved`: no time was shown, and `s`, which is never negative, is only what makes the sum complete.
    """
    wholes = [_joined(turns, place, "whole") for place in range(len(turns[0]))]
    forwards = [_joined(turns, place, "forward") for place in range(len(turns[0]))]
    rows: list[dict[str, Any]] = []
    for place, (cut, whole, forward) in enumerate(zip(turns[0], wholes, forwards, strict=True)):
        own = _less(whole, wholes[place - 1]) if place else whole
        row: dict[str, Any] = {"part": cut["part"], **_estimate(own), "forward_s": None, "backward_s": None}
        if forward and place and row["resolved"]:
            there = _less(forward, forwards[place - 1] or wholes[place - 1])
            row |= _both_ways(there, _less(own, there))
        row["of_step"] = row["s"] / step_s
        rows.append(row)
    total = sum(row["s"] for row in rows)
    return {
        "passes": len(wholes[0]),
        "sum_s": total,
        "step_s": step_s,
        "of_step": total / step_s,
        **_passes(wholes, forwards),
        "rows": sorted(rows, key=lambda row: row["part"] == _LAST),
    }


def _passes(wholes: Sequence[Sequence[float]], forwards: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Seconds of the forward and of the backward pass of all parts that have both."""
    places = [place for place, forward in enumerate(forwards) if forward and place]
    if not places:
        return {"forward_s": None, "backward_s": None}
    first, last = places[0], places[-1]
    return _both_ways(_less(forwards[last], wholes[first - 1]), _less(wholes[last], forwards[last]))


def alone(rounds: Sequence[Mapping[str, float]], step_s: float) -> dict[str, float]:
    """Median seconds of each part, and "other": the step minus its parts; negative if they take longer one by one."""
    parts = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return parts | {_LAST: step_s - sum(parts.values())}


def mismatch(cell: Mapping[str, Any]) -> Iterator[str]:
    """Sentences if the parts do not add up to the step, or the step was another while they were measured."""
    if "parts" not in cell:
        return
    advice = "measure again on a machine with no other load, or take more rounds"
    if abs(cell["parts"]["of_step"] - 1) > TOLERANCE:
        yield f"its parts add up to {cell['parts']['of_step']:.0%} of its step: {advice}"
    then = cell["parts"]["step_s"] / cell["step_s"]
    if abs(then - 1) > TOLERANCE:
        yield f"its step took {then:.0%} of its time while its parts were measured, after the other rounds: {advice}"


def _joined(turns: Sequence[Sequence[Mapping[str, Any]]], place: int, way: str) -> list[float]:
    """Seconds of one cut over all turns; empty if it was not timed that way."""
    return [seconds for turn in turns for seconds in turn[place][way] or ()]


def _less(longer: Sequence[float], shorter: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(longer, shorter, strict=True)]


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    interval = median_interval(values)
    return {
        "s": max(0.0, statistics.median(values)),
        "s_ci": interval,
        "resolved": (interval[0] if interval else min(values)) > 0,
    }


def _both_ways(forward: Sequence[float], backward: Sequence[float]) -> dict[str, float | None]:
    return {
        "forward_s": max(0.0, statistics.median(forward)),
        "backward_s": max(0.0, statistics.median(backward)),
    }
