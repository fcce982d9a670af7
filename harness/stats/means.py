"""Statistics of small samples: intervals for mean and median, tests for difference and for equivalence of means."""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

_ROUNDING = 1e-14  # of a difference between two floats, relative to the larger one
FEWEST = 6
"""Values needed for a 95% interval of their median: all of five lie on one side of it with probability 2/32."""


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The narrowest pair of order statistics, as far from one end as from the other, that holds the median at `level`.

    Exact for any continuous distribution of independent values: the number of values below the median is binomial
    (Hahn & Meeker 1991, "Statistical Intervals", chapter 5). None if not even the extremes suffice.
    """
    ordered, count = sorted(values), len(values)
    interval, below = None, 0.0
    for k in range((count + 1) // 2):
        below += math.comb(count, k) / 2**count  # P(at most k values are below the median)
        if 1 - 2 * below < level:
            break
        interval = ordered[k], ordered[count - 1 - k]
    return interval


@dataclass(frozen=True)
class Summary:
    """A sample in short. `sd` is of the sample (n - 1); `low` to `high` is Student's 95% interval of the mean.

    A single value has neither. If all values are equal there is no interval: one of zero width would claim a certainty
    that a few equal values do not give.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    min: float
    max: float


def summary(values: Sequence[float], level: float = 0.95) -> Summary | None:
    """The sample in short; None for no values.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError("values that are not finite have no mean")
    if not values:
        return None
    n, mean = len(values), statistics.fmean(values)
    sd = statistics.stdev(values) if n > 1 else None
    low = high = None
    if sd:
        half = float(special().stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
        low, high = mean - half, mean + half
    return Summary(n, mean, sd, low, high, min(values), max(values))


@dataclass(frozen=True)
class Difference:
    """The mean of `b` minus that of `a`, its 95% interval, and the two-sided p-value of "there is none".

    `adjusted_p` is `p` after Holm's correction for all differences tested together; before `adjust`, it is `p`.
    `detectable` is the smallest true difference that this test, with the correction, would find in four of five
    repetitions: smaller ones would mostly be missed. Without a test, `reason` says why.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n_a: int
    n_b: int
    paired: bool
    error: float = 0.0  # standard error of the difference
    freedom: float = 1.0  # its degrees of freedom
    adjusted_p: float | None = None
    detectable: float | None = None
    reason: str | None = None


def difference(
    a: Sequence[float], b: Sequence[float], *, paired: bool, alpha: float = 0.05, resolution: float = 0.0
) -> Difference:
    """Student's t-test of the pairs' differences, or Welch's of two samples.

    Args:
        paired: `a[k]` and `b[k]` belong together, for example by their seed.
        resolution: the step in which values are counted: of 100 images, an error comes in steps of 1%. Few such values
            are often equal by chance; no variance is taken to be less than that of rounding, `resolution`^2 / 12 a value.

    Without any variance the difference is certain: `p` is 0, or 1 if the difference is zero.

    Raises:
        ValueError: a value is not finite, or pairs do not match.
    """
    if not all(map(math.isfinite, [*a, *b])):
        raise ValueError("values that are not finite have no mean")
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs")
    between = statistics.fmean(b) - statistics.fmean(a) if a and b else None
    if between is None or min(len(a), len(b)) < 2:
        seeds = "one value" if len(a) == len(b) == 1 else f"{len(a)} and {len(b)} values"
        return Difference(between, None, None, None, len(a), len(b), paired, reason=f"{seeds}: no test")
    least = resolution**2 / 12
    error, freedom = _paired(a, b, 2 * least) if paired else _welch(a, b, least)
    if error == 0:
        p = float(between == 0)
        return Difference(between, between, between, p, len(a), len(b), paired, adjusted_p=p, detectable=0.0)
    half = float(special().stdtrit(freedom, 1 - alpha / 2)) * error
    p = 2 * float(special().stdtr(freedom, -abs(between) / error))
    found = Difference(between, between - half, between + half, p, len(a), len(b), paired, error, freedom, p)
    return replace(found, detectable=detectable(found, alpha))


def adjust(family: Sequence[Difference], alpha: float = 0.05) -> list[Difference]:
    """The same differences, corrected for multiple testing (Holm 1979): the chance of any false positive is at most `alpha`.

    `detectable` becomes that of the strictest step, at `alpha` over the number of tests.
    """
    ps = holm([each.p for each in family if each.p is not None])
    corrected = iter(ps)
    return [
        replace(each, adjusted_p=next(corrected), detectable=detectable(each, alpha / len(ps)))
        if each.p is not None
        else each
        for each in family
    ]


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times m - k + 1, never less than the one before, at most 1."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def detectable(found: Difference, alpha: float, power: float = 0.8) -> float:
    """The difference at which the test's t exceeds its critical value with probability `power`: a noncentral t."""
    if not found.error:
        return 0.0
    critical = float(special().stdtrit(found.freedom, 1 - alpha / 2))
    return float(special().nctdtrinc(found.freedom, 1 - power, critical)) * found.error


@dataclass(frozen=True)
class Equivalence:
    """The mean of `a` minus that of `b`, its interval, and whether it is shown to be within `margin` of zero.

    `low` to `high` is the (1 - 2 alpha) confidence interval; the two are equivalent where all of it lies strictly
    within the margin, that is, if `p` is below alpha. Without a verdict, `reason` says why, and `low`, `high`, `p`
    and `equivalent` are None.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    margin: float
    equivalent: bool | None
    n_a: int
    n_b: int
    paired: bool = False
    reason: str | None = None


def equivalence(
    a: Sequence[float], b: Sequence[float], margin: float, alpha: float = 0.05, *, paired: bool | None = None
) -> Equivalence:
    """Two one-sided t-tests of |mean(a) - mean(b)| < margin (Schuirmann 1987; Lakens 2017, "Equivalence Tests").

    If paired, `a[k]` and `b[k]` come from the same seed, hence from the same initial weights, order and shifts: their
    common effect cancels in each difference, so fewer seeds suffice. This is the default for sides of equal length;
    sides whose lengths are equal by accident need `paired=False`, which is Welch's test, as for unequal lengths.

    Without variance the interval is the difference itself, and `p` is 0 or 1: the limit of both tests.

    Raises:
        ValueError: `margin` is not above 0, `alpha` not between 0 and 0.5, a value not finite, or pairs do not match.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin is {margin}; expected a finite number above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; expected a number between 0 and 0.5")
    if not all(map(math.isfinite, [*a, *b])):
        raise ValueError("values that are not finite have no mean")
    paired = len(a) == len(b) if paired is None else paired
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs")
    difference = statistics.fmean(a) - statistics.fmean(b) if a and b else None
    if difference is None or min(len(a), len(b)) < 2:
        reason = f"{len(a)} and {len(b)} values; an equivalence needs at least 2 on each side"
        return Equivalence(difference, None, None, None, margin, None, len(a), len(b), paired, reason)
    if paired:
        difference = statistics.fmean(x - y for x, y in zip(a, b, strict=True))
        error, freedom = _paired(a, b)
    else:
        error, freedom = _welch(a, b)
    low, high, p = _two_one_sided(difference, error, freedom, margin, alpha)
    inside = -margin < low and high < margin
    return Equivalence(difference, low, high, p, margin, inside, len(a), len(b), paired)


def _paired(a: Sequence[float], b: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """The standard error of the mean difference of pairs, with a variance of at least `least`; its degrees of freedom."""
    spread = statistics.stdev([x - y for x, y in zip(a, b, strict=True)])
    if spread <= _ROUNDING * max(map(abs, [*a, *b])):  # 0.37 - 0.36 and 0.33 - 0.32 are the same difference
        spread = 0.0
    return math.sqrt(max(spread**2, least) / len(a)), len(a) - 1.0


def _welch(a: Sequence[float], b: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """The standard error of a difference of means, and its degrees of freedom (Welch-Satterthwaite)."""
    of_a, of_b = (max(statistics.variance(side), least) / len(side) for side in (a, b))
    if not of_a + of_b:
        return 0.0, 1.0
    share = of_a / (of_a + of_b)  # shares rather than squares of variances, which underflow
    return math.sqrt(of_a + of_b), 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))


def _two_one_sided(
    difference: float, error: float, freedom: float, margin: float, alpha: float
) -> tuple[float, float, float]:
    """The ends of the interval, and the larger of the two one-sided p-values."""
    if error == 0:
        return difference, difference, float(abs(difference) >= margin)
    half = float(special().stdtrit(freedom, 1 - alpha)) * error
    p = float(special().stdtr(freedom, (abs(difference) - margin) / error))
    return difference - half, difference + half, p


def special() -> Any:
    return importlib.import_module("scipy.special")  # not at the top, where it would slow down every command
