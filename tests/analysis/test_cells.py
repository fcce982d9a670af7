"""Cells over their seeds, their differences, and what is shown beside them in a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from harness.analysis.cells import Cell, changes, contrast, of_results, of_run
from harness.analysis.seeds import over_seeds
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import Result
from harness.spec.trial import Trial
from harness.stats import summary
from harness.views.report.tables import changes_table, mean
from tests.helpers.seeds_helpers import events_of, make_trial, write_run

stats: Any = scipy.stats  # which declares nothing of what a test returns


def cells(*given: tuple[str, dict[str, Any], Sequence[float | None]], **figures: Any) -> list[Cell]:
    """One cell each: implementation, settings, a test error a seed; None stands for a trial that did not finish."""
    trials: dict[str, Trial] = {}
    results: list[Result] = []
    for impl, params, errors in given:
        for seed, error in enumerate(errors):
            trial = make_trial(impl, seed, **params)
            trials[trial.id] = trial
            state = "failed" if error is None else "finished"
            known = {"parity_ok": True, **figures}
            results.append(Result(trial.id, impl, trial.params, seed, state, error, **known))
    return of_results(trials, results)


def test_a_cell_is_its_seeds_that_finished_with_parity() -> None:
    (cell,) = cells(("torch", {"routing": 3}, [0.30, None, 0.34]))
    assert cell.name == "torch, routing 3"
    assert cell.seeds == "2 of 3"
    assert cell.values("test_err_pct") == {0: 0.30, 2: 0.34}
    found = cell.summary("test_err_pct")
    assert found is not None
    assert (found.n, found.mean, found.min, found.max) == (2, pytest.approx(0.32), 0.30, 0.34)
    assert cell.summary("epoch_s") is None
    (wrong,) = cells(("torch", {}, [0.3, 0.3]), parity_ok=False)
    assert (wrong.counted, wrong.seeds) == ((), "0 of 2")


def test_only_cells_that_differ_in_one_setting_are_compared() -> None:
    errors = [0.3, 0.4]
    grid = cells(
        *(
            (impl, {"routing": r, "decoder": d}, errors)
            for impl in ("torch", "tf")
            for r in (1, 3)
            for d in (True, False)
        )
    )
    found = changes(grid, "test_err_pct", impls=False)
    assert [(each.a.impl, each.key, each.value(each.a), each.value(each.b)) for each in found] == [
        (impl, *rest)
        for impl in ("torch", "tf")
        for rest in (
            ("model.decoder", True, False),
            ("model.routing", 1, 3),
            ("model.routing", 1, 3),
            ("model.decoder", True, False),
        )
    ]
    with_impls = changes(grid, "test_err_pct", impls=True)
    assert len(with_impls) == 8 + 4
    assert {each.others["model.routing"] for each in with_impls if each.key == "impl"} == {1, 3}


def test_a_cnn_is_compared_with_each_capsnet() -> None:
    capsnets = (("torch", {"kind": "capsnet", "routing": r}, [0.3, 0.4]) for r in (1, 3))
    found = changes(cells(*capsnets, ("torch", {"kind": "cnn"}, [0.5, 0.6])), "test_err_pct", impls=False)
    assert [(each.key, each.value(each.a), each.value(each.b), each.others.get("model.routing")) for each in found] == [
        ("model.routing", 1, 3, None),
        ("model.kind", "capsnet", "cnn", 1),
        ("model.kind", "capsnet", "cnn", 3),
    ]


def test_errors_are_paired_by_seed_and_times_are_not() -> None:
    a, b = cells(("torch", {"routing": 1}, [0.30, 0.41, 0.52]), ("torch", {"routing": 3}, [0.25, 0.34, 0.46]))
    found = contrast(a, b, "test_err_pct")
    assert found.paired
    assert found.p == pytest.approx(stats.ttest_rel([0.25, 0.34, 0.46], [0.30, 0.41, 0.52]).pvalue)
    assert found.difference == pytest.approx(-0.06)
    slow, fast = cells(("torch", {"routing": 1}, [1, 1, 1]), ("torch", {"routing": 3}, [1, 1, 1]))
    timed = [
        Cell(cell.trial, tuple(Result(r.id, r.impl, r.params, r.seed, "finished", epoch_s=s) for r, s in pairs))
        for cell, pairs in (
            (slow, zip(slow.results, (3.0, 3.2, 3.1), strict=True)),
            (fast, zip(fast.results, (2.0, 2.4, 2.1), strict=True)),
        )
    ]
    found = contrast(timed[0], timed[1], "epoch_s")
    assert not found.paired
    assert found.p == pytest.approx(stats.ttest_ind([2.0, 2.4, 2.1], [3.0, 3.2, 3.1], equal_var=False).pvalue)


def test_other_seeds_make_no_pairs() -> None:
    a, b = cells(("torch", {"routing": 1}, [0.3, None, 0.5]), ("torch", {"routing": 3}, [0.2, 0.3, None]))
    found = contrast(a, b, "test_err_pct")
    assert (found.paired, found.n_a, found.n_b) == (False, 2, 2)


def test_all_rows_are_corrected_together() -> None:
    base = [0.50, 0.52, 0.51, 0.53]
    three = cells(
        *(
            ("torch", {"routing": r}, [each + shift for each in base[r:] + base[:r]])
            for r, shift in ((1, 0.0), (2, 0.04), (3, 0.05))
        )
    )
    found = changes(three, "test_err_pct", impls=False)
    ps = sorted(each.test.p for each in found if each.test.p is not None)
    adjusted = sorted(each.test.adjusted_p for each in found if each.test.adjusted_p is not None)
    assert adjusted[0] == pytest.approx(min(1, 3 * ps[0]))
    assert adjusted[1] == pytest.approx(min(1, max(3 * ps[0], 2 * ps[1])))


def test_one_seed_has_no_interval_and_no_test(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "one", [(make_trial(routing=r), events_of(0.3 + r)) for r in (1, 3)])
    report = over_seeds(run_dir)
    (change,) = [each for each in report.changes if each.metric == "test_err_pct"]
    assert (change.test.low, change.test.p, change.test.detectable) == (None, None, None)
    assert change.test.reason == "one value: no test"
    table = changes_table([change])
    assert [next(iter(column.cells)) for column in table.columns] == [
        "torch", "routing 1", "routing 3", "+2.00", "-", "-", "-", "1", "-", "one seed",
    ]  # fmt: skip
    assert mean(report.cells[0].summary("test_err_pct"), fixed=2) == "1.30 (one seed)"


def test_how_a_mean_is_written() -> None:
    assert mean(None) == "-"
    assert mean(summary([0.30, 0.33, 0.36]), fixed=2) == "0.33 ± 0.075"  # 4.30265 * 0.03 / sqrt(3) = 0.0745
    assert mean(summary([0.3, 0.3, 0.3]), fixed=2) == "0.30 (all 3)"
    assert mean(summary([1e9, 1.2e9]), 1e-6) == "1,100 ± 1,271"  # 12.7062 * 141.42 / sqrt(2) = 1270.6


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory: it has no plan\.json"):
        of_run(Journal(tmp_path))
