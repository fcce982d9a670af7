"""Proposals: determined by seed, number and results; within the space; none twice; Optuna learns from results."""

from __future__ import annotations

import importlib.util
import math

import pytest

from harness.errors import UserError
from harness.search import proposals
from harness.search.config import Dimension, Method
from harness.search.proposals import Known, Values, propose, require

_LR = Dimension("train.lr", 1e-4, 1e-1, is_log=True)
_BATCH = Dimension("train.batch", choices=(16, 32, 64))
_ROUTING = Dimension("model.routing", 1, 4, is_whole=True)
_needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def _error(values: Values) -> float:
    """Percent; least at 1e-2."""
    return 10 * abs(math.log10(values["train.lr"]) + 2)


def _course(method: Method, count: int, seed: int = 0, is_known: bool = True) -> list[Known]:
    made: list[Known] = []
    for _ in range(count):
        values = propose(method, (_LR, _BATCH, _ROUTING), seed, made)
        assert values is not None
        made.append(Known(values, _error(values) if is_known else None))
    return made


@pytest.mark.parametrize("method", ["random", pytest.param("optuna", marks=_needs_optuna)])
def test_proposals_follow_from_seed_and_results(method: Method) -> None:
    whole = _course(method, 12)
    assert _course(method, 12) == whole
    assert propose(method, (_LR, _BATCH, _ROUTING), 0, whole[:7]) == whole[7].values  # as after a kill
    assert _course(method, 3, seed=1) != whole[:3]
    for each in whole:
        assert 1e-4 <= each.values["train.lr"] <= 1e-1
        assert each.values["train.lr"] == float(f"{each.values['train.lr']:.4g}")
        assert each.values["train.batch"] in (16, 32, 64)
        assert each.values["model.routing"] in (1, 2, 3, 4)
        assert isinstance(each.values["model.routing"], int)


def test_random_ones_do_not_depend_on_results() -> None:
    known, unknown = _course("random", 6), _course("random", 6, is_known=False)
    assert [each.values for each in known] == [each.values for each in unknown]


@_needs_optuna
def test_optuna_learns() -> None:
    """Once it knows some results, it proposes learning rates nearer the best one than random draws are."""
    guided, drawn = ([each.err_pct or 0.0 for each in _course(method, 40)[20:]] for method in ("optuna", "random"))
    assert sum(guided) < 0.7 * sum(drawn)


@_needs_optuna
def test_optuna_goes_on_beside_what_is_not_known_yet() -> None:
    made = _course("optuna", 12)
    beside = [*made, Known(propose("optuna", (_LR, _BATCH, _ROUTING), 0, made) or {}, None)]
    assert propose("optuna", (_LR, _BATCH, _ROUTING), 0, beside) not in [each.values for each in beside]


@pytest.mark.parametrize("method", ["random", pytest.param("optuna", marks=_needs_optuna)])
def test_a_space_that_is_exhausted(method: Method) -> None:
    made: list[Known] = []
    while values := propose(method, (_BATCH,), 0, made):
        made.append(Known(values, float(values["train.batch"])))
    assert sorted(each.values["train.batch"] for each in made) == [16, 32, 64]


def test_what_tells_proposals_apart_can_be_given() -> None:
    """Two learning rates that make the same trial are one proposal."""
    made = [Known({"train.lr": 0.01}, 1.0)]
    assert propose("random", (_LR,), 0, made, distinct=lambda _: "the same") is None


def test_values_that_make_no_trial_are_not_proposed() -> None:
    made = [
        propose("random", (_BATCH, _ROUTING), seed, [], lambda values: None if values["train.batch"] > 16 else "one")
        for seed in range(10)
    ]
    assert [each and each["train.batch"] for each in made] == [16] * 10


def test_every_whole_number_is_as_likely() -> None:
    counts = [0] * 5  # of 0, which is not in the range, to 4
    for step in range(1000):
        counts[_ROUTING.at(step / 1000)] += 1
    assert counts == [0, 250, 250, 250, 250]
    assert [_BATCH.at(share) for share in (0.0, 0.34, 0.999)] == [16, 32, 64]
    assert [_LR.at(share) for share in (0.0, 1 / 3, 2 / 3)] == [1e-4, 1e-3, 1e-2]


def test_optuna_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"capsbench\[search\]"):
        require("optuna")
    require("random")
