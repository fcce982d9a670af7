"""Statistics of few numbers: is a difference of means shown to be too small to matter? Where is a median?"""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Equivalence:
    """The mean of `a` minus that of `b`, its interval, and whether it is shown to be within `margin` of zero.

    `low` to `high` is the (1 - 2 alpha) confidence interval; the two are equivalent where all of it lies strictly
    within the margin, which is where `p` is below alpha. Without a verdict, `reason` says why, and `low`, `high`, `p`
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

    Paired, `a[k]` and `b[k]` come from the same seed, hence from the same initial weights, order and shifts: what these do
    to both alike cancels in each difference, so fewer seeds show more. That is the default for two sides of one length;
    sides that merely happen to be as long need `paired=False`, which is Welch's test, as for unequal lengths.

    Where there is no variance the interval is the difference itself, and `p` is 0 or 1: the limit of both tests.

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
        differences = [x - y for x, y in zip(a, b, strict=True)]
        difference = statistics.fmean(differences)
        error, freedom = math.sqrt(statistics.variance(differences) / len(a)), len(a) - 1.0
    else:
        error, freedom = _welch(a, b)
    low, high, p = _two_one_sided(difference, error, freedom, margin, alpha)
    inside = -margin < low and high < margin
    return Equivalence(difference, low, high, p, margin, inside, len(a), len(b), paired)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Low, high and coverage of the median's narrowest symmetric interval between two of the values, whatever their law.

    The k-th smallest to the k-th largest of n cover the median with probability 1 - 2 P(Binomial(n, 1/2) < k). Fewer than
    six values reach no 95%: then it is their whole range, with the coverage that has (0 for one value).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values have no median")
    ordered, n = sorted(values), len(values)
    k, coverage = 1, 1 - 2 / 2**n
    while 2 * (k + 1) <= n:
        narrower = 1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        if narrower < confidence:
            break
        k, coverage = k + 1, narrower
    return ordered[k - 1], ordered[-k], coverage


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The standard error of a difference of means, and its degrees of freedom (Welch-Satterthwaite)."""
    of_a, of_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    if not of_a + of_b:
        return 0.0, 1.0
    share = of_a / (of_a + of_b)  # shares rather than squares of variances, which underflow
    return math.sqrt(of_a + of_b), 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))


def _two_one_sided(
    difference: float, error: float, freedom: float, margin: float, alpha: float
) -> tuple[float, float, float]:
    """The interval's ends, and the larger of the two one-sided p-values."""
    if error == 0:
        return difference, difference, float(abs(difference) >= margin)
    special: Any = importlib.import_module("scipy.special")  # not at the top: every command would wait for it

    half = float(special.stdtrit(freedom, 1 - alpha)) * error
    p = float(special.stdtr(freedom, (abs(difference) - margin) / error))
    return difference - half, difference + half, p
