"""Where a series of runs changed its level: a test for steps that holds for noise with heavy tails and memory.

The statistic is the largest two-sample t over all ways to cut the series in two, after single far-off values were drawn
in (Hawkins 1977, "Testing a sequence of observations for a shift in location"). Its distribution without any step is
simulated, for noise in which each run resembles the one before: machines have good and bad days, and values that are
taken as independent where they are not show steps that nobody made. What is new in each run is Gaussian in one
simulation, and of Student's t with 3 degrees of freedom in another; the larger p counts.

A level that goes and comes back is hidden from a single cut, so halves, quarters and so on are tested as well, each with
its own noise (Kovacs et al. 2023, "Seeded binary segmentation"). Most of the chance of a false alarm goes to the whole
series, the rest to all parts of it. Further steps are looked for on both sides of one that was found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_RUNS = 8
"""A series needs so many values: of fewer, not even a large step is told from noise."""
BESIDE = 3
"""So many values stand on each side of a step: one or two that are off are no new level."""
MEMORY = 0.5
"""Correlation of neighbouring values up to which the test holds its level (an autoregression of order 1)."""
_WHOLE = 0.7  # of the chance of a false alarm
_SIMULATED_MEMORY = 0.55  # more than is promised, as no distribution is quite the simulated one
_SHORTEST = 10  # of the parts that are tested apart

_SIMULATED = (10_000, 100_000)  # series for each kind of noise: at least, at most
_BLOCK = 2_000_000  # numbers simulated at a time
_WINDOW = 5  # of the running median
_FAR = 3.0  # scales from it beyond which a value is drawn in
_EQUAL = 1e-12  # relative: values as near as this are one

Array = NDArray[np.float64]
_np: Any = np  # its overloads leave open what comes out


@dataclass(frozen=True)
class Step:
    """The level changes before value number `at`, counted from 0; `before` and `after` are means up to the next steps."""

    at: int
    before: float
    after: float
    p: float

    @property
    def change_pct(self) -> float | None:
        """The change, in percent of the level before; None if that is 0."""
        return 100 * (self.after - self.before) / abs(self.before) if self.before else None


def p_value(values: Sequence[float], resolution: float = 0.0, alpha: float = 0.05) -> tuple[float, int]:
    """The p-value of "there is no step", and where the most likely one would be: 1 and 0 for values that are too few or equal.

    Args:
        resolution: the step in which values are counted: no variance is taken to be less than that of rounding.
        alpha: what the p-value will be compared with; the smaller it is, the more is simulated.

    Raises:
        ValueError: a value is not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.isfinite(series).all():
        raise ValueError("values that are not finite have no level")
    if len(series) < FEWEST_RUNS or _is_constant(series):
        return 1.0, 0
    windows = list(_windows(len(series)))
    found: list[tuple[float, int]] = []
    for number, (start, stop) in enumerate(windows):
        share = (1 - _WHOLE) / (len(windows) - 1) if number else _WHOLE if windows[1:] else 1.0
        part = series[start:stop]
        if not _is_constant(part):
            p, at = _of_part(part, resolution, alpha * share)
            found.append((min(1.0, p / share), start + at))
    return min(found)


def steps(values: Sequence[float], alpha: float, resolution: float = 0.0) -> list[Step]:
    """The steps that are shown at level `alpha`, in order; each was tested between its neighbours.

    If there is none, the chance that any is returned is at most `alpha`.
    """
    found = sorted(_cuts(values, 0, alpha, resolution))
    edges = [0, *(at for at, _ in found), len(values)]
    levels = [float(np.mean(values[low:high])) for low, high in itertools.pairwise(edges)]
    return [Step(at, levels[k], levels[k + 1], p) for k, (at, p) in enumerate(found)]


def _cuts(values: Sequence[float], start: int, alpha: float, resolution: float) -> list[tuple[int, float]]:
    p, at = p_value(values, resolution, alpha)
    if p >= alpha:
        return []
    before, after = _cuts(values[:at], start, alpha, resolution), _cuts(values[at:], start + at, alpha, resolution)
    return [*before, (start + at, p), *after]


def _is_constant(series: Array) -> bool:
    return bool(np.ptp(series) <= _EQUAL * np.abs(series).max())


def _windows(count: int) -> Iterator[tuple[int, int]]:
    """The whole series, then halves, quarters and so on, each length begun anew at every half of it."""
    yield 0, count
    length = count // 2
    while length >= _SHORTEST:
        pieces = math.ceil((count - length) / (length / 2)) + 1
        for k in range(pieces):
            start = round(k * (count - length) / (pieces - 1))
            yield start, start + length
        length //= 2


def _of_part(series: Array, resolution: float, alpha: float) -> tuple[float, int]:
    scale = float(_np.abs(series).max())
    found, at = _largest(series[None] / scale, (resolution / scale) ** 2 / 12)
    count = min(max(_SIMULATED[0], round(5 / alpha)), _SIMULATED[1])
    simulated = _without_step(_alike(len(series)), count)
    beyond = [count - int(_np.searchsorted(each, found[0], side="left")) for each in simulated]
    return (1 + max(beyond)) / (1 + count), int(at[0])


def _largest(series: Array, least: float) -> tuple[Array, NDArray[np.int64]]:
    """Of each row, the largest |t| over its cuts, and the number of values before that cut."""
    tame = _tamed(series)
    count = tame.shape[1]
    tame = tame - tame.mean(axis=1, keepdims=True)
    before = _np.arange(BESIDE, count - BESIDE + 1)
    after = count - before.astype(_np.float64)
    sums = _np.cumsum(tame, axis=1)[:, before - 1]  # and their negatives are those of the values after
    rest = (tame**2).sum(axis=1, keepdims=True) - sums**2 * (1 / before + 1 / after)
    variance = _np.maximum(rest / (count - 2), max(least, _EQUAL**2))
    t = _np.abs(sums) * (1 / before + 1 / after) / _np.sqrt(variance * (1 / before + 1 / after))
    best = t.argmax(axis=1)
    return t[_np.arange(len(t)), best], before[best]


def _tamed(series: Any) -> Any:
    """The rows with values far from their running median drawn in to three scales; a step stays where it is."""
    count = series.shape[1]
    windows = _np.sort(_np.lib.stride_tricks.sliding_window_view(series, _WINDOW, axis=1), axis=2)[:, :, _WINDOW // 2]
    middle = windows[:, _np.clip(_np.arange(count) - _WINDOW // 2, 0, count - _WINDOW)]
    off = series - middle
    away = _np.abs(off)
    scale = 1.4826 * _np.median(away, axis=1, keepdims=True)
    scale = _np.where(scale > 0, scale, 1.2533 * away.mean(axis=1, keepdims=True))  # most of them are equal
    return middle + _np.clip(off, -_FAR * scale, _FAR * scale)


def _alike(count: int) -> int:
    """A length whose distribution is as good as that of `count`, so that few need simulating."""
    if count <= 40:
        return count
    return round(1.1 ** math.floor(math.log(count, 1.1)))


@cache
def _without_step(count: int, simulated: int) -> tuple[Array, Array]:
    """The statistic of simulated series without a step, sorted: of Gaussian noise, and of noise with heavy tails."""
    draw = np.random.default_rng(count)
    return (
        _simulated(count, simulated, draw.standard_normal),
        _simulated(count, simulated, partial(draw.standard_t, 3)),
    )


def _simulated(count: int, simulated: int, noise: Any) -> Array:
    rows = max(1, _BLOCK // count)
    found: list[Array] = []
    for start in range(0, simulated, rows):
        series: Array = noise((min(rows, simulated - start), count + 20))  # the first 20 are for the memory to fill
        for k in range(1, series.shape[1]):
            series[:, k] += _SIMULATED_MEMORY * series[:, k - 1]
        found.append(_largest(series[:, 20:], 0.0)[0])
    return np.sort(np.concatenate(found))
