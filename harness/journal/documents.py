"""A trial's two documents, trial.json and events.jsonl, as they are read: damage and foreign files are named."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from harness.errors import Unread, UserError, note
from harness.events import TRIAL, Malformed, TrialEvent, WarningEvent
from harness.journal.seals import Lines, verdict, without_check
from harness.sniff import remedy, what_are, what_is
from harness.spec.trial import Trial

_LIKE_EVENTS = ("lines of JSON", "a JSON", "text", "binary data")  # says less than the line that is damaged
_SHOWN = 3  # damaged places of a journal that are described


def read_trial(path: Path, is_newer: Callable[[], bool]) -> Trial:
    """The trial in a trial.json; `is_newer` tells whether a newer capsbench may have written it. Raises `UserError`.

    Keys that only the newer one knows are then left out, with an `Unread` warning that names them.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        found = what_is(path)
        found = "there is no such file" if found.startswith("nothing") else f"it is {found}"
        raise _unusable(path, found) from error
    trial = _validated(without_check(content), is_newer, path)
    if verdict(content) == "changed":
        note(
            f"{path} was changed or damaged after it was written: what it says may not be what was trained. "
            "Restore it from a copy, or run the suite again"
        )
    return trial


def _validated(content: bytes, is_newer: Callable[[], bool], path: Path) -> Trial:
    try:
        return Trial.model_validate_json(content)
    except ValidationError as error:
        if is_newer() and (trial := _without_unknown(content, error, path)):
            return trial
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _unusable(path, f"{where}: {first['msg']}" if where else f"it is {what_is(path)}") from error
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def with_unknown(document: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the keys that only `newer` has, at any depth; but not among a trial's "params", which are one value."""
    merged = dict(document)
    for key, value in newer.items():
        if key not in merged:
            merged[key] = value
        elif key != "params" and isinstance(value, dict) and isinstance(merged[key], dict):
            merged[key] = with_unknown(merged[key], cast("dict[str, Any]", value))
    return merged


class LostLines(WarningEvent):
    """Stands in a journal's events where lines are damaged, foreign or missing. Never written."""


def read_events(path: Path, where: str) -> list[TrialEvent]:
    """All events of an events.jsonl in order, without a last line torn by a crash; none if there is no file.

    Those that only a newer capsbench can read are left out, with an `Unread` warning that begins with `where`. A line that is
    not as it was written does not count: `LostLines` stands in its place, and a `Noted` warning names it. Raises
    `UserError` if the file cannot be read, or is something else than a journal.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if path.is_dir():
            raise _no_journal(path, "a folder") from error
        raise UserError(f"{path} cannot be read: {error.strerror}. Choose another folder with --out DIR.") from error
    events: list[TrialEvent] = []
    lines, lost = Lines(), _Lost(path)
    with _uncollected():
        for position, line in enumerate(content.split(b"\n")[:-1], start=1):
            body, number, fault = lines.open(line)
            event: TrialEvent | None = None
            if fault is None:
                event, fault = _event(body, path.parent.name, where)
            if fault is not None:
                if not events and not (what := what_are(content)).startswith(_LIKE_EVENTS):
                    raise _no_journal(path, what)
                lines.refuse()
                lost.damaged(position, line, fault, events)
                continue
            if lines.accept(number):
                lost.missing(position, events)
            if event is not None:
                events.append(event)
    lost.tell()
    return events


def next_line(content: bytes) -> int:
    """The number of the line that is added to a journal with this content, whose last line is whole."""
    lines = Lines()
    for line in content.split(b"\n")[:-1]:
        _, number, fault = lines.open(line)
        if fault is None:
            lines.accept(number)
        else:
            lines.refuse()
    return lines.next


def _event(body: bytes, trial_id: str, where: str) -> tuple[TrialEvent | None, str | None]:
    """The event in a line, None if only a newer capsbench knows it; and what is wrong with the line, if anything."""
    try:
        event = cast("TrialEvent | None", TRIAL.known(body, where))
    except Malformed as error:
        return None, str(error)
    except (ValueError, RecursionError):
        return None, "it is no JSON"
    if event is not None and event.trial not in ("", trial_id):
        return None, f"it is of trial {event.trial[:40]!r}"
    return event, None


class _Lost:
    """The lines of a journal that do not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[str] = []
        self._more = 0
        self._last = -1

    def damaged(self, position: int, line: bytes, fault: str, events: list[TrialEvent]) -> None:
        """Line `position` is no good. Of lines in a row, only the first is described."""
        if self._last != position - 1:
            self._stand(position, f"line {position} is damaged", f"{fault}; found {line[:60]!r}", events)
        else:
            self._more += 1
        self._last = position

    def missing(self, position: int, events: list[TrialEvent]) -> None:
        """Lines before line `position` are gone."""
        self._stand(position, f"before line {position}, lines are missing", "", events)

    def _stand(self, position: int, what: str, found: str, events: list[TrialEvent]) -> None:
        if len(self._found) < _SHOWN:
            self._found.append(f"{what}: {found}" if found else what)
        else:
            self._more += 1
        folder = self._path.parent.name
        message = f"trials/{folder}/{self._path.name}: {what}: what was written there does not count"
        last = events[-1] if events else None
        events.append(
            LostLines(message=message, time=last.time if last else 0.0).of(folder, last.attempt if last else 1)
        )

    def tell(self) -> None:
        if self._found:
            more = f"; and {self._more} more" if self._more else ""
            told = "; ".join(self._found)
            note(f"{self._path}, {told}{more}. What was written there does not count; all other lines do")


def _unusable(path: Path, found: str) -> UserError:
    return UserError(f"no usable trial in {path}: {found}. Run the suite again to restore it.")


def _no_journal(path: Path, what: str) -> UserError:
    advice = remedy(what) or "restore it from a copy"
    return UserError(
        f"{path} is {what}, not a trial's events: {advice}. "
        f"Or move {path.parent} elsewhere and run the suite again to repeat this trial."
    )


def _without_unknown(content: bytes, error: ValidationError, path: Path) -> Trial | None:
    """The trial in a document with keys that a newer capsbench has added; None if more than that is wrong with it."""
    unknown = [each["loc"] for each in error.errors(include_url=False) if each["type"] == "extra_forbidden"]
    if len(unknown) < error.error_count():
        return None
    document: Any = json.loads(content)
    for *sections, key in unknown:
        inner = document
        for section in sections:
            inner = inner[section]
        del inner[key]
    names = ", ".join(".".join(map(str, loc)) for loc in unknown)
    note(f"{path}: {names}: only a newer capsbench knows what that means. It is left out", Unread)
    return Trial.model_validate_json(json.dumps(document))


@contextmanager
def _uncollected() -> Generator[None]:
    """Pauses the garbage collector while thousands of events are read. All are kept, so it would find nothing.

    It would scan all of them again and again, which takes longer than reading them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
