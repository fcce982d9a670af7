"""A search as users run it: to its end through a kill, with a contestant that fails, planned and reported."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.commands.cli import main
from tests.helpers.run_helpers import HELPERS, capsbench, started, wait_for, write_suite

INLINE = ("--executor", "inline", "--no-mlflow")
SPACE = {"train.lr": {"log": [1e-3, 3e-2]}}


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """A command in this process: its exit code, and what it prints."""
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    found = capsys.readouterr()
    return int(ended.value.code or 0), found.out, found.err


def _lines(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """All events of a kind in the run."""
    lines = [line for path in run_dir.glob("trials/*/events.jsonl") for line in path.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def test_a_search_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Halving: four proposals of one epoch, two of two; then two seeds confirm the best."""
    monkeypatch.chdir(tmp_path)
    search = {"method": "halving", "space": SPACE, "trials": 4, "factor": 2, "confirm": {"seed": [5, 6]}}
    suite = write_suite(tmp_path, search=search, runtime={"warm": True})
    run_dir = tmp_path / "runs" / "small"
    with started(tmp_path, "run", suite, *INLINE) as process:
        wait_for(lambda: len(_lines(run_dir, "result")) >= 2, "second result", process)
    report = _said(capsys, "report", run_dir)
    assert report[0] == 2
    assert "nothing has finished" in report[2]
    assert "the search is not over" in report[2]

    done = capsbench(tmp_path, "run", suite, *INLINE, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    phases = Counter(each.get("phase") for each in document["trials"])
    assert phases == {"proposal": 6, "confirmation": 2}
    assert len({event["trial"] for event in _lines(run_dir, "epoch")}) == 8  # nothing was proposed twice
    first = [each for each in document["trials"] if each["params"].get("train.epochs") == 1]
    second = [each for each in document["trials"] if each["params"].get("train.epochs") == 2]
    assert (len(first), len(second)) == (4, 2)
    best = sorted((each["val_err_pct"], each["epochs"][0]["val_loss"], each["id"]) for each in first)[:2]
    assert {each["continued_from"]["trial"] for each in second} == {id for _, _, id in best}
    for each in (*first, *second):
        assert each["test_err_pct"] is each["test_loss"] is each["best_test_err_pct"] is None
        assert each["warnings"] == []
    [found] = document["search"]["contestants"]
    assert found["proposals"] == 4
    assert found["epochs"] == 2 * 1 + 2 * 2
    assert found["best"] in {each["id"] for each in second}
    assert found["confirmed"]["test_err_pct"]["n"] == 2
    confirmed = [each for each in document["trials"] if each["phase"] == "confirmation"]
    for each in confirmed:
        trial = json.loads((run_dir / "trials" / each["id"] / "trial.json").read_text())
        assert trial["train"]["lr"] == found["values"]["train.lr"]
        assert each["params"] == {}
        assert each["test_err_pct"] is not None

    code, out, _ = _said(capsys, "plan", suite, "--executor", "inline", "--json")
    planned = json.loads(out)
    assert {each["state"] for each in planned["trials"]} == {"finished"}
    assert planned["search"]["to_come"] == {"trials": 0, "estimate_s": 0.0}
    code, out, _ = _said(capsys, "report", run_dir, "--json")
    assert code == 0
    assert json.loads(out)["search"] == document["search"]
    [cell] = json.loads(out)["cells"]
    assert cell["seeds"] == [5, 6]
    page = (run_dir / "report" / "report.md").read_text()
    assert "## Search" in page
    assert f"lr {found['values']['train.lr']}" in page
    code, _, error = _said(capsys, "figures", run_dir, found["best"])
    assert code == 2
    assert "a proposal of a search sees no test images" in error


def test_a_contestant_without_a_good_proposal_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HELPERS))
    suite = write_suite(
        tmp_path,
        search={"space": SPACE, "trials": 1, "confirm": {"seed": [5]}},
        runtime={"warm": True},
        parity={"gate": False},
        grid={"impl": ["numpy", "run_helpers:RaisingNet"]},
    )
    done = capsbench(tmp_path, "run", suite, *INLINE, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    by_status = Counter((each["impl"], each["phase"], each["status"]) for each in document["trials"])
    bad = "run_helpers:RaisingNet"
    assert by_status == {
        ("numpy", "proposal", "finished"): 1, ("numpy", "confirmation", "finished"): 1, (bad, "proposal", "failed"): 1,
    }  # fmt: skip
    good, failed = document["search"]["contestants"]
    assert (good["failed"], failed["failed"], failed["best"], failed["is_over"]) == (0, 1, None, True)
    assert f"{bad}: its proposal does not count" in " ".join(done.stderr.split())
    planned = json.loads(_said(capsys, "plan", suite, "--executor", "inline", "--json")[1])
    assert {each["estimate_s"] for each in planned["trials"]} == {0.0}  # a proposal that failed is not tried again


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-s", "search.method=halving", "--fresh"], "--fresh: with search.method halving"),
        (["--go-on-from", "runs/other"], "--go-on-from: a search goes on from what its own run has"),
    ],
)
def test_options_that_contradict_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    suite = write_suite(tmp_path, search={"space": SPACE, "trials": 2})
    code, _, error = _said(capsys, "plan", suite, "--executor", "inline", "--out", tmp_path, *options)
    assert code == 2
    assert told in error
