"""Two models on the same test images: McNemar's exact test, and a test over seeds and images.

An error rate forgets which images were wrong. Most images are easy for every model and a few hard for all of them, so two
models differ on far fewer images than either has wrong, and comparing image by image shows smaller differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from harness.stats.means import Difference, detectable, special

_PCT = 100.0


@dataclass(frozen=True)
class Discordance:
    """Two trained models on N images. `p`: McNemar's exact test of "each is as often wrong alone as the other".

    It speaks of these two trained models on other images like these, and not of other seeds.
    """

    images: int
    both: int  # wrong in both
    only_a: int  # wrong in the first alone
    only_b: int
    p: float

    @property
    def difference_pct(self) -> float:
        """The second's test error less the first's, in percentage points."""
        return _PCT * (self.only_b - self.only_a) / self.images


def discordance(wrong_a: Any, wrong_b: Any) -> Discordance:
    """McNemar 1947, with the exact binomial p-value, two-sided.

    Args:
        wrong_a, wrong_b: (N,) booleans, whether the model was wrong on each image; N > 0.

    Raises:
        ValueError: the shapes differ or are not (N,).
    """
    np = _np()
    wrong_a, wrong_b = np.asarray(wrong_a, bool), np.asarray(wrong_b, bool)
    if wrong_a.shape != wrong_b.shape or wrong_a.ndim != 1 or not wrong_a.size:
        raise ValueError(f"shapes {wrong_a.shape} and {wrong_b.shape}: expected (N,) twice, the same images")
    only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    return Discordance(
        wrong_a.size, int((wrong_a & wrong_b).sum()), only_a, only_b, _sign_test(min(only_a, only_b), only_a + only_b)
    )


def error_interval(err_pct: float, images: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of one trained model's test error in percent, over other images like these (Clopper & Pearson 1934).

    Exact: it holds the true error at least as often as `level` says. Of an error that was chosen as the lowest of several
    it holds less often.
    """
    wrong = round(err_pct * images / _PCT)
    tail = (1 - level) / 2
    low = float(special().betaincinv(wrong, images - wrong + 1, tail)) if wrong else 0.0
    high = float(special().betaincinv(wrong + 1, images - wrong, 1 - tail)) if wrong < images else 1.0
    return _PCT * low, _PCT * high


def _sign_test(fewer: int, count: int) -> float:
    """Twice the chance that of `count` fair coins at most `fewer` fall on one side; at most 1."""
    if count == 0:
        return 1.0
    if count > 2000:  # exact fractions of such numbers are slow; the incomplete beta function is exact to rounding
        return min(1.0, 2 * float(special().bdtr(fewer, count, 0.5)))
    below = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, float(Fraction(2 * below, 2**count)))


def crossed(wrong_a: Any, wrong_b: Any, *, alpha: float = 0.05) -> Difference:
    """The second's test error less the first's, in percentage points, for other seeds and other images than these.

    Seeds and images are both samples, and every model saw every image: two random factors, crossed, with one value (-1, 0
    or 1) in each place. The variance of the mean is (MS_seed + max(MS_image - MS_rest, 0)) / (S N). This is the analysis of
    "multiple readers, multiple cases" (Obuchowski & Rockette 1995), with the degrees of freedom of Hillis 2007, "A
    comparison of denominator degrees of freedom", eq. 14.

    Args:
        wrong_a, wrong_b: S arrays (N,) of booleans: `wrong_a[s][i]` is whether model a of seed s was wrong on image i.
            The seed is the same in both, and gave both the same initial weights.

    No variance is taken to be less than what rounding to whole images leaves: (1 / N)^2 / 6 over the seeds. Without two
    seeds there is no test, and `reason` says so.

    Raises:
        ValueError: numbers of seeds or images differ.
    """
    np = _np()
    a, b = (np.asarray(side, dtype=np.int8) for side in (wrong_a, wrong_b))
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"shapes {a.shape} and {b.shape}: expected (S, N) twice, the same seeds and images")
    by_seed = (b - a).mean(axis=1)
    seeds, images = a.shape
    mean = float(by_seed.mean())
    if seeds < 2:
        return Difference(_PCT * mean, None, None, None, 1, 1, True, reason="one seed: no test over seeds")
    by_image = (b - a).mean(axis=0)
    of_seed = images * float(((by_seed - mean) ** 2).sum())
    of_image = seeds * float(((by_image - mean) ** 2).sum())
    total = float((((b - a) - mean) ** 2).sum())
    ms_image = of_image / (images - 1) if images > 1 else 0.0
    rest = max(0.0, (total - of_seed - of_image) / ((seeds - 1) * (images - 1))) if images > 1 else 0.0
    ms_seed = max(of_seed / (seeds - 1), rest, 1 / (6 * images))
    spread = ms_seed + max(ms_image - rest, 0.0)
    error, freedom = math.sqrt(spread / (seeds * images)), (seeds - 1) * (spread / ms_seed) ** 2
    half = float(special().stdtrit(freedom, 1 - alpha / 2)) * error
    p = 2 * float(special().stdtr(freedom, -abs(mean) / error))
    found = Difference(
        _PCT * mean, _PCT * (mean - half), _PCT * (mean + half), p, seeds, seeds, True, _PCT * error, freedom, p
    )
    return replace(found, detectable=detectable(found, alpha))


def _np() -> Any:
    import numpy

    return numpy  # not at the top, where it would slow down every command
