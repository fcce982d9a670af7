"""Equivalence: against SciPy's own one-sided t-tests, at the edges, and as often wrong as it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from harness.stats import equivalence, median_interval

A = [0.31, 0.28, 0.35, 0.30, 0.27]
B = [0.29, 0.30, 0.31, 0.29, 0.29]


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("sides", [(A, B), (B, A)])
def test_paired_is_two_one_sided_t_tests_of_the_differences(
    margin: float, alpha: float, sides: tuple[list[float], list[float]]
) -> None:
    a, b = sides
    found = equivalence(a, b, margin, alpha)
    differences = np.subtract(a, b)
    above = stats.ttest_1samp(differences, -margin, alternative="greater")
    below = stats.ttest_1samp(differences, margin, alternative="less")
    interval = stats.ttest_1samp(differences, 0).confidence_interval(1 - 2 * alpha)
    assert found.paired
    assert found.p == pytest.approx(max(above.pvalue, below.pvalue), rel=1e-10)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-10)
    assert found.difference == pytest.approx(differences.mean(), rel=1e-10)
    assert found.equivalent == (found.p < alpha)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("b", [B, B[:3], [0.5, 0.1]])
def test_unpaired_is_welch_s_test(margin: float, b: list[float]) -> None:
    found = equivalence(A, b, margin, paired=False)
    above = stats.ttest_ind(A, [value - margin for value in b], equal_var=False, alternative="greater")
    below = stats.ttest_ind(A, [value + margin for value in b], equal_var=False, alternative="less")
    interval = stats.ttest_ind(A, b, equal_var=False).confidence_interval(0.9)
    assert not found.paired
    assert found.p == pytest.approx(max(above.pvalue, below.pvalue), rel=1e-10)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-10)
    assert found.equivalent == (found.p < 0.05)
    assert (found.n_a, found.n_b) == (5, len(b))


def test_a_worked_example() -> None:
    """Differences 0.01, 0.03, 0.02: mean 0.02, standard error 0.01/sqrt(3), t of 2 degrees of freedom at 95% 2.91999."""
    found = equivalence([0.30, 0.33, 0.35], [0.29, 0.30, 0.33], margin=0.1)
    half = 2.919986 * 0.01 / math.sqrt(3)
    assert found.low == pytest.approx(0.02 - half, abs=1e-7)
    assert found.high == pytest.approx(0.02 + half, abs=1e-7)
    # the t of 2 degrees of freedom has the distribution function (1 + t / sqrt(2 + t^2)) / 2
    t = (0.02 - 0.1) / (0.01 / math.sqrt(3))
    assert found.p == pytest.approx((1 + t / math.sqrt(2 + t * t)) / 2, rel=1e-6)
    assert found.equivalent is True


def test_pairs_show_what_unpaired_seeds_hide() -> None:
    a = [1.0, 2.0, 3.0]  # seeds that differ far more than the frameworks do
    b = [1.01, 1.99, 3.02]
    assert equivalence(a, b, 0.1).equivalent is True
    assert equivalence(a, b, 0.1, paired=False).equivalent is False


def test_unequal_lengths_are_unpaired() -> None:
    assert not equivalence(A, B[:4], 0.1).paired


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("a", "equivalent", "p"), [(0.0, True, 0.0), (0.25, True, 0.0), (0.5, False, 1.0), (-0.75, False, 1.0)]
)
def test_without_variance_the_difference_decides(paired: bool, a: float, equivalent: bool, p: float) -> None:
    found = equivalence([a] * 3, [0.0] * 3, margin=0.5, paired=paired)
    assert (found.low, found.high, found.p, found.equivalent) == (a, a, p, equivalent)


def test_variances_too_small_to_square_are_no_nan() -> None:
    found = equivalence([0.0, 1e-150, 2e-150], [0.0, 1e-150], margin=0.1, paired=False)
    assert found.p == 0
    assert found.equivalent is True
    assert found.low is not None
    assert found.low < found.difference < found.high


def test_one_side_without_variance() -> None:
    found = equivalence([1.0, 1.0, 1.0], [1.0, 1.1, 1.2], margin=0.5, paired=False)
    expected = stats.t.ppf(0.95, 2) * 0.1 / math.sqrt(3)
    assert found.high == pytest.approx(-0.1 + expected)


@pytest.mark.parametrize(("a", "b", "difference"), [([1.0], [2.0], -1.0), ([1.0, 2.0], [2.0], -0.5), ([], A, None)])
def test_fewer_than_two_values_give_no_verdict(a: Sequence[float], b: Sequence[float], difference: float) -> None:
    found = equivalence(a, b, 0.1)
    assert (found.equivalent, found.low, found.high, found.p) == (None, None, None, None)
    assert found.difference == difference
    assert found.reason == f"{len(a)} and {len(b)} values; an equivalence needs at least 2 on each side"


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match="margin is"):
        equivalence(A, B, margin)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_is_a_small_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha is"):
        equivalence(A, B, 0.1, alpha)


def test_values_are_finite_and_pairs_complete() -> None:
    with pytest.raises(ValueError, match="not finite"):
        equivalence([math.nan, 1.0], [1.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="3 and 2 values make no pairs"):
        equivalence([1.0, 1.0, 1.0], [1.0, 1.0], 0.1, paired=True)


@pytest.mark.parametrize(("n_a", "n_b", "spread_b"), [(3, 3, 0.04), (5, 5, 0.04), (5, 4, 0.12)])
def test_at_the_margin_s_edge_as_often_wrong_as_alpha(n_a: int, n_b: int, spread_b: float) -> None:
    """Where the true difference is the margin, equivalence is claimed in 5% of trials; the interval misses in 10%.

    Of 2,000 trials the standard error of that share is 0.5%. Welch's degrees of freedom are approximate for few
    values of unequal spread, so that it may be wrong less often.
    """
    generator, trials, margin = np.random.default_rng(7), 2000, 1.0
    wrong = missed = 0
    for _ in range(trials):
        common = generator.normal(0, 1, max(n_a, n_b)) if n_a == n_b else np.zeros(max(n_a, n_b))
        a = common[:n_a] + generator.normal(margin, 0.04, n_a)
        b = common[:n_b] + generator.normal(0, spread_b, n_b)
        found = equivalence(a.tolist(), b.tolist(), margin)
        assert found.low is not None
        assert found.high is not None
        wrong += bool(found.equivalent)
        missed += not found.low <= margin <= found.high
    assert 0.035 < wrong / trials < 0.065
    assert 0.08 < missed / trials < 0.12


def test_the_medians_interval_covers_as_it_says() -> None:
    random = np.random.default_rng(1)
    draws = random.exponential(size=(4000, 9))
    truth = np.log(2)
    intervals = [found for each in draws.tolist() if (found := median_interval(each))]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered == pytest.approx(1 - 20 / 512, abs=0.015)  # two of nine lie at each end: 2 (1 + 9) / 2^9
