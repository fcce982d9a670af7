"""A trial's result.json beside its journal: it follows from it, so it can neither say more nor other things."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from harness.events import FINAL, AttemptEvent, EpochEvent, ResultEvent, TrialEvent
from harness.journal.seals import verdict


def content_of(path: Path) -> bytes | None:
    """A result.json as it is; None if there is none, or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def is_sound(path: Path) -> bool:
    """Whether there is a document that is as it was written."""
    content = content_of(path)
    return content is not None and verdict(content) != "changed"


def disagreements(path: Path, content: bytes, events: Sequence[TrialEvent]) -> list[str]:
    """What is wrong with the result.json at `path`, which held `content` before `events` were read, in a sentence each."""
    found: list[str] = []
    if verdict(content) == "changed":
        found.append(
            f"{path} was changed or damaged after it was written. The journal beside it is what counts; "
            "`capsbench run` writes it anew"
        )
    if more := knows_more(content, events):
        found.append(f"{path} says {more}")
    return found


def knows_more(content: bytes, events: Sequence[TrialEvent]) -> str | None:
    """That the trial has finished, where its journal does not say so; None if they agree."""
    if _has_finished(events):
        return None
    try:
        parsed: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    result = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    if result.get("status") != "finished":
        return None
    last = last_epoch(events)
    told = f"ends after epoch {last.epoch}" if last else "has no epoch" if events else "is missing or empty"
    return f"that the trial has finished (epoch {result.get('epochs_trained')!r:.20}), but its events.jsonl {told}"


def last_epoch(events: Sequence[TrialEvent]) -> EpochEvent | None:
    """The last epoch that was trained."""
    return next((event for event in reversed(events) if isinstance(event, EpochEvent)), None)


def _has_finished(events: Sequence[TrialEvent]) -> bool:
    """Whether the last attempt has ended well."""
    last = next((event for event in reversed(events) if isinstance(event, (*FINAL, AttemptEvent))), None)
    return isinstance(last, ResultEvent)
