"""What the parent run says in MLflow, made from the run directory alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.journal.journal import Journal
from harness.views.mlflow import answer
from tests.helpers.seeds_helpers import events_of, make_trial, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trials = [make_trial(impl, seed) for impl in ("torch", "jax") for seed in (0, 1)]
    runs = [(trial, events_of(0.3 + 0.01 * trial.seed, 300.0 + trial.seed)) for trial in trials]
    return write_run(tmp_path_factory.mktemp("runs") / "seeds", runs)


def test_the_note_has_question_answer_table_and_links(run: Path) -> None:
    lines = answer.note(Journal(run), "7", "ab", live=False).splitlines()
    assert lines[0].startswith(
        "**Which, and why?** No difference in speed is shown: JAX is 1.00 times as fast as PyTorch"
    )
    assert "Parity: good in 4 of 4 trials that were compared; the largest relative error is 1e-06." in lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0][:3] == ["impl", "seeds", "test error %"]
    assert [row[0] for row in rows[2:]] == ["torch", "jax"]
    assert (
        "[Learning curves](#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=capsbench-curves"
        in lines[-1]
    )
    assert "[Cells: means over seeds]" in lines[-1]
    assert lines[-1].endswith("[Report](#/experiments/7/runs/ab/artifacts/report.html?workflowType=machine_learning)")


def test_while_trials_run_the_note_says_what_is_planned(run: Path) -> None:
    assert "4 trials planned. The answer comes here when the run ends." in answer.note(
        Journal(run), "7", "ab", live=True
    )


def test_a_long_table_is_cut_so_that_the_note_fits(tmp_path: Path) -> None:
    trials = [make_trial(digit_dim=number) for number in range(1, 101)]
    long = write_run(tmp_path / "long", [(trial, events_of(0.3)) for trial in trials])
    note = answer.note(Journal(long), "7", "ab", live=False)
    assert len(note) <= 5000
    assert "| torch | digit\\_dim 1 |" in note
    assert "digit\\_dim 100 |" not in note
    assert "the rest is in report.html" in note
    assert "[Comparison](#/experiments/7/" in note


def test_however_much_does_not_count_the_note_fits(tmp_path: Path) -> None:
    failed = [{"kind": "attempt"}, {"kind": "failed", "cause": "x" * 900, "error": "E", "hint": None}]
    trials = [make_trial(digit_dim=number) for number in range(1, 40)]
    run = write_run(tmp_path / "failed", [(trial, failed) for trial in trials])
    note = answer.note(Journal(run), "7", "ab", live=False)
    assert len(note) <= 5000
    assert "... and 35 more lines of this kind." in note
    assert note.rstrip().endswith("machine_learning)")


def test_the_report_follows_the_journal(run: Path) -> None:
    before = answer.fingerprint(Journal(run))
    assert answer.fingerprint(Journal(run)) == before
    page = answer.page(Journal(run))
    assert page is not None
    assert "JAX is 1.00 times as fast as PyTorch" in page
    folder = run / "trials" / "torch-s0" / "figures"
    folder.mkdir()
    (folder / "figures.json").write_text("{}")
    assert answer.fingerprint(Journal(run)) != before


def test_a_run_in_which_nothing_has_finished_has_no_report(tmp_path: Path) -> None:
    assert answer.page(Journal(write_run(tmp_path / "empty", [(make_trial(), [{"kind": "attempt"}])]))) is None
