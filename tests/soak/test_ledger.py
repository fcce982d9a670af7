"""The soak's own count: it finds what is lost and doubled, and nothing where all is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.soak.ledger import Ledger


def write(run_dir: Path, *events: dict[str, Any], torn: str = "") -> None:
    folder = run_dir / "trials" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "events.jsonl").write_text(lines + torn)


def attempt(after: int) -> dict[str, Any]:
    return {"kind": "attempt", "resumed_epoch": after}


def epoch(number: int) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": number}


def test_a_trial_that_resumes_after_its_last_epoch_loses_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert not ledger.read()
    write(tmp_path, attempt(0), epoch(1), epoch(2), torn='{"kind": "epo')  # never acknowledged
    assert ledger.read()
    write(tmp_path, attempt(0), epoch(1), epoch(2), attempt(2), epoch(3))
    assert ledger.read()
    assert not ledger.read()
    assert (ledger.acknowledged, ledger.lost, ledger.doubled) == (3, [], [])
    assert ledger.epochs() == {"a": [1, 2, 3]}


def test_an_epoch_that_is_trained_again_was_lost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write(tmp_path, attempt(0), epoch(1), epoch(2), attempt(1), epoch(2))
    ledger.read()
    assert ledger.lost == ["a: epoch 2 was trained again"]
    assert ledger.doubled == []


def test_an_epoch_that_counts_twice_is_doubled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write(tmp_path, attempt(0), epoch(1), epoch(1))
    ledger.read()
    assert ledger.doubled == ["a: epoch 1 counts twice"]


def test_a_line_that_changes_or_goes_was_lost(tmp_path: Path) -> None:
    for later in ([attempt(0)], [attempt(0), {**epoch(1), "train_loss": 0.5}]):
        ledger = Ledger(tmp_path)
        write(tmp_path, attempt(0), epoch(1))
        ledger.read()
        write(tmp_path, *later)
        ledger.read()
        assert ledger.lost == ["a: lines that were on the disk have changed"]
