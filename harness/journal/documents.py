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
from harness.events import TRIAL, Malformed, TrialEvent
from harness.sniff import remedy, what_are, what_is
from harness.spec.trial import Trial

_LIKE_EVENTS = ("lines of JSON", "a JSON", "text", "binary data")  # says less than the line that is damaged


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


def read_events(path: Path, where: str) -> list[TrialEvent]:
    """All events of an events.jsonl in order, without a last line torn by a crash; none if there is no file.

    Those that only a newer capsbench can read are left out, with an `Unread` warning that begins with `where`. Raises
    `UserError` if the file cannot be read, or if a line before the last is no event.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if path.is_dir():
            raise _no_journal(path, "a folder") from error
        raise UserError(f"{path} cannot be read: {error.strerror}. Choose another folder with --out DIR.") from error
    *lines, _torn = content.split(b"\n")
    events: list[TrialEvent] = []
    with _uncollected():
        for number, line in enumerate(lines, start=1):
            try:
                if (event := TRIAL.known(line, where)) is not None:
                    events.append(cast(TrialEvent, event))
            except ValueError as error:
                if not (what := what_are(content)).startswith(_LIKE_EVENTS):
                    raise _no_journal(path, what) from error
                found = f"{error}; found {line[:60]!r}" if isinstance(error, Malformed) else repr(line[:60])
                raise UserError(
                    f"{path}, line {number} is damaged: {found}. "
                    f"Move {path.parent} elsewhere and run the suite again to repeat this trial."
                ) from error
    return events


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
