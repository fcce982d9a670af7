"""Judges one value of an implementation against the specification's, by its kind; near ties are excused and counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.parity.check import Check, compare
from harness.parity.measure import Counted, Decoded, Moved, Ranked, Value
from harness.parity.tolerances import bound, spared

_RELUS = 1.5  # the gradients of several ReLUs need not add up
_NEAR = 2.0  # two scores count as equal within this many tolerances of a score: each may be off by one


def judged(
    precision: str, found: Value, exact: Value, twin: Value | None = None, slack: np.ndarray | None = None
) -> Check:
    """`found` against the float64 specification; `twin`, in float32, shows what rounding alone does.

    `slack` is how much of each element depends on ReLU inputs close to zero.
    """
    if isinstance(exact.value, Ranked):
        return replace(_ranked(precision, found, exact.value, twin), kind=found.kind)
    if isinstance(exact.value, Counted):
        return replace(_counted(precision, found, exact.value, twin), kind=found.kind)
    note = None
    if isinstance(exact.value, Decoded):
        (found, exact, twin), note = _decoded(precision, found, exact, twin)
    share = spared(found.kind, precision)
    error = _compared(twin, exact, share).rel_err if twin else 0.0
    # a twin that overflows allows nothing
    tolerance = bound(found.kind, precision, error if math.isfinite(error) else 0.0)
    check = replace(_compared(found, exact, share), tolerance=tolerance, kind=found.kind)
    check = check if check.ok or slack is None else _beyond(check, found, exact, slack)
    return check if check.note else replace(check, note=note)


def _compared(found: Value, exact: Value, share: float) -> Check:
    """Compares a weight's movement with Adam's rule for the implementation's own moments."""
    if not isinstance(found.value, Moved):
        return compare(found.level, found.name, found.value, exact.value, 1.0, share)
    return compare(found.level, found.name, found.value.unrounded, found.value.rule, 1.0, share)


def _beyond(check: Check, found: Value, exact: Value, slack: np.ndarray) -> Check:
    """A passing check if ReLUs close to zero explain the excess over the tolerance; else `check` itself."""
    a, b = np.asarray(found.value, np.float64), np.asarray(exact.value, np.float64)
    if a.shape != b.shape or not slack.any():
        return check
    nearer = np.clip(a, b - _RELUS * slack, b + _RELUS * slack)
    left = replace(compare(check.level, check.name, a - nearer + b, b, check.tolerance), kind=check.kind)
    return replace(left, note="ReLUs next to zero excused") if left.ok else check


def _margin(precision: str, scores: np.ndarray, twin: np.ndarray | None) -> float:
    """How far apart two scores may be and still count as equal."""
    error = 0.0 if twin is None else compare("", "", twin, scores, 1.0).rel_err
    tolerance = bound("forward", precision, error if math.isfinite(error) else 0.0)
    return _NEAR * tolerance * float(np.abs(scores).max(initial=0))


def _near(scores: np.ndarray, digits: int, margin: float, ordered: bool = False) -> np.ndarray:
    """(N,): whether an image's `digits` winners are near the runner-up or, if `ordered`, near each other."""
    best = -np.sort(-scores, axis=1)
    gaps = (best[:, :-1] - best[:, 1:])[:, 0 if ordered else digits - 1 : digits]
    return np.any(gaps <= margin, axis=1)


def _decoded(
    precision: str, found: Value, exact: Value, twin: Value | None
) -> tuple[tuple[Value, Value, Value | None], str | None]:
    """The reconstructions of the images whose longest capsules are clear in the specification."""
    expected = _as_decoded(exact)
    sure, count = None, 0
    if expected.pixels is not None and expected.scores is not None:
        digits = expected.pixels.shape[1] if expected.pixels.ndim == 5 else 1
        near = _near(expected.scores, digits, _margin(precision, expected.scores, _scores(twin)), ordered=True)
        sure, count = np.logical_not(near), int(near.sum())

    def those(value: Value) -> Value:
        pixels = _as_decoded(value).pixels
        if sure is not None and count and pixels is not None and pixels.shape[:1] == sure.shape:
            pixels = pixels[sure]
        return value._replace(value=pixels)

    note = f"{count} near ties excused" if count else None
    return (those(found), those(exact), twin and those(twin)), note


def _as_decoded(value: Value) -> Decoded:
    assert isinstance(value.value, Decoded)
    return value.value


def _scores(twin: Value | None) -> np.ndarray | None:
    return twin.value.scores if twin and isinstance(twin.value, Decoded | Counted | Ranked) else None


def _counted(precision: str, found: Value, exact: Counted, twin: Value | None) -> Check:
    """An image whose winners are nearly tied with others may or may not count as right."""
    assert isinstance(found.value, Counted)
    assert exact.scores is not None
    margin = _margin(precision, exact.scores, _scores(twin))
    near = int(_near(exact.scores, 1 if exact.labels.ndim == 1 else exact.labels.shape[1], margin).sum())
    share = found.value.images / exact.images  # each image may occur several times
    expected = share * exact.correct
    check = compare(found.level, found.name, found.value.correct, expected, bound("exact", precision))
    if not check.ok and abs(found.value.correct - expected) <= share * near:
        return replace(check, rel_err=0.0, note=f"{near} near ties excused")
    return check


def _ranked(precision: str, found: Value, exact: Ranked, twin: Value | None) -> Check:
    """Every image's classes: the specification's, or others whose scores are as good."""
    assert isinstance(found.value, Ranked)
    assert exact.scores is not None
    level, name, tolerance = found.level, found.name, bound("exact", precision)
    classes, images = np.asarray(found.value.classes), found.value.images
    shape = (images, *exact.classes.shape[1:])
    if classes.shape != shape or not np.issubdtype(classes.dtype, np.integer):
        note = f"shape {classes.shape}, {classes.dtype}, expected {shape}, integers"
        return Check(level, name, math.inf, tolerance, note=note)
    times = images // len(exact.scores)
    scores = np.tile(exact.scores, (times, 1))
    expected, chosen = np.tile(exact.classes.reshape(len(exact.scores), -1), (times, 1)), classes.reshape(images, -1)
    valid = (chosen >= 0) & (chosen < scores.shape[1])
    lost = np.take_along_axis(scores, expected, 1) - np.take_along_axis(scores, np.where(valid, chosen, 0), 1)
    ordered, differs = np.sort(chosen, axis=1), chosen != expected
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(1, keepdims=True)
    margin = _margin(precision, exact.scores, _scores(twin))
    wrong = differs & ((np.abs(lost) > margin) | ~valid | twice)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        note = f"{int(wrong.any(1).sum())} of {images} images predicted otherwise"
        where = (int(place[0]), int(place[1]))
        return Check(level, name, math.inf, tolerance, where, float(chosen[place]), float(expected[place]), note)
    excused = int(differs.any(1).sum())
    return Check(level, name, 0.0, tolerance, note=f"{excused} near ties excused" if excused else None)
