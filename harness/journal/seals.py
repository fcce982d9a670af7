"""Checksums of what a run directory holds: a line of a journal carries its own, and so does a JSON document.

They find what was damaged, cut off, edited or brought in from elsewhere. Whoever changes a file and its checksums on
purpose is not found. What has no checksum was written before there were any (schema 2.0 and older), and is read as then.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

CHECK, LINE = "check", "line"
"""The fields: of both, and of a journal's line alone. They are the last ones."""

_DIGITS = 16
_END = re.compile(rb'(?:, "version": 1)?, "line": ([1-9]\d{0,9}), "check": "([0-9a-f]{16})"\}\r?$')
_LONGEST_END = 80
_LAST = re.compile(rb',?\n  "check": "([0-9a-f]{16})"\n\}\s*$')

Verdict = Literal["intact", "changed", "without"]


def digest(content: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def sealed_line(event: Mapping[str, Any], number: int) -> str:
    """An event (strict JSON) as line `number`, counted from 1, of a journal: with its version, number and checksum.

    The checksum is of all bytes before `, "check"`.
    """
    given = {name: value for name, value in event.items() if name not in ("version", LINE, CHECK)}
    begun = json.dumps({**given, "version": event.get("version", 1), LINE: number}, allow_nan=False)[:-1]
    return f'{begun}, "{CHECK}": "{digest(begun.encode())}"}}\n'


class Lines:
    """Takes the lines of a journal one after the other, and says of each whether it is as it was written.

    After each `open`, the caller says whether what is in the line can be read: `accept` or `refuse`.
    """

    def __init__(self) -> None:
        self._last = 0  # the number of the last good line; lines without one are counted
        self._refused = 0  # lines since then
        self._has_checks = False

    @property
    def next(self) -> int:
        """The number of a line that is added after these."""
        return self._last + self._refused + 1

    def open(self, line: bytes) -> tuple[bytes, int | None, str | None]:
        """The event without what was added to it, the line's number if it has one, and what is wrong with it, if anything."""
        found = _END.search(line, max(0, len(line) - _LONGEST_END))
        if found is None:
            return line, None, "it has no checksum, which the lines before it have" if self._has_checks else None
        number = int(found[1])
        if digest(line[: found.end(1)]) != found[2].decode():
            return line, number, "it was changed or damaged after it was written: its checksum does not fit"
        if number <= self._last:
            return line, number, f"it is a second line {number}, from an older copy or another file"
        return line[: found.start()] + b"}", number, None

    def accept(self, number: int | None) -> bool:
        """Counts a good line. Returns whether lines are missing before it, for which no damaged one stands there."""
        is_gap = number is not None and number > self._last + 1 and not self._refused
        self._has_checks = self._has_checks or number is not None
        self._last, self._refused = self.next if number is None else number, 0
        return is_gap

    def refuse(self) -> None:
        """Counts a line that is no good."""
        self._refused += 1


def sealed_document(document: Mapping[str, Any]) -> str:
    """A JSON document with its checksum as the last key. `document` is strict JSON."""
    begun = _begun(document)
    separator = "," if len(begun) > 1 else ""
    return f'{begun}{separator}\n  "{CHECK}": "{digest(begun.encode())}"\n}}\n'


def verdict(content: bytes) -> Verdict:
    """Whether a document is as `sealed_document` wrote it, up to white space; "without": it has no checksum."""
    found = _LAST.search(content, max(0, len(content) - _LONGEST_END))
    if found and digest(content[: found.start()]) == found[1].decode():
        return "intact"
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return "changed"
    if not isinstance(parsed, dict) or CHECK not in parsed:
        return "without"
    document = cast("dict[str, Any]", parsed)
    check = document.pop(CHECK)
    return "intact" if digest(_begun(document).encode()) == check else "changed"


def without_check(content: bytes) -> bytes:
    """A document's bytes without its checksum, as it was before that was added."""
    found = _LAST.search(content, max(0, len(content) - _LONGEST_END))
    if found:
        return content[: found.start()] + b"\n}\n"
    if b'"check"' not in content:
        return content
    try:
        document = json.loads(content)
        del document[CHECK]
        return json.dumps(document).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return content


def _begun(document: Mapping[str, Any]) -> str:
    """The document as it is written, up to where the checksum comes."""
    return json.dumps(dict(document), indent=2).removesuffix("}").removesuffix("\n")
