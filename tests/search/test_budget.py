"""Budgets: what successive halving costs, and how many proposals a budget buys."""

from __future__ import annotations

import pytest

from harness.search.budget import Rung, affordable, affordable_halving, at_once, best, cost, halving


def test_rungs_of_halving() -> None:
    assert halving(9, 9) == (Rung(9, 1), Rung(3, 3), Rung(1, 9))
    assert cost(halving(9, 9)) == 9 * 1 + 3 * 2 + 1 * 6
    assert halving(8, 5, first=2, factor=2) == (Rung(8, 2), Rung(4, 4), Rung(2, 5))
    assert halving(2, 27) == (Rung(2, 1), Rung(1, 3), Rung(1, 9), Rung(1, 27))  # one always reaches the end
    assert halving(4, 1) == (Rung(4, 1),)
    assert halving(4, 2, first=5) == (Rung(4, 2),)


def test_cost_of_training_all_to_the_end() -> None:
    assert cost(at_once(6, 5)) == 30
    assert cost(()) == 0


@pytest.mark.parametrize("budget", [1, 26, 27, 28, 60, 100])
def test_a_budget_is_used_and_not_exceeded(budget: int) -> None:
    count = affordable(budget, 9)
    assert cost(at_once(count, 9)) <= budget < cost(at_once(count + 1, 9))
    count = affordable_halving(budget, 9)
    assert (cost(halving(count, 9)) if count else 0) <= budget < cost(halving(count + 1, 9))


def test_the_best_first_and_ties_by_loss_then_by_order() -> None:
    errors = [(2.0, 0.1), (1.0, 0.3), (1.0, 0.2), (1.0, 0.2), (float("inf"), 0.0)]
    assert best(errors, 3) == [2, 3, 1]
    assert best(errors, 9) == [2, 3, 1, 0, 4]
