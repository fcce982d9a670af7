"""The search of a suite: what is refused, who gets which budget, and which trials follow from which results."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from harness.errors import UserError
from harness.search.course import End
from harness.spec.trial import Trial
from harness.suite.searching import Contestant, contestants, describe
from harness.suite.suite import load_suite
from tests.helpers.run_helpers import SMALL, write_suite

SPACE = {"train.lr": {"log": [1e-4, 1e-1]}, "train.batch": [8, 16]}
Errors = Callable[[Trial], float | None]
"""A proposal's validation error; None: it failed."""


def _suite(folder: Path, routing: Sequence[int] = (1, 2), **search: object) -> Path:
    """A suite of 4 epochs with this search; without one if there are no arguments."""
    document = copy.deepcopy(SMALL)
    del document["model"]["routing"], document["train"]["batch"]
    document["train"]["epochs"] = 4
    document["grid"]["model.routing"] = [*routing]
    if search:
        document["search"] = {"space": SPACE, **search}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _looked(suite: Path, ends: dict[str, End | None], *overrides: str) -> tuple[Contestant, ...]:
    return contestants(load_suite(suite, overrides), 0, lambda _: {}, lambda trial: ends.get(trial.id))


def _course(suite: Path, errors: Errors, *overrides: str) -> tuple[list[list[Trial]], tuple[Contestant, ...]]:
    """The trials that are new in each round, once all of those before have ended; and the search at its end."""
    ends: dict[str, End | None] = {}
    rounds: list[list[Trial]] = []
    while True:
        found = _looked(suite, ends, *overrides)
        new = [trial for each in found for trial in each.trials if trial.id not in ends]
        if not new:
            return rounds, found
        rounds.append(new)
        for trial in new:
            error = errors(trial)
            ends[trial.id] = End(None if error is None else (error, 1.0))


def _by_lr(trial: Trial) -> float:
    return 100 * trial.train.lr


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["search.method=asha"], 'search.method: found "asha"'),
        (["search.trials=0"], "search.trials: found 0, expected a whole number from 1"),
        (["search.epochs=3"], "found 3, which does not suffice for one proposal of 4 epochs"),
        (["search.epochs=8000"], "it buys 2,000 proposals"),
        (["search.trials=2", "search.epochs=9"], "keep one of the two"),
        (["search.trials=null"], "a search needs a budget"),
        (["search.confirm.seed=4"], "found 4, expected a list of 1 to 100 seeds"),
        (["seed=-1"], "seed: found -1"),
        (["search.space=null"], "search.space: found nothing (null)"),
        (["search.space=[1, 2]"], "search.space: found [1, 2] (a list)"),
        (["search.space.train.lr=null"], "found nothing (null), expected {log:"),
        (["search.factor=2"], "has no effect with method random; drop it, or set search.method to halving"),
        (["search.together=2"], "set search.method to optuna"),
        (["search.method=halving", "search.first=5"], "more than the 4 epochs"),
        (["search.confirm.seed=[1, 1]"], "a seed is there twice"),
        (["search.confirm.seed=[0, 1]"], "the seed of the search"),
        (["seed=3"], "the seed of the search"),
        (["seed=5,6"], "found 2 seeds; a search has one"),
        (["train.lr=0.1"], "also set at -s train.lr=0.1; keep one"),
        (["grid.train.lr=0.1,0.2"], "also set at"),
        (["train.epochs=4,8"], "unequal budget"),
        (["data.validation=0"], "no validation images, which decide a search"),
        (["train.stop.accuracy_pct=99", "train.stop.on=test"], "a search sees no test images"),
        (["search.space.train.batch=8,80"], "search.space.train.batch: found 80, more than the 64 training images"),
        (["search.space.train.lr_decay.floor=0.0,0.1", "train.lr_decay.kind=constant"], "changes nothing in any trial"),
        (["search.space.train.epochs=1,2"], "what the budget is counted in"),
        (["grid.search.trials=1,2"], "a suite has one search"),
        (["search.trails=2"], 'did you mean "trials"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as raised:
        load_suite(_suite(tmp_path, trials=3), overrides)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("search", "told"), [({"space": SPACE}, "a search needs a budget"), ({"trials": 3}, "search.space: missing")]
)
def test_a_search_has_a_space_and_a_budget(tmp_path: Path, search: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as raised:
        load_suite(write_suite(tmp_path, search=search, train={"epochs": 1}))
    assert str(raised.value).startswith(f"{tmp_path / 'small.yaml'}:")


def test_another_budget_replaces_that_of_the_file(tmp_path: Path) -> None:
    search = load_suite(_suite(tmp_path, trials=3), ["search.epochs=9"]).search
    assert search
    assert (search.trials, search.epochs) == (None, 9)
    assert load_suite(write_suite(tmp_path)).search is None


def test_every_contestant_gets_the_same_proposals_and_its_own_best(tmp_path: Path) -> None:
    suite = _suite(tmp_path, trials=5, confirm={"seed": [7, 8]})
    rounds, found = _course(suite, lambda trial: _by_lr(trial) * (1 if trial.params["model.routing"] == 1 else -1))
    assert [len(each) for each in rounds] == [10, 4]
    one, two = found
    assert [each.values for each in one.course.proposals] == [each.values for each in two.course.proposals]
    rates = [each.values["train.lr"] for each in one.course.proposals]
    assert one.course.best
    assert two.course.best
    assert (one.course.best.values["train.lr"], two.course.best.values["train.lr"]) == (min(rates), max(rates))
    for trial in rounds[0]:
        assert (trial.phase, trial.seed, trial.train.epochs) == ("proposal", 0, 4)
        assert {**trial.params, "model.routing": 0}.keys() == {"model.routing", *SPACE}
    for contestant in found:
        assert [(each.phase, each.seed) for each in contestant.confirmations] == [
            ("confirmation", 7),
            ("confirmation", 8),
        ]
        for each in contestant.confirmations:
            assert contestant.course.best
            assert each.params == contestant.params  # so that contestants can be compared
            assert each.train.lr == contestant.course.best.values["train.lr"]


def test_what_confirms_the_best_is_a_trial_like_any_other_and_a_proposal_is_not(tmp_path: Path) -> None:
    rounds, (one, _) = _course(_suite(tmp_path, trials=2, confirm={"seed": [7]}), _by_lr)
    assert one.course.best
    settings = [*(f"{key}={value}" for key, value in one.course.best.values.items()), "model.routing=1"]
    [trial] = load_suite(_suite(tmp_path), [*settings, "seed=7"]).trials(0, lambda _: {})
    assert trial.id == one.confirmations[0].id
    [trial] = load_suite(_suite(tmp_path), [*settings, "seed=0"]).trials(0, lambda _: {})
    assert trial.id not in {each.id for each in rounds[0]}
    assert "phase" not in trial.model_dump(mode="json")


def test_halving_goes_on_with_the_best_of_each_rung(tmp_path: Path) -> None:
    suite = _suite(tmp_path, [1], method="halving", trials=4, factor=2, confirm={"seed": [7]})
    failing = 1e-3  # the smaller learning rates fail
    rounds, (found,) = _course(suite, lambda trial: None if trial.train.lr < failing else _by_lr(trial))
    epochs = [[trial.train.epochs for trial in each] for each in rounds]
    good = sorted(trial.train.lr for trial in rounds[0] if trial.train.lr >= failing)
    assert len(good) < 4
    assert epochs == [[1] * 4, [2] * 2, [4], [4]]
    assert [trial.train.lr for trial in rounds[2]] == good[:1]
    assert {trial.train.lr for trial in rounds[1]} == {*good[:2]}
    assert found.course.best
    assert found.course.best.trials == (found.course.best.trials[0], found.course.best.trials[1], rounds[2][0])
    assert len({trial.id for each in rounds for trial in each}) == 8


def test_a_budget_in_epochs_is_kept(tmp_path: Path) -> None:
    for method in ("random", "halving"):
        suite = _suite(tmp_path, [1], method=method, epochs=17, confirm={"seed": [7]})
        rounds, _ = _course(suite, _by_lr)
        proposals = [trial for each in rounds for trial in each if trial.phase == "proposal"]
        trained = {trial.train.lr: trial.train.epochs for trial in proposals}
        assert 12 < sum(trained.values()) <= 17


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    suite = _suite(tmp_path, [1], trials=9, space={"train.batch": [8, 16, 32]}, confirm={"seed": [7]})
    rounds, (found,) = _course(suite, lambda trial: float(trial.train.batch))
    assert [len(each) for each in rounds] == [3, 1]
    assert found.course.is_exhausted
    assert rounds[1][0].train.batch == 8


def test_without_a_proposal_that_counts_nothing_is_confirmed(tmp_path: Path) -> None:
    rounds, (one, two) = _course(
        _suite(tmp_path, trials=2), lambda trial: None if trial.params["model.routing"] == 1 else 1.0
    )
    assert [len(each) for each in rounds] == [4, 3]
    assert one.course.is_over
    assert one.course.best is None
    assert not one.confirmations
    assert len(two.confirmations) == 3


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")
def test_optuna_proposes_in_rounds_and_is_told_all_results(tmp_path: Path) -> None:
    suite = _suite(tmp_path, [1], method="optuna", trials=14, together=4, confirm={"seed": [7]})
    rounds, (found,) = _course(suite, _by_lr)
    assert [len(each) for each in rounds] == [4, 4, 4, 2, 1]
    otherwise, _ = _course(suite, lambda trial: -_by_lr(trial))
    assert [each.id for each in otherwise[0]] == [each.id for each in rounds[0]]
    assert [each.id for each in otherwise[3]] != [each.id for each in rounds[3]]
    assert _looked(suite, {})[0].course.proposals == found.course.proposals[:4]


def test_values_that_change_nothing_for_a_contestant_are_not_told(tmp_path: Path) -> None:
    space = {**SPACE, "model.cnn_units": [[8], [16]]}
    suite = _suite(tmp_path, [1], trials=3, space=space)
    capsnet, cnn = _looked(suite, {}, "model.kind=capsnet,cnn")
    told = [[set(each["values"]) for each in found.to_json()["proposals"]] for found in (capsnet, cnn)]
    assert told == [[{*SPACE}] * 3, [{*space}] * 3]
    assert all("model.cnn_units" not in trial.params for trial in capsnet.trials)


def test_the_plan_tells_what_was_searched(tmp_path: Path) -> None:
    suite = load_suite(_suite(tmp_path, trials=3))
    assert describe(suite) == {
        "method": "random", "seed": 0, "space": SPACE, "trials": 3, "epochs": None, "confirm": [1, 2, 3],
    }  # fmt: skip
