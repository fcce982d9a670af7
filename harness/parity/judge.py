"""One value of an implementation against the specification's, by its kind: near ties are excused, and counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.parity.check import Check, compare
from harness.parity.measure import Counted, Moved, Ranked, Value
from harness.parity.tolerances import bound, spared

_RELUS = 1.5  # the gradients of several ReLUs need not add up
_NEAR = 2.0  # two scores are as good as equal within so many tolerances of a score: each may be off by one


def judged(
    precision: str, found: Value, exact: Value, twin: Value | None = None, slack: np.ndarray | None = None
) -> Check:
    """`found` against the float64 specification; `twin`, in float32, says what rounding alone does.

    `slack` is how much of each element hangs on inputs of ReLUs that are next to zero.
    """
    if isinstance(found.value, Ranked | Counted):
        return replace(_decided(precision, found, exact, twin), kind=found.kind)
    share = spared(found.kind, precision)
    error = _compared(twin, exact, share).rel_err if twin else 0.0
    # a twin that overflows allows nothing
    tolerance = bound(found.kind, precision, error if math.isfinite(error) else 0.0)
    check = replace(_compared(found, exact, share), tolerance=tolerance, kind=found.kind)
    return check if check.ok or slack is None else _beyond(check, found, exact, slack)


def _compared(found: Value, exact: Value, share: float) -> Check:
    """A movement is held to Adam's rule on the moments that it came with."""
    if not isinstance(found.value, Moved):
        return compare(found.level, found.name, found.value, exact.value, 1.0, share)
    moved, rule, rounding = found.value
    if moved is not None and moved.shape == rule.shape:
        moved = moved - np.clip(moved, rule - rounding, rule + rounding) + rule
    return compare(found.level, found.name, moved, rule, 1.0, share)


def _beyond(check: Check, found: Value, exact: Value, slack: np.ndarray) -> Check:
    """`check`, if what is beyond its tolerance is more than hangs on the ReLUs; else what is left."""
    a, b = np.asarray(found.value, np.float64), np.asarray(exact.value, np.float64)
    if a.shape != b.shape or not slack.any():
        return check
    nearer = np.clip(a, b - _RELUS * slack, b + _RELUS * slack)
    left = replace(compare(check.level, check.name, a - nearer + b, b, check.tolerance), kind=check.kind)
    return replace(left, note="ReLUs next to zero excused") if left.ok else check


def _decided(precision: str, found: Value, exact: Value, twin: Value | None) -> Check:
    scores, tolerance = exact.value.scores, bound("exact", precision)  # type: ignore[attr-defined]
    error = compare("", "", twin.value.scores, scores, 1.0).rel_err if twin else 0.0  # type: ignore[attr-defined]
    share = bound("forward", precision, error if math.isfinite(error) else 0.0)
    margin = _NEAR * share * float(np.abs(scores).max(initial=0))
    if isinstance(found.value, Counted):
        return _counted(found, exact, margin, tolerance)
    return _ranked(found, scores, margin, tolerance)


def _counted(found: Value, exact: Value, margin: float, tolerance: float) -> Check:
    """Images whose winners are near others may count or not."""
    assert isinstance(found.value, Counted)
    assert isinstance(exact.value, Counted)
    assert exact.value.scores is not None
    digits = 1 if exact.value.labels.ndim == 1 else exact.value.labels.shape[1]
    ordered = -np.sort(-exact.value.scores, axis=1)
    near = int((ordered[:, digits - 1] - ordered[:, digits] <= margin).sum()) if ordered.shape[1] > digits else 0
    check = compare(found.level, found.name, found.value.correct, exact.value.correct, tolerance)
    if not check.ok and abs(found.value.correct - exact.value.correct) <= near:
        return replace(check, rel_err=0.0, note=f"{near} near ties excused")
    return check


def _ranked(found: Value, scores: np.ndarray, margin: float, tolerance: float) -> Check:
    """Every image's classes: the specification's, or others whose scores are as good."""
    assert isinstance(found.value, Ranked)
    classes, images = np.asarray(found.value.classes), found.value.images
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : classes.shape[1] if classes.ndim == 2 else 1]
    expected = np.tile(expected, (images // len(scores), 1))
    shape = (images, *classes.shape[1:2])
    if classes.shape != shape or not np.issubdtype(classes.dtype, np.integer):
        note = f"shape {classes.shape}, {classes.dtype}, expected {shape}, integers"
        return Check(found.level, found.name, math.inf, tolerance, note=note)
    flat = classes.reshape(images, -1)
    valid = (flat >= 0) & (flat < scores.shape[1])
    all_scores = np.tile(scores, (images // len(scores), 1))
    loss = np.take_along_axis(all_scores, expected, 1) - np.take_along_axis(all_scores, np.where(valid, flat, 0), 1)
    twice = (np.sort(flat, axis=1)[:, 1:] == np.sort(flat, axis=1)[:, :-1]).any(1, keepdims=True)
    differs = flat != expected
    wrong = (differs & ((np.abs(loss) > margin) | ~valid)) | (twice & differs)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        note = f"{int(wrong.any(1).sum())} of {images} images predicted otherwise"
        return Check(
            found.level, found.name, math.inf, tolerance, tuple(map(int, place)), float(flat[place]),
            float(expected[place]), note,
        )  # fmt: skip
    excused = int(differs.any(1).sum())
    note = f"{excused} of {images} images excused: near ties" if excused else None
    return Check(found.level, found.name, 0.0, tolerance, note=note)
