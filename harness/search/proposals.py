"""What is tried next: random draws, or Optuna's sampler told of all results so far.

A proposal depends on its number, the seed, and the results of those before it; on nothing that is kept in memory. So
whatever is killed goes on with the same ones. The random ones are the same for every contestant.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.search.config import Dimension, Method, Space

Values = dict[str, Any]
"""Key -> proposed value."""

WORST_PCT = 100.0
"""The validation error that a proposal counts with which has failed, such as by divergence."""
_TRIES = 100  # draws until a proposal must differ from all before it; then the space counts as exhausted
_GUIDED = 10  # of these, how many may be Optuna's: it may insist on the best one


@dataclass(frozen=True)
class Known:
    """A proposal that has been made. `err_pct`: its validation error in percent; None while it is not known."""

    values: Values
    err_pct: float | None


def require(method: Method) -> None:
    """Raises `UserError` if what the method needs is not installed."""
    if method == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError(
            'search.method: Optuna is not installed: pip install "capsbench[search]", or use random or halving'
        )


def propose(
    method: Method,
    space: Space,
    seed: int,
    before: Sequence[Known],
    distinct: Callable[[Values], str | None] = lambda values: json.dumps(values, sort_keys=True),
) -> Values | None:
    """The proposal after those `before`; None if no other one is left in the space.

    Args:
        distinct: what tells two proposals apart, such as the id of their trial; None for values that are no proposal.
    """
    tried = {None, *(distinct(each.values) for each in before)}
    return next((values for values in _candidates(method, space, seed, before) if distinct(values) not in tried), None)


def _candidates(method: Method, space: Space, seed: int, before: Sequence[Known]) -> Iterator[Values]:
    number = len(before)
    for attempt in range(_TRIES):
        if method == "optuna" and attempt < _GUIDED:
            yield _of_optuna(space, [seed, number, attempt], before)
        else:
            yield _drawn(space, [seed, number, attempt])


def _drawn(space: Space, entropy: list[int]) -> Values:
    shares = np.random.Generator(np.random.PCG64(entropy)).random(len(space))
    return {dimension.key: dimension.at(float(share)) for dimension, share in zip(space, shares, strict=True)}


def _of_optuna(space: Space, entropy: list[int], before: Sequence[Known]) -> Values:
    """Optuna's next proposal (its tree-structured Parzen estimator), told of the ones before.

    One whose result is not known yet counts as the worst known, so that others are not proposed beside it.
    """
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {dimension.key: _distribution(optuna, dimension) for dimension in space}
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    worst = max((each.err_pct for each in before if each.err_pct is not None), default=WORST_PCT)
    for each in before:
        params = {dimension.key: _told(dimension, each.values) for dimension in space}
        value = worst if each.err_pct is None else each.err_pct
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    asked: Mapping[str, Any] = study.ask(fixed_distributions=distributions).params
    return {
        dimension.key: dimension.choices[asked[dimension.key]]
        if dimension.choices
        else dimension.rounded(asked[dimension.key])
        for dimension in space
    }


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    made = optuna.distributions
    if dimension.choices:  # by their place, as Optuna takes no lists
        return made.CategoricalDistribution(range(len(dimension.choices)))
    if dimension.is_whole:
        return made.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return made.FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _told(dimension: Dimension, values: Values) -> Any:
    value = values[dimension.key]
    return dimension.choices.index(value) if dimension.choices else value
