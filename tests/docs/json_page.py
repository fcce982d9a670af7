"""docs/json.md as a specification: its tables say which fields a document has, and of which types.

`unlike("plan", document)` names what a printed document has that the page does not say, or says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "json.md"
_HEADING = re.compile(r"^#{2,3} (.+)$")
_ROW = re.compile(r"^\|([^|]+)\|([^|]*)\|([^|]*)\|$")
_FIELD = re.compile(r"`([^`]+)`")
_ALL_OF = re.compile(r"\*all of\* (?:`([^`]+)` )?\[[^\]]+\]\(#([^)]+)\)")
_LINK = re.compile(r"\[[^\]]+\]\(#([^)]+)\)")
_COMMAND = re.compile(r"`capsbench (\w+)([^`]*)`")


@dataclass
class Field:
    """One row: whether the field may be absent, its types as the page says them, its meaning, and the fields within it."""

    types: tuple[str, ...] = ("object",)
    is_optional: bool = False
    meaning: str = ""
    inner: dict[str, Field] = field(default_factory=dict[str, "Field"])


def slug(heading: str) -> str:
    """The heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def tables() -> dict[str, Field]:
    """Anchor of a heading -> its table."""
    found: dict[str, Field] = {}
    current = Field()
    for line in PAGE.read_text().splitlines():
        if heading := _HEADING.match(line):
            found[slug(heading[1])] = current = Field()
        elif line.startswith("|") and not line.startswith(("| field", "|---")):
            row = _ROW.match(line)
            assert row, line
            first, second, meaning = map(str.strip, row.groups())
            if all_of := _ALL_OF.fullmatch(first):
                _place(current, all_of[1] or "").inner.update(found[all_of[2]].inner)
                continue
            name = _FIELD.fullmatch(first)
            told, _, optional = second.partition(", ")
            assert name, line
            assert optional in ("", "optional"), line
            at = _place(current, name[1])
            at.types, at.is_optional, at.meaning = tuple(told.split(" or ")), bool(optional), meaning
    return {anchor: table for anchor, table in found.items() if table.inner}


def _place(table: Field, path: str) -> Field:
    """The field of that path, such as `rows[].a.impl`; it is made where it is missing."""
    for name in filter(None, path.replace("[]", "").split(".")):
        table = table.inner.setdefault(name, Field())
    return table


@cache
def documents() -> Mapping[str, list[str]]:
    """Command -> the anchors of what it can print."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        if (heading := _HEADING.match(line)) and (command := _COMMAND.fullmatch(heading[1])):
            found.setdefault(command[1], []).append(slug(heading[1]))
    return found


def unlike(command: str, document: Any) -> list[str]:
    """What is not as the page says, in the nearest of the command's documents; nothing if all is."""
    if isinstance(document, dict) and list(cast("dict[str, Any]", document)) == ["error"]:
        return []
    found = [
        list(_of_object(document, tables()[anchor], ""))
        for anchor in documents().get(command, ())
        if anchor in tables()
    ]
    return min(found, key=len, default=[f"{command}: docs/json.md does not have it"])


def _of_object(value: Any, table: Field, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path or 'the document'}: no object"
        return
    given = cast("dict[str, Any]", value)
    for name, within in table.inner.items():
        where = f"{path}.{name}".lstrip(".")
        if name not in given:
            if not within.is_optional:
                yield f"{where}: absent"
            continue
        wrong = [list(_as(each, given[name], within, where)) for each in within.types]
        yield from min(wrong, key=len)
    yield from (f"{path}.{name}".lstrip(".") + ": not on the page" for name in given if name not in table.inner)


def _as(told: str, value: Any, within: Field, path: str) -> Iterator[str]:
    """What contradicts that the value is of type `told`."""
    if told.startswith("list of ") and isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _as(told.removeprefix("list of "), each, within, f"{path}[]")
    elif told.startswith("object of ") and isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from _as(told.removeprefix("object of "), each, within, f"{path}.*")
    elif link := _LINK.fullmatch(told):
        yield from _of_object(value, tables()[link[1]], path)
    elif told == "object" and isinstance(value, dict):
        yield from _of_object(value, within, path) if within.inner else ()
    elif not _is(told, value):
        yield f"{path}: {type(value).__name__}, not {told}"


def _is(told: str, value: Any) -> bool:
    if isinstance(value, bool):
        return told in ("boolean", "any")
    kinds: dict[str, Any] = {
        "text": str, "integer": int, "number": (int, float), "null": type(None), "list": list, "any": object,
    }  # fmt: skip
    return isinstance(value, kinds.get(told, ()))
