"""What a run has acknowledged, written down from outside while faults happen to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class _Trial:
    offset: int = 0  # bytes of the journal that have been seen
    seen: bytes = b""  # these bytes: what is on the disk once may never change
    effective: list[int] = field(default_factory=list[int])  # epochs that count, in their order


@dataclass
class Ledger:
    """Epochs acknowledged, lost and doubled, over all journals of a run directory.

    An epoch is acknowledged once its line is in the journal. It is lost if that line changes or goes, or if a later attempt
    resumes before it, so that it is trained again. It is doubled if it counts twice.
    """

    run_dir: Path
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    _trials: dict[str, _Trial] = field(default_factory=dict[str, _Trial])

    def read(self) -> bool:
        """Looks at what is new; whether anything was."""
        news = [self._read(path) for path in sorted(self.run_dir.glob("trials/*/events.jsonl"))]
        return any(news)

    def _read(self, path: Path) -> bool:
        name = path.parent.name
        trial = self._trials.setdefault(name, _Trial())
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.startswith(trial.seen):
            self.lost.append(f"{name}: lines that were on the disk have changed")
            trial.seen, trial.effective = b"", []
        new = whole[len(trial.seen) :]
        trial.seen = whole
        for line in new.splitlines():
            self._count(name, trial, json.loads(line))
        return bool(new)

    def _count(self, name: str, trial: _Trial, event: dict[str, Any]) -> None:
        if event["kind"] == "attempt":
            kept = [epoch for epoch in trial.effective if epoch <= event["resumed_epoch"]]
            self.lost += [f"{name}: epoch {epoch} was trained again" for epoch in trial.effective[len(kept) :]]
            trial.effective = kept
        elif event["kind"] == "epoch":
            self.acknowledged += 1
            if event["epoch"] in trial.effective:
                self.doubled.append(f"{name}: epoch {event['epoch']} counts twice")
            trial.effective.append(event["epoch"])

    def epochs(self) -> dict[str, list[int]]:
        """Trial id -> the numbers of the epochs that count."""
        return {name: list(trial.effective) for name, trial in self._trials.items()}
