"""A finished suite with more epochs, as users run it. What exactly carries over is tested in tests/journal/test_carry.py."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.run_helpers import capsbench, events_of, repeatable, write_suite

INLINE = ("--executor", "inline")


def test_more_epochs_go_on_where_the_trial_ended(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, train={"keep_every": 1})
    four = (suite, "-s", "train.epochs=4", *INLINE)
    first = capsbench(tmp_path, "run", suite, *INLINE, "--no-mlflow", "--json")
    assert first.returncode == 0, first.stderr
    [before] = json.loads(first.stdout)["trials"]

    shown = capsbench(tmp_path, "plan", *four)
    assert f"goes on from epoch 2 of {before['id']}" in shown.stdout
    [planned] = json.loads(capsbench(tmp_path, "plan", *four, "--json").stdout)["trials"]
    assert (planned["state"], planned["goes_on_from"]) == ("pending", {"trial": before["id"], "epoch": 2})
    [fresh] = json.loads(capsbench(tmp_path, "plan", *four, "--json", "--fresh").stdout)["trials"]
    assert fresh["goes_on_from"] is None

    again = capsbench(tmp_path, "run", *four, "--no-mlflow", "--json")
    assert again.returncode == 0, again.stderr
    [after] = json.loads(again.stdout)["trials"]
    said = [f"goes on from epoch 2 of trial {before['id']}", "started, resuming after epoch 2"]
    assert all(each in again.stderr for each in said)
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

    other = ("--out", tmp_path / "other", "--go-on-from", "runs/small")
    [planned] = json.loads(capsbench(tmp_path, "plan", *four, *other, "--json").stdout)["trials"]
    assert planned["goes_on_from"] == {"trial": before["id"], "epoch": 2, "run": "runs/small"}
    refused = capsbench(tmp_path, "plan", suite, "-s", "train.epochs=1", *INLINE, *other)
    assert refused.returncode == 2
    assert "--go-on-from runs/small: it has no trial that is the same as one of these but for fewer" in refused.stderr

    done = capsbench(tmp_path, "run", *four, "--no-mlflow")
    assert done.returncode == 0, done.stderr
    assert "started" not in done.stdout
    kinds = [each["kind"] for each in events_of(tmp_path / "straight" / "small", "numpy")]
    assert kinds.count("attempt") == 1
