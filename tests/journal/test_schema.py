"""Run directories of other versions: older ones are upgraded when read, newer minor ones kept, newer major ones refused."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import capsbench
from harness import __version__
from harness.analysis.seeds import over_seeds
from harness.errors import Unread, UserError
from harness.events import EpochEvent
from harness.journal import schema
from harness.journal.journal import Journal
from harness.journal.kept import find_trial
from harness.journal.results import finished_trials, summarise

OLD = Path(__file__).parents[1] / "runs" / "quickstart-0.1"
NEWER_MINOR = f"{schema.SCHEMA[0]}.{schema.SCHEMA[1] + 7}"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "runs" / "quickstart"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def contents(run_dir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def read_all(run_dir: Path) -> dict[str, Any]:
    """What the readers make of a run."""
    run = capsbench.open_run(run_dir)
    rows = {table: run.rows(table) for table in ("trials", "epochs", "parity")}
    found = over_seeds(run_dir)
    return {**rows, "cells": found.to_json(), "weights": {id: run.weights(id) for id in Journal(run_dir).trial_ids()}}


def test_an_older_one_is_upgraded_when_read_and_not_touched(run_dir: Path) -> None:
    before = contents(run_dir)
    plan = Journal(run_dir).plan()
    assert plan["made_by"] == "capsbench 0.2 or older"
    assert "schema" not in plan
    for id in Journal(run_dir).trial_ids():
        result = Journal(run_dir).result(id)
        assert result
        assert result["continued_from"] is None
        assert (
            result["test_err_pct"] == json.loads((run_dir / "trials" / id / "result.json").read_text())["test_err_pct"]
        )
    read_all(run_dir)
    assert contents(run_dir) == before


def test_the_next_run_writes_today_s_form(run_dir: Path) -> None:
    with Journal(run_dir).open() as journal:
        old = journal.plan()
        journal.write_plan({"suite": "quickstart", "source": "s", "trials": old["trials"]}, "")
    plan = json.loads((run_dir / "plan.json").read_text())
    assert (plan["schema"], plan["made_by"]) == (".".join(map(str, schema.SCHEMA)), f"capsbench {__version__}")
    assert plan["run_id"] == old["run_id"]
    assert read_all(run_dir)["trials"] == read_all(OLD)["trials"]


def newer(run_dir: Path) -> None:
    """What a newer minor version may do: new keys everywhere, new fields in events, new kinds of events."""
    edit(
        run_dir / "plan.json",
        lambda plan: plan.update(schema=NEWER_MINOR, made_by="capsbench 0.9", cluster={"nodes": 3}),
    )
    for folder in (run_dir / "trials").iterdir():
        edit(
            folder / "trial.json",
            lambda t: (t.update(tier="gold"), t["train"].update(ema=0.99), t["model"].update(fuzz=3)),
        )
        edit(folder / "result.json", lambda result: result.update(carbon_g=3.5))
        lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        lines.insert(1, {"kind": "carbon", "grams": 3.5})
        for line in lines:
            line["humidity"] = 0.4
        (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_newer_minor_one_is_read_and_its_keys_are_kept(run_dir: Path) -> None:
    expected = read_all(run_dir)
    newer(run_dir)
    before = contents(run_dir)
    with pytest.warns(Unread) as told:
        found = read_all(run_dir)
    for each in (*expected["epochs"], *expected["trials"]):
        each["humidity"] = 0.4
    assert [{**row, "humidity": 0.4} for row in found["trials"]] == expected["trials"]
    assert found["epochs"] == expected["epochs"]
    assert contents(run_dir) == before
    said = {str(each.message) for each in told}
    [id, *_] = Journal(OLD).trial_ids()
    assert any(f"{id}/trial.json: " in each and "tier" in each and "train.ema" in each for each in said)
    assert any('an event of kind "carbon"' in each for each in said)

    # a run of today's keeps what it does not know
    with warnings.catch_warnings(), Journal(run_dir).open() as journal:
        warnings.simplefilter("ignore", Unread)
        trials = [journal.trial(each).model_dump(mode="json") for each in journal.trial_ids()]
        journal.write_plan({"suite": "quickstart", "source": "s", "trials": trials}, "")
        event = next(event for event in journal.events(id) if isinstance(event, EpochEvent))
        assert event.to_json()["humidity"] == 0.4
    plan = json.loads((run_dir / "plan.json").read_text())
    assert (plan["schema"], plan["cluster"]) == (NEWER_MINOR, {"nodes": 3})
    trial = json.loads((run_dir / "trials" / id / "trial.json").read_text())
    assert (trial["tier"], trial["train"]["ema"], trial["model"]["fuzz"]) == ("gold", 0.99, 3)


def test_unknown_keys_of_no_newer_one_are_no_news(run_dir: Path) -> None:
    """Then somebody has edited the file, and what was trained is not known."""
    [id, *_] = Journal(run_dir).trial_ids()
    edit(run_dir / "trials" / id / "trial.json", lambda trial: trial["train"].update(epoch=5))
    with pytest.raises(UserError, match=rf"no usable trial in .*{id}/trial\.json: train\.epoch: Extra inputs are not"):
        Journal(run_dir).trial(id)


READERS: dict[str, Callable[[Path], object]] = {
    "plan": lambda run_dir: Journal(run_dir).plan(),
    "trial": lambda run_dir: Journal(run_dir).trial("1aae6535523c"),
    "events": lambda run_dir: Journal(run_dir).events("1aae6535523c"),
    "result": lambda run_dir: Journal(run_dir).result("1aae6535523c"),
    "report": over_seeds,
    "export": lambda run_dir: find_trial(run_dir, "1aae"),
    "open_run": capsbench.open_run,
    "run": lambda run_dir: Journal(run_dir).open().write_plan({"trials": []}, ""),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_newer_major_one_is_refused_by_name(run_dir: Path, reader: str) -> None:
    edit(run_dir / "plan.json", lambda plan: plan.update(schema="3.0", made_by="capsbench 0.3"))
    before = contents(run_dir)
    said = (
        f"{run_dir} was made by capsbench 0.3, schema 3.0; this one, capsbench {__version__}, reads up to 2.x. "
        "Install capsbench 0.3 or newer to read it; to run a suite, give another folder with --out DIR."
    )
    with pytest.raises(UserError, match=re.escape(said)):
        READERS[reader](run_dir)
    assert {path: content for path, content in contents(run_dir).items() if path.name != ".lock"} == before


def test_one_newer_run_beside_others_does_not_stop_them(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "runs" / "newer")
    edit(tmp_path / "runs" / "newer" / "plan.json", lambda plan: plan.update(schema="3.0"))
    edit(
        tmp_path / "runs" / "newer" / "trials" / "1aae6535523c" / "result.json", lambda result: result.pop("img_per_s")
    )
    known = list(finished_trials(tmp_path / "runs"))
    assert len(known) >= len(Journal(run_dir).trial_ids())
    assert all("img_per_s" in result and "compile_s" in result for _, result in known)


@pytest.mark.parametrize("version", [2, "two", "2", "2.0.1", None, "-1.0", "0.9"])
def test_a_version_that_is_none(run_dir: Path, version: object) -> None:
    edit(run_dir / "plan.json", lambda plan: plan.update(schema=version))
    with pytest.raises(UserError, match=rf"says that its schema is {re.escape(repr(version))}; expected MAJOR\.MINOR"):
        Journal(run_dir).plan()


def test_results_follow_from_events_of_every_version(run_dir: Path) -> None:
    """The upgrade of result.json agrees with what is computed anew."""
    journal = Journal(run_dir)
    for id in journal.trial_ids():
        anew, upgraded = summarise(journal.trial(id), journal.events(id)).to_json(), journal.result(id)
        assert upgraded
        assert anew.keys() == upgraded.keys()
