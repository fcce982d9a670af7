"""Test errors of epochs whose weights a run keeps, computed after the training: `tested.json` beside a trial's events.

The journal stays as it is: what is here follows from weights that it names, and counts for these alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.disk import read_json, write_atomic
from harness.events import EpochEvent, TrialEvent
from harness.journal.journal import Journal
from harness.journal.results import Result, named_files
from harness.weights.whole import fingerprint, recorded

NAME = "tested.json"


@dataclass(frozen=True)
class Tested:
    """What the weights of an epoch say of the test images. `impl`: what computed it."""

    epoch: int
    weights: str  # their file
    sha256: str
    images: int
    wrong: int
    impl: str

    @property
    def test_err_pct(self) -> float:
        return 100 * self.wrong / self.images


def kept_weights(journal: Journal, trial_id: str, events: Sequence[TrialEvent]) -> dict[int, tuple[Path, EpochEvent]]:
    """Epoch -> the file of its weights alone, as far as it is there, and the event that names it."""
    found: dict[int, tuple[Path, EpochEvent]] = {}
    for name, event in named_files(events).items():
        path = journal.trial_dir(trial_id) / name
        if isinstance(event, EpochEvent) and name == event.weights and path.is_file():
            found[event.epoch] = path, event
    return found


def known(journal: Journal, trial_id: str, events: Sequence[TrialEvent]) -> dict[int, Tested]:
    """Epoch -> what is known of its weights; what is said of other weights does not count."""
    document = read_json(journal.trial_dir(trial_id) / NAME) or {}
    listed: Any = document.get("epochs")
    named = {event.epoch: event for event in named_files(events).values() if isinstance(event, EpochEvent)}
    found: dict[int, Tested] = {}
    for each in listed if isinstance(listed, list) else ():  # pyright: ignore[reportUnknownVariableType]
        tested = _read(each)
        event = named.get(tested.epoch) if tested else None
        if tested is None or event is None or event.weights != tested.weights:
            continue
        record = recorded(event, tested.weights)
        if record is None or record["sha256"] == tested.sha256:
            found[tested.epoch] = tested
    return found


def _read(document: Any) -> Tested | None:
    try:
        tested = Tested(**document)
    except TypeError:
        return None
    counts: tuple[Any, ...] = (tested.epoch, tested.images, tested.wrong)
    texts: tuple[Any, ...] = (tested.weights, tested.sha256, tested.impl)
    are_whole = all(type(each) is int for each in counts) and all(isinstance(each, str) for each in texts)
    return tested if are_whole and 0 <= tested.wrong <= tested.images != 0 else None


def keep(journal: Journal, trial_id: str, events: Sequence[TrialEvent], tested: Tested) -> None:
    """Adds it to what is known. Raises `OSError`."""
    found = known(journal, trial_id, events) | {tested.epoch: tested}
    document = {"epochs": [asdict(found[epoch]) for epoch in sorted(found)]}
    write_atomic(journal.trial_dir(trial_id) / NAME, json.dumps(document, indent=2) + "\n")


def digest(path: Path, event: EpochEvent) -> str:
    """The SHA-256 of the weights, as the journal has it, or by the file."""
    return str((recorded(event, path.name) or fingerprint(path))["sha256"])


def completed(journal: Journal, result: Result, events: Sequence[TrialEvent]) -> Result:
    """The result with the test errors of its epochs that were computed afterwards."""
    if not (found := known(journal, result.id, events)):
        return result
    epochs = [
        {**each, "test_err_pct": found[each["epoch"]].test_err_pct}
        if each["epoch"] in found and each.get("test_err_pct") is None
        else each
        for each in result.epochs
    ]
    return replace(result, epochs=epochs)
