"""Comparison image by image: against SciPy, and with the error rate and the power that it claims."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import scipy.stats

from harness.stats import crossed, discordance, error_interval

stats: Any = scipy.stats  # which declares nothing of what a test returns

Wrong = list[np.ndarray]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (12, 4), (5, 5), (40, 71), (1500, 1403)])
def test_mcnemar_is_a_sign_test_of_what_one_alone_has_wrong(only_a: int, only_b: int) -> None:
    a, b = np.zeros(5000, bool), np.zeros(5000, bool)
    a[:100] = b[:100] = True
    a[100 : 100 + only_a] = True
    b[4000 - only_b : 4000] = True
    found = discordance(a, b)
    assert (found.images, found.both, found.only_a, found.only_b) == (5000, 100, only_a, only_b)
    assert found.difference_pct == pytest.approx(100 * (b.mean() - a.mean()))
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_where_images_say_nothing_it_is_the_t_test_over_seeds() -> None:
    """Each seed's mistakes are on images of their own, so none is harder than another."""
    counts, images = [30, 70, 50, 10], 1000
    wrong_b = np.zeros((4, images), bool)
    for seed, (begin, count) in enumerate(zip(np.cumsum([0, *counts]), counts, strict=False)):
        wrong_b[seed, begin : begin + count] = True
    found = crossed(np.zeros((4, images), bool), wrong_b)
    expected = stats.ttest_1samp(np.divide(counts, images / 100), 0)
    assert found.difference == pytest.approx(4.0)
    assert (found.n_a, found.n_b, found.paired) == (4, 4, True)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_where_seeds_say_nothing_it_is_the_test_over_images() -> None:
    """Ten seeds that answer alike are one: only the images are a sample."""
    rng = np.random.default_rng(3)
    a, b = rng.random(2000) < 0.03, rng.random(2000) < 0.05
    found = crossed([a] * 10, [b] * 10)
    expected = stats.ttest_1samp(100.0 * (b.astype(int) - a), 0)
    assert found.difference == pytest.approx(100 * (b.mean() - a.mean()))
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)


def test_no_difference_at_all_and_one_seed() -> None:
    a = np.zeros((3, 50), bool)
    same = crossed(a, a)
    assert (same.difference, same.p) == (0, 1)
    alone = crossed(a[:1], a[:1])
    assert (alone.p, alone.detectable, alone.reason) == (None, None, "one seed: no test over seeds")


@pytest.mark.parametrize(("a", "b"), [((3, 5), (2, 5)), ((3, 5), (3, 4)), ((5,), (5,)), ((3, 0), (3, 0))])
def test_other_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the same seeds and images"):
        crossed(np.zeros(a, bool), np.zeros(b, bool))


def drawn(rng: np.random.Generator, seeds: int, images: int, rates: tuple[float, float], sds: Any) -> list[Wrong]:
    """Two models' mistakes. An image is hard for all (`sds[0]`) or for one model; a seed is better or worse."""
    of_image, of_seed, own = sds
    hard = rng.normal(0, of_image, images)
    spread = (of_image**2 + of_seed**2 + own**2 + 1) ** 0.5
    sides: list[Wrong] = []
    for rate in rates:
        threshold = NormalDist().inv_cdf(1 - rate) * spread
        base = hard + rng.normal(0, own, images)
        sides.append([base + rng.normal(0, of_seed) + rng.normal(size=images) > threshold for _ in range(seeds)])
    return sides


@pytest.mark.parametrize(
    ("seeds", "images", "rate", "sds"),
    [
        (3, 10_000, 0.003, (3.0, 0.1, 0.0)),
        (3, 10_000, 0.003, (3.0, 0.3, 0.5)),
        (2, 1000, 0.02, (2.0, 0.0, 0.5)),
        (5, 360, 0.02, (2.0, 0.0, 1.0)),
        (5, 2000, 0.01, (0.0, 0.5, 0.0)),
    ],
)
def test_false_positives_are_at_most_five_in_a_hundred(seeds: int, images: int, rate: float, sds: Any) -> None:
    rng = np.random.default_rng(7)
    tests = [crossed(*drawn(rng, seeds, images, (rate, rate), sds)) for _ in range(1000)]
    positive = sum((test.p or 0) < 0.05 for test in tests)
    assert positive <= 50


def test_what_is_called_detectable_is_detected_in_about_four_of_five() -> None:
    rng = np.random.default_rng(11)
    sds = (3.0, 0.1, 0.3)
    typical = float(np.median([crossed(*drawn(rng, 8, 5000, (0.02, 0.02), sds)).detectable or 0 for _ in range(50)]))
    tests = [crossed(*drawn(rng, 8, 5000, (0.02, 0.02 + typical / 100), sds)) for _ in range(200)]
    assert 0.65 * 200 <= sum((test.p or 0) < 0.05 for test in tests) <= 0.95 * 200


def test_the_exact_interval_of_an_error() -> None:
    """Published values of Clopper-Pearson intervals; by the definition, the tails have at most 2.5% each."""
    assert error_interval(5.0, 100) == pytest.approx((1.6432, 11.2835), abs=1e-4)
    assert error_interval(0.0, 100) == pytest.approx((0.0, 3.6217), abs=1e-4)
    assert error_interval(100.0, 20) == pytest.approx((83.1567, 100.0), abs=1e-4)
    low, high = (end / 100 for end in error_interval(10.0, 50))
    at_most = sum(math.comb(50, k) * high**k * (1 - high) ** (50 - k) for k in range(6))
    at_least = sum(math.comb(50, k) * low**k * (1 - low) ** (50 - k) for k in range(5, 51))
    assert (at_most, at_least) == pytest.approx((0.025, 0.025))
