"""Steps in series of runs: flat histories stay flat, and a step of 10% is found, in noise as machines make it."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.steps import FEWEST_RUNS, p_value, steps

RUNS, SERIES, HISTORIES = 30, 6, 200
ALPHA = 0.05 / SERIES  # as `capsbench history` tests a page of so many series


def noise(draw: np.random.Generator, memory: float, tails: bool, count: int = RUNS) -> np.ndarray:
    """Noise of variance 1 in which neighbours are correlated by `memory`; with tails, of Student's t with 3 degrees."""
    fresh = draw.standard_t(3, count + 20) / 3**0.5 if tails else draw.standard_normal(count + 20)
    for k in range(1, len(fresh)):
        fresh[k] = memory * fresh[k - 1] + (1 - memory**2) ** 0.5 * fresh[k]
    return fresh[20:]


KINDS = [(0.0, False), (0.0, True), (0.5, False), (0.5, True)]


@pytest.mark.parametrize(("memory", "tails"), KINDS)
def test_flat_histories_raise_at_most_5_percent_false_alarms(memory: float, tails: bool) -> None:
    draw = np.random.default_rng(1)
    alarms = 0
    for _ in range(HISTORIES):
        page = [1 + 0.02 * noise(draw, memory, tails) for _ in range(SERIES)]
        alarms += any(steps(list(series), ALPHA) for series in page)
    assert alarms <= 0.05 * HISTORIES


@pytest.mark.parametrize(("memory", "tails"), KINDS)
def test_a_step_of_10_percent_is_found(memory: float, tails: bool) -> None:
    draw = np.random.default_rng(2)
    found = near = 0
    for k in range(HISTORIES):
        at = 8 + k % (RUNS - 16 + 1)  # at least 8 runs before, and 8 after
        series = 1 + 0.02 * noise(draw, memory, tails)
        series[at:] *= 1.1 if k % 2 else 1 / 1.1
        told = steps(list(series), ALPHA)
        found += bool(told)
        near += any(abs(step.at - at) <= 1 for step in told)
    assert found >= 0.95 * HISTORIES
    assert near >= 0.9 * HISTORIES


def test_the_level_holds_for_a_single_series_of_few_runs() -> None:
    draw = np.random.default_rng(3)
    alarms = sum(p_value(list(noise(draw, 0.5, True, 10)))[0] < 0.05 for _ in range(400))
    assert alarms <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_two_steps_are_told_with_their_levels() -> None:
    draw = np.random.default_rng(4)
    series = np.repeat([100.0, 120.0, 90.0], 12) + 0.5 * draw.standard_normal(36)
    first, second = steps(list(series), 0.01)
    assert (first.at, second.at) == (12, 24)
    assert first.after == second.before == pytest.approx(120, abs=1)
    assert first.change_pct == pytest.approx(20, abs=1)
    assert second.change_pct == pytest.approx(-25, abs=1)


def test_a_level_that_comes_back_is_told_twice() -> None:
    draw = np.random.default_rng(8)
    series = np.repeat([100.0, 110.0, 100.0], 12) + draw.standard_normal(36)
    assert [step.at for step in steps(list(series), ALPHA)] == [12, 24]


def test_runs_that_are_off_are_no_step_and_hide_none() -> None:
    draw = np.random.default_rng(5)
    flat = 1 + 0.01 * draw.standard_normal(30)
    flat[[7, 20, 21]] = 5.0
    assert steps(list(flat), 0.05) == []
    flat[12:] *= 1.1
    assert [step.at for step in steps(list(flat), 0.05)] == [12]


def test_values_without_noise() -> None:
    assert steps([0.0] * 20, 0.05) == []
    assert steps([3.7] * 20, 0.05) == []
    (step,) = steps([1.67] * 10 + [2.51] * 10, 0.05, resolution=0.28)
    assert (step.at, step.before, step.after) == (10, pytest.approx(1.67), pytest.approx(2.51))
    assert steps([0.0] * 10 + [1.0] * 10, 0.05)[0].change_pct is None


def test_errors_that_come_in_steps_of_one_image_are_not_told_as_levels() -> None:
    draw = np.random.default_rng(6)
    alarms = sum(bool(steps(list(1.67 + 0.28 * (draw.random(30) < 0.3)), 0.05, resolution=0.28)) for _ in range(200))
    assert alarms <= 10


def test_too_few_values_and_none_that_are_no_numbers() -> None:
    assert p_value([1.0] * 3 + [2.0] * (FEWEST_RUNS - 4)) == (1.0, 0)
    with pytest.raises(ValueError, match="not finite"):
        p_value([1.0] * 10 + [float("nan")])


def test_the_unit_does_not_matter() -> None:
    draw = np.random.default_rng(7)
    series = [*(1 + 0.02 * draw.standard_normal(12)), *(1.05 + 0.02 * draw.standard_normal(12))]
    assert p_value([1e9 * each for each in series]) == p_value(series)
