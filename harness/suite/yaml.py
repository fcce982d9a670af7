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

from harness.errors import UserError, nearest

_MAX_BYTES = 1_000_000
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

    def add(self, place: str, *message: str) -> None:
        """Adds "place: message: ...", where `place` is a `Node.place` or a file."""
        line = place.rpartition(":")[2]
        self._lines[": ".join((place, *message))] = int(line) if line.isdecimal() else math.inf

    def __bool__(self) -> bool:
        return bool(self._lines)

    def raise_any(self) -> None:
        """Raises `UserError` with all lines, if there are any."""
        if self._lines:
            raise UserError("\n".join(sorted(self._lines, key=self._lines.__getitem__)))


def read_text(path: Path) -> str:
    """The text of the file at `path`. Raises `UserError` if it is missing (names the nearest) or cannot be read."""
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file{nearest_file(path)}")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UserError(f"{path}: {kind}; name a .yaml file{nearest_file(path / 'suite.yaml')}")
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; a suite has at most {_MAX_BYTES:,}")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte 0x{error.object[error.start]:02x})") from error


def parse_mapping(text: str, path: Path, problems: Problems) -> Node:
    """The mapping in `text`, which was read from `path`.

    Duplicate keys, foreign tags and malformed scalars go to `problems`. Raises `UserError` if it is impossible to go
    on: for a syntax error, an empty file, no mapping, or aliases that expand without end.
    """
    root = _compose(text, lambda line: f"{path}:{line}")
    if root is None or root.tag == _TAG + "null":
        raise UserError(f"{path}: empty; a suite needs at least name, data.name and grid.impl")
    node = _Reader(problems, lambda line: f"{path}:{line}").read(root)
    if node.refused:
        problems.raise_any()
    if node.entries is None:
        raise UserError(f"{node.place}: found {node}, expected a mapping such as name: my-suite")
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
        tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
        cause = "a tab; indent with spaces" if tab else error.problem or error.context or str(error)
        raise UserError(f"{place(mark.line + 1 if mark else 1)}: not valid YAML: {cause}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{place(line)}: not valid YAML: control character in the text") from error
    except RecursionError as error:
        raise UserError(f"{place(1)}: nested more than {_MAX_DEPTH} deep") from error


def nearest_file(path: Path) -> str:
    """The end of a message about a missing suite file: which nearby file was probably meant, and which ones exist."""
    found = files_near(path)
    return nearest(str(path.with_suffix(".yaml")), found) if found else "; there is no .yaml file in that folder"


def files_near(path: Path) -> set[str]:
    """The suite files in the folder of `path`, and in `suites` in the current folder."""
    folders = (path.parent, Path("suites"))
    return {str(file) for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
