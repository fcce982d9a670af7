"""`capsbench compare`: exit code 1 for what is shown to be worse, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from harness.analysis.compare import Comparison, compare
from harness.commands.cli import main
from harness.errors import UserError
from harness.stats import holm
from tests.helpers.seeds_helpers import events_of, make_trial, write_run

stats: Any = scipy.stats  # which declares nothing of what a test returns

ERRORS, SECONDS, BYTES = [0.30, 0.34, 0.32], [300.0, 303.0, 297.0], [10**9, 1_001_000_000, 999_000_000]


def run_of(
    run_dir: Path,
    errors: Sequence[float] = ERRORS,
    seconds: Sequence[float] = SECONDS,
    memory: Sequence[int] = BYTES,
    cpu: str = "Some CPU",
    **settings: Any,
) -> Path:
    settings = {"routing": 3, **settings}
    figures = zip(errors, seconds, memory, strict=True)
    runs = [(make_trial(seed=seed, **settings), events_of(*each)) for seed, each in enumerate(figures)]
    return write_run(run_dir, runs, cpu)


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {row.metric: row.verdict for row in comparison.rows}


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)


def test_a_slower_run_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slower = [330.0, 333.0, 327.0]
    a, b = run_of(tmp_path / "a"), run_of(tmp_path / "b", errors=[0.30, 0.35, 0.31], seconds=slower)
    assert command("compare", a, b, "--json") == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    rows = {row["metric"]: row for row in document["rows"]}
    assert (document["ok"], document["tested"]) == (False, 3)
    time = rows["epoch_s"]
    p = stats.ttest_ind(slower, SECONDS, equal_var=False).pvalue
    assert (time["verdict"], time["a"], time["b"], time["change_pct"]) == ("worse", 300, 330, pytest.approx(10))
    assert time["p"] == pytest.approx(p)
    ps = [rows[metric]["p"] for metric in ("test_err_pct", "epoch_s", "peak_bytes")]
    assert time["adjusted_p"] == pytest.approx(3 * p)
    assert [rows[metric]["adjusted_p"] for metric in ("test_err_pct", "epoch_s", "peak_bytes")] == holm(ps)
    assert rows["test_err_pct"]["verdict"] == rows["peak_bytes"]["verdict"] == "none shown"
    assert "B is worse: s/epoch of torch, routing 3." in printed.err
    assert command("compare", b, a) == 0  # faster
    assert "better" in capsys.readouterr().out


def test_more_errors_are_a_regression_by_pairs(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a"), run_of(tmp_path / "b", errors=[0.40, 0.45, 0.42])
    assert verdicts(compare(a, b)) == {"test_err_pct": "worse", "epoch_s": "none shown", "peak_bytes": "none shown"}


def test_the_same_run_twice_differs_in_nothing(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a")
    comparison = compare(a, a)
    assert comparison.ok
    assert set(verdicts(comparison).values()) == {"none shown"}
    assert comparison.warnings == []


def test_what_rises_less_than_the_tolerance_is_no_regression(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", seconds=[300.0, 300.001, 299.999])
    b = run_of(tmp_path / "b", seconds=[301.5, 301.501, 301.499])
    assert verdicts(compare(a, b))["epoch_s"] == "within tolerance"
    assert verdicts(compare(a, b, 0.1))["epoch_s"] == "worse"
    with pytest.raises(UserError, match=r"--tolerance -1 is no tolerance"):
        compare(a, b, -1)


def test_memory_that_never_varies_is_certain(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", memory=[10**9] * 3), run_of(tmp_path / "b", memory=[2 * 10**9] * 3)
    assert verdicts(compare(a, b))["peak_bytes"] == "worse"


def test_one_seed_is_never_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (run_of(tmp_path / name, [err], [s], [10**9]) for name, err, s in (("a", 0.3, 300.0), ("b", 9.0, 900.0)))
    assert command("compare", a, b) == 0
    out = capsys.readouterr().out
    assert "one seed" in out
    assert "±" not in out
    assert "nothing could be tested: that takes at least 2 finished seeds" in out
    assert "Nothing is shown to be worse in B (0 tests)." in out


def test_two_seeds_show_little_and_that_is_said(tmp_path: Path) -> None:
    a, b = (
        run_of(tmp_path / name, errors, [300.0, 303.0], BYTES[:2]) for name, errors in (("a", [2, 3]), ("b", [70, 90]))
    )
    comparison = compare(a, b)
    assert (comparison.ok, verdicts(comparison)["test_err_pct"]) == (True, "none shown")
    assert [warning for warning in comparison.warnings if warning.startswith("two seeds show huge differences only")]


def test_what_fails_in_b_alone_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run_of(tmp_path / "a")
    trials = [make_trial(seed=seed, routing=3) for seed in range(3)]
    b = write_run(tmp_path / "b", [(trial, events_of(0.3, parity_ok=trial.seed != 1)) for trial in trials])
    assert command("compare", a, b) == 1
    assert "B is broken: torch, routing 3, seed 1 does not count: parity failed." in capsys.readouterr().out
    assert command("compare", b, a) == 0  # mended


def test_a_trial_that_has_not_begun_is_missed_and_no_regression(tmp_path: Path) -> None:
    a, trials = run_of(tmp_path / "a"), [make_trial(seed=seed, routing=3) for seed in range(3)]
    b = write_run(tmp_path / "b", [(trials[0], events_of(0.3)), (trials[1], events_of(0.3)), (trials[2], [])])
    comparison = compare(a, b)
    assert comparison.ok
    assert [line for line in comparison.warnings if "seed 2 does not count" in line]


def test_cells_meet_in_whatever_order_their_grids_name_the_keys(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", routing=3, decoder=True)
    other = [make_trial(seed=seed, decoder=True, routing=3) for seed in range(3)]
    b = write_run(tmp_path / "b", [(trial, events_of(0.3)) for trial in other])
    assert not [line for line in compare(a, b).warnings if line.startswith("only in")]


def test_what_is_not_alike_is_said(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a")
    b = run_of(tmp_path / "b", cpu="Another CPU", epochs=10)
    warnings = compare(a, b).warnings
    assert "not alike: train.epochs is 30 in A, 10 in B" in warnings
    assert (
        "another machine: cpu is Some CPU in A, Another CPU in B; time and memory say nothing of the code" in warnings
    )


def test_runs_without_a_cell_in_common_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run_of(tmp_path / "a"), run_of(tmp_path / "b", routing=1)
    assert command("compare", a, b) == 2
    message = capsys.readouterr().err
    assert "nothing in common" in message
    assert "torch, routing 3" in message
    assert command("compare", a, tmp_path) == 2
    assert "is not a run directory" in capsys.readouterr().err
