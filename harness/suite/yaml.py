"""YAML read strictly: every value keeps the place where it was written; all problems of a file are reported at once.

PyYAML's parser is used without its constructors. They build Python objects from tags, expand aliases without bound,
keep the last of two equal keys, and follow YAML 1.1, where 1e-3 is text, 1:30 is ninety and 010 is eight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from harness.errors import UserError
from harness.suite.visible import invisible, visible

_MAX_VALUES = 20_000  # aliases multiply: a few hundred bytes can stand for billions of values
_MAX_DEPTH = 32
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Node:
    """A YAML value: a scalar, `list[Node]` or `dict[str, Node]`."""

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    text: str  # a scalar, as written
    place: str  # "suites/x.yaml:7" or "-s model.routing=3"
    refused: bool = False  # already among the problems; the value is None

    @property
    def items(self) -> list[Node] | None:
        """The values of a list; None if this is not a list."""
        return self.value if isinstance(self.value, list) else None

    @property
    def entries(self) -> dict[str, Node] | None:
        """The keys and values of a mapping; None if this is not a mapping."""
        return self.value if isinstance(self.value, dict) else None

    def plain(self) -> object:
        """The value without its places."""
        if self.items is not None:
            return [item.plain() for item in self.items]
        if self.entries is not None:
            return {key: item.plain() for key, item in self.entries.items()}
        return self.value

    def __str__(self) -> str:
        """The value found, for a message: '"big" (text)', '[1, 2] (a list)'."""
        match self.value:
            case None:
                return "nothing (null)"
            case bool():
                return f"{self.text} (a boolean)"
            case int() | float():
                return _short(self.text)
            case str():
                return f'"{_short(self.text)}" (text)'
            case list():
                inside = ", ".join(item.text or "..." for item in self.items or ())
                return f"[{_short(inside)}] (a list)"
            case _:
                return "a mapping (key: value)"


class Problems:
    """What is wrong with one request, one problem per line, without repetition: by line of the file, then the rest."""

    def __init__(self) -> None:
        self._lines: dict[str, float] = {}  # message -> line of the file
        self._unseen: dict[str, str] = {}  # place -> what is there that cannot be seen

    def add(self, place: str, *message: str) -> None:
        """Adds "place: message: ...", where `place` is a `Node.place` or a file."""
        line = place.rpartition(":")[2]
        self._lines[": ".join((place, *message))] = int(line) if line.isdecimal() else math.inf

    def look_at(self, text: str, path: Path) -> None:
        """Makes messages about a line of `text` say what in it cannot be seen."""
        self._unseen |= {f"{path}:{line}": found for line, found in invisible(text).items()}

    def note(self, message: str) -> str:
        """The message, with what cannot be seen in the line that it begins with."""
        place = next((each for each in self._unseen if message.startswith(f"{each}:")), None)
        return visible(message) + (f" ({self._unseen[place]})" if place else "")

    def __bool__(self) -> bool:
        return bool(self._lines)

    def raise_any(self) -> None:
        """Raises `UserError` with all lines, if there are any."""
        if self._lines:
            raise UserError("\n".join(map(self.note, sorted(self._lines, key=self._lines.__getitem__))))


def parse_mapping(text: str, path: Path, problems: Problems) -> Node:
    """The mapping in `text`, which was read from `path`.

    Duplicate keys, foreign tags and malformed scalars go to `problems`. Raises `UserError` if it is impossible to go
    on: for a syntax error, an empty file, no mapping, or aliases that expand without end.
    """
    problems.look_at(text, path)
    try:
        root = _compose(text, lambda line: f"{path}:{line}")
    except UserError as error:
        raise UserError(problems.note(str(error))) from error
    if root is None or root.tag == _TAG + "null":
        raise UserError(f"{path}: empty; a suite needs at least name, data.name and grid.impl")
    node = _Reader(problems, lambda line: f"{path}:{line}").read(root)
    if node.refused:
        problems.raise_any()
    if node.entries is None:
        hint = "; a space is missing after a colon" if re.match(r"[\w.]+:\S", node.text) else ""
        raise UserError(problems.note(f"{node.place}: found {node}, expected a mapping such as name: my-suite{hint}"))
    return node


def parse_value(text: str, place: str, problems: Problems) -> Node:
    """The value of an override: one YAML value, or a list of them separated by commas, brackets optional.

    Raises `UserError` if it is not valid YAML.
    """
    root = _compose(f"[{text}]", lambda _line: place)
    assert root is not None  # guaranteed by the brackets
    node = _Reader(problems, lambda _line: place).read(root)
    items = node.items
    return items[0] if items is not None and len(items) == 1 else node


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2 does, plus the booleans yes, no, on and off, and digits grouped by "_"."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML fills it class by class)


for _name, _pattern, _first in (
    ("bool", r"(?i:true|false|yes|no|on|off)", "tTfFyYnNoO"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(?=\.?[0-9])[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|(?i:null)|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        _TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first)
    )


def _number(text: str) -> float:
    value = float(text.replace("_", ""))
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SCALARS: dict[str, Callable[[str], str | int | float | None]] = {
    "str": str,
    "bool": lambda text: _BOOLEANS[text.lower()],
    "int": lambda text: int(text.replace("_", "")),
    "float": _number,
    "null": lambda _text: None,
}


class _Reader:
    """Turns PyYAML's graph of nodes, in which an alias is the same object, into a tree of `Node`."""

    def __init__(self, problems: Problems, place: Callable[[int], str]) -> None:
        self._problems = problems
        self._place = place
        self._count = 0

    def read(self, node: yaml.Node, depth: int = 0, place: str | None = None) -> Node:
        place = place or self._place(node.start_mark.line + 1)
        self._count += 1
        if self._count > _MAX_VALUES:
            raise UserError(f"{place}: more than {_MAX_VALUES:,} values once its aliases are expanded")
        if depth > _MAX_DEPTH:
            raise UserError(f"{place}: nested more than {_MAX_DEPTH} deep; does an alias contain itself?")
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return Node(self._mapping(node, depth), "", place)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return Node([self.read(item, depth + 1) for item in cast("list[yaml.Node]", node.value)], "", place)
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
            try:
                return Node(_SCALARS[tag](text), text, place)
            except (ValueError, KeyError):
                self._problems.add(place, f'"{_short(text)}" cannot be read as {tag}')
        else:
            shown = node.tag.replace(_TAG, "!!")
            self._problems.add(place, f'the tag "{_short(shown)}" is refused: a suite holds plain values only')
        return Node(None, text, place, refused=True)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: list[dict[str, Node]] = []
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            place = self._place(key.start_mark.line + 1)  # of the key: an aliased value is elsewhere
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(place, "found a list or a mapping as a key, expected a name")
            elif key.tag == _TAG + "merge":
                merged += self._merge(value, depth + 1)
            elif (name := str(key.value)) in own:
                self._problems.add(place, name, f"given twice in one mapping, first at {own[name].place}; keep one")
            else:
                own[name] = self.read(value, depth + 1, place)
        for mapping in merged:  # earlier ones win, and the mapping's own keys win over all
            own = {**mapping, **own}
        return own

    def _merge(self, node: yaml.Node, depth: int) -> list[dict[str, Node]]:
        read = self.read(node, depth)
        sources = [read] if read.items is None else read.items
        mappings = [source.entries for source in sources if source.entries is not None]
        if len(mappings) < len(sources):
            self._problems.add(read.place, f"found {read} after <<, expected a mapping or a list of mappings")
        return mappings


def _compose(text: str, place: Callable[[int], str]) -> yaml.Node | None:
    try:
        return cast("yaml.Node | None", yaml.compose(text, _Loader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = _cause(error, text[mark.index : mark.index + 1] if mark else "")
        raise UserError(f"{place(mark.line + 1 if mark else 1)}: not valid YAML: {cause}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{place(line)}: not valid YAML: control character in the text; delete it") from error
    except RecursionError as error:
        raise UserError(f"{place(1)}: nested more than {_MAX_DEPTH} deep") from error


_HINTS = {
    "mapping values are not allowed": "look at the colons and the indentation of this line and the one above",
    "could not find expected ':'": "a colon is missing, or the space after one",
    "expected <block end>": "its indentation is not that of the lines above",
    "found unexpected end of stream": "a quote or a bracket is not closed",
    "but found another document": "a suite is one document; delete the line ---",
    "cannot start any token": "put the value in quotes",
    "found undefined alias": "an anchor, &name, comes before its alias; a * of another kind is put in quotes",
    "expected ',' or": "a comma is missing, or a bracket is not closed",
    "found unknown escape": "within double quotes a backslash counts twice: use single quotes",
}
"""What PyYAML says -> what that mostly means."""


def _cause(error: yaml.MarkedYAMLError, at: str) -> str:
    if at == "\t":
        return "a tab; indent with spaces"
    cause = error.problem or error.context or str(error)
    hint = next((meaning for said, meaning in _HINTS.items() if said in cause), None)
    return f"{cause} ({hint})" if hint else cause


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
