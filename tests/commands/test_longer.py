"""A finished suite with more epochs, as users run it. What exactly carries over is tested in tests/journal/test_carry.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.commands.cli import main
from tests.helpers.run_helpers import capsbench, repeatable, write_suite

INLINE = ("--executor", "inline")


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """A command in this process, in `tmp_path`: its exit code, and what it prints."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out, found.err

    return called


def test_more_epochs_go_on_where_the_trial_ended(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = write_suite(tmp_path, train={"keep_every": 1})
    four = (suite, "-s", "train.epochs=4", *INLINE)
    first = capsbench(tmp_path, "run", suite, *INLINE, "--no-mlflow", "--json")
    assert first.returncode == 0, first.stderr
    [before] = json.loads(first.stdout)["trials"]

    monkeypatch.setenv("COLUMNS", "120")  # in 80 the table folds it
    assert f"goes on from epoch 2 of {before['id']}" in said("plan", *four)[1]
    monkeypatch.delenv("COLUMNS")
    assert re.search(rf"goes on from\b.*\n +(\S+ )*{before['id']}\n", said("plan", *four)[1])
    [planned] = json.loads(said("plan", *four, "--json")[1])["trials"]
    assert (planned["state"], planned["goes_on_from"]) == ("pending", {"trial": before["id"], "epoch": 2})
    [fresh] = json.loads(said("plan", *four, "--json", "--fresh")[1])["trials"]
    assert fresh["goes_on_from"] is None
    other = ("--out", tmp_path / "other", "--go-on-from", "runs/small")
    [planned] = json.loads(said("plan", *four, *other, "--json")[1])["trials"]
    assert planned["goes_on_from"] == {"trial": before["id"], "epoch": 2, "run": "runs/small"}
    code, _, error = said("plan", suite, "-s", "train.epochs=1", *INLINE, *other)
    assert code == 2
    assert "--go-on-from runs/small: it has no trial that is the same as one of these but for fewer epochs" in error

    again = capsbench(tmp_path, "run", *four, "--no-mlflow", "--json")
    assert again.returncode == 0, again.stderr
    [after] = json.loads(again.stdout)["trials"]
    told = [f"goes on from epoch 2 of trial {before['id']}", "started, resuming after epoch 2"]
    assert all(each in again.stderr for each in told)
    assert "epoch 2/4" not in again.stderr  # it is not trained again
    assert after["continued_from"] == {"trial": before["id"], "epoch": 2}
    assert after["id"] == planned["id"] != before["id"]
    assert after["parity_ok"]
    assert after["epoch_s"] > 0
    folder = tmp_path / "runs" / "small" / "trials"
    assert json.loads((folder / after["id"] / "result.json").read_text())["continued_from"] == after["continued_from"]
    assert json.loads((folder / before["id"] / "result.json").read_text())["status"] == "finished"

    straight = capsbench(tmp_path, "run", *four, "--no-mlflow", "--json", "--fresh", "--out", tmp_path / "straight")
    [expected] = json.loads(straight.stdout)["trials"]
    assert expected["continued_from"] is None
    assert repeatable(after) == repeatable(expected)
    other = tmp_path / "straight" / "small" / "trials" / after["id"]
    names = {path.name for path in other.glob("*.safetensors")}
    assert {path.name for path in (folder / after["id"]).glob("*.safetensors")} == names
    for name in names - {"epoch-0004.safetensors"}:  # a checkpoint tells how long the audit took
        assert (folder / after["id"] / name).read_bytes() == (other / name).read_bytes()

    [planned] = json.loads(said("plan", *four, "--json")[1])["trials"]
    assert (planned["state"], planned["goes_on_from"]) == ("finished", None)
