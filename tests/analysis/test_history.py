"""`capsbench history`: the runs of one suite in order, the run at which something stepped, and folders that are no such run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.history import history
from harness.commands.cli import main
from harness.errors import UserError
from harness.journal.journal import Journal
from tests.helpers.seeds_helpers import events_of, make_trial, write_events, write_plan

DAY = 86_400.0
RUNS, STEP = 20, 12


def write_one(
    folder: Path, day: int, seconds: float, error: float = 0.35, suite: str = "mnist", **machine: Any
) -> Path:
    """A run of one suite, of two seeds, that ended on that day."""
    with Journal(folder).open() as journal:
        trials = [make_trial(seed=seed, routing=3) for seed in (0, 1)]
        write_plan(journal, trials)
        plan = {**journal.plan(), "suite": suite}
        journal.write_plan(plan, "name: mnist\n")
        journal.write_environment({"cpu": "Some CPU", "cores": 2, **machine})
        for seed, trial in enumerate(trials):
            write_events(journal, trial, events_of(error + 0.01 * seed, seconds), 1.75e9 + DAY * day + seed)
    return folder


@pytest.fixture(scope="module")
def nightly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty nights; with the thirteenth, a newer library makes an epoch 10% slower. The folders' names are in no order."""
    out, draw = tmp_path_factory.mktemp("nightly"), np.random.default_rng(1)
    for day in range(RUNS):
        seconds = float(300 * (1 + 0.01 * draw.standard_normal()) * (1.1 if day >= STEP else 1))
        versions = {"torch": "2.10.0" if day >= STEP else "2.9.1"}
        commit = {"commit": f"{day:040x}", "dirty": day == STEP}
        write_one(out / f"{(7 * day) % RUNS:02d}", day, seconds, versions=versions, git=commit)
    return out


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)


def test_the_run_of_a_step_is_told_with_what_is_new_in_it(
    nightly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("history", nightly, "--html", tmp_path / "page" / "history.html", "--json") == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [run["ended"] for run in document["runs"]] == sorted(run["ended"] for run in document["runs"])
    (step,) = document["steps"]
    assert (step["metric"], step["impl"], step["run"]) == ("epoch_s", "torch", STEP)
    assert step["change_pct"] == pytest.approx(10, abs=1.5)
    assert step["commit"] == "000000000+"
    assert "torch 2.9.1 -> 2.10.0" in step["new"]
    assert (document["tested"], len(document["series"]), document["problems"]) == (3, 3, [])
    assert "s/epoch of torch, routing 3 rose from " in printed.err
    page = (tmp_path / "page" / "history.html").read_text(encoding="utf-8")
    assert "1 step is shown" in page
    assert page.count("<svg") == 3
    assert page.count("<circle") == 3 * RUNS
    assert "(new level)" in page
    assert not any(sign in page for sign in ("http:", "https:", "<script", "src=", "@import", "url("))


def test_steps_below_the_tolerance_are_not_told(nightly: Path) -> None:
    assert len(history([nightly], tolerance_pct=5).found) == 1
    assert history([nightly], tolerance_pct=25).found == []
    with pytest.raises(UserError, match="is no tolerance"):
        history([nightly], tolerance_pct=-1)


def test_as_given_is_the_order_of_the_arguments(nightly: Path) -> None:
    folders = sorted(nightly.iterdir())
    assert [run.path for run in history(folders, by_time=False).runs] == folders


def test_one_run_is_shown_and_is_no_history(nightly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("history", nightly / "00", "--html", tmp_path / "one.html") == 2
    told = capsys.readouterr().out
    assert "is the only run; a history takes two or more" in told
    assert "Nothing could be tested" in told
    assert (tmp_path / "one.html").read_text(encoding="utf-8").count("<circle") == 3


def test_what_is_no_run_of_the_suite_is_told_and_the_rest_is_shown(nightly: Path, tmp_path: Path) -> None:
    other = write_one(tmp_path / "other", 1, 10.0, suite="<b>speed")
    empty, newer, half, file = (tmp_path / name for name in ("empty", "newer", "half", "file"))
    empty.mkdir()
    shutil.copytree(nightly / "00", newer)
    plan = json.loads((newer / "plan.json").read_text())
    (newer / "plan.json").write_text(json.dumps({**plan, "schema": "9.0", "made_by": "capsbench 7.1"}))
    write_one(half, 3, 300.0)
    for journal in half.glob("trials/*/events.jsonl"):
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(True)[:3]) + b'{"kind": "epo')
    file.write_text("no run")
    given = [nightly, other, empty, newer, half, file, nightly / "00", tmp_path / "absent"]
    found = history(given)
    assert (found.suite, len(found.runs), len(found.found)) == ("mnist", RUNS, 1)
    told = "\n".join(found.problems)
    for part in (
        "runs of several suites: mnist (20) is shown, <b>speed (1) left out",
        f"{empty} is not a run directory",
        "was made by capsbench 7.1, schema 9.0",
        f"{half} has no finished trial (interrupted before it ended",
        f"{file} is not a run directory",
        f"{nightly / '00'} is the same run as",
        "no such folder",
    ):
        assert part in told
    assert history(given, suite="<b>speed").suite == "<b>speed"
    with pytest.raises(UserError, match='--suite: no run of "mnits"; did you mean "mnist"'):
        history(given, suite="mnits")


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        history([tmp_path])


def test_another_machine_or_setting_is_told(tmp_path: Path) -> None:
    write_one(tmp_path / "a", 1, 300.0)
    write_one(tmp_path / "b", 2, 200.0, cpu="Another CPU")
    write_one(tmp_path / "c", 3, 200.0, versions=[1], git=["x"], project="y", gpus={"a": 1})  # of another program
    warnings = "\n".join(history([tmp_path]).warnings)
    assert "several machines (cpu: Some CPU; Another CPU)" in warnings
    assert "3 of 3 series were not tested for steps: that takes 8 runs" in warnings
