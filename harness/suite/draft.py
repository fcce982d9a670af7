"""A suite being put together: flat ("train.lr_decay.rate" -> value), unchecked, every value with its place.

That way the sections, the grid, `quick` and the -s overrides are all checked by the same few lines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import data, models, registry
from harness.errors import UserError
from harness.machine.surroundings import refused, unusable
from harness.suite.keys import AXES, BUDGETS, ENVIRONMENTS, SPACE, TEXTS, VARIABLES, inside, known, unknown
from harness.suite.space import read_space
from harness.suite.yaml import Node, Problems, parse_value


@dataclass(frozen=True)
class Draft:
    """Dotted key -> value, for the sections and for the grid; each method adds what it refuses to `problems`."""

    problems: Problems
    values: dict[str, Node] = field(default_factory=dict[str, Node])
    grid: dict[str, Node] = field(default_factory=dict[str, Node])  # each a list
    names: dict[str, str] = field(default_factory=dict[str, str])  # key -> as it was written, if that differs

    @classmethod
    def of_file(cls, root: Node, problems: Problems) -> Draft:
        """The file's sections and grid."""
        draft = cls(problems)
        draft._read_section(root)
        for key, node in draft._entries(root, "grid"):
            if key not in known().grid:
                problems.add(node.place, f"grid.{key}", unknown(key, known().grid))
                continue
            if key in draft.values:
                problems.add(node.place, f"grid.{key}", f"also set at {draft.values[key].place}; keep one of the two")
            if node.items is None:
                problems.add(
                    node.place, f"grid.{key}", f"found {node}, expected a list, such as [{node.text or '...'}]"
                )
            draft.grid[key] = Node([node], "", node.place) if node.items is None else node
            draft.names[key] = f"grid.{key}"
        return draft

    def with_quick(self, root: Node) -> Draft:
        """This draft with the file's `quick` applied."""
        return self._with(self._entries(root, "quick"))

    def with_overrides(self, overrides: Sequence[str]) -> Draft:
        """This draft with each "key=value" applied."""
        assignments: list[tuple[str, Node]] = []
        for override in overrides:
            place = f"-s {override}"
            key, _, text = (part.strip() for part in override.partition("="))
            is_variable = key.startswith(f"{VARIABLES}.")  # may be empty
            if not key or not (text or is_variable):
                self.problems.add(place, "expected key=value, such as -s train.epochs=2 or -s model.routing=1,3")
            elif key in TEXTS or (_mapping(key) or SPACE) != SPACE:  # free text, may contain commas
                assignments.append((key, Node(text, text, place)))
            else:
                try:
                    assignments.append((key, parse_value(text, place, self.problems)))
                except UserError as error:
                    self.problems.add(str(error))
        return self._with(assignments)

    def place(self, key: str) -> str | None:
        """Where `key` was set, if it was."""
        node = self.grid.get(key) or self.values.get(key)
        if key.startswith(f"{SPACE}.") and (space := self.values.get(SPACE)):
            node = (space.entries or {}).get(key.removeprefix(f"{SPACE}."))
        return node.place if node else None

    def written(self, key: str) -> str:
        """`key` as the user wrote it: "grid.impl" if it is in the grid."""
        return self.names.get(key, key)

    def found(self, key: str) -> str:
        """The value that `key` was set to, for a message."""
        node = self.grid.get(key) or self.values[key]
        return str(node)

    def check(self) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
        """Values and grid in their own types; complete and correct only if there are no problems."""
        values = {key: self._checked(key, node) for key, node in self.values.items()}
        grid: dict[str, tuple[Any, ...]] = {}
        for key, node in self.grid.items():
            if not node.value:
                self.problems.add(node.place, self.written(key), "found an empty list, expected at least one value")
            chosen: dict[str, Any] = {}
            for item in node.items or ():
                value = self._checked(key, item)
                if value is None and (item.refused or item.value is not None):
                    continue  # already among the problems
                if (canonical := json.dumps(value)) in chosen:
                    self.problems.add(item.place, self.written(key), f"{item.text or item} is there twice; drop one")
                chosen[canonical] = value
            grid[key] = tuple(chosen.values())
        return values, grid

    def _read_section(self, section: Node, prefix: str = "") -> None:
        for name, node in (section.entries or {}).items():
            key = prefix + name
            if key in known().section:
                self.values[key] = node
            elif key in known().folders:
                if node.entries is not None:
                    self._read_section(node, f"{key}.")
                elif node.value is not None:  # null: all its keys are commented out
                    self.problems.add(node.place, key, f"found {node}, expected a section of {', '.join(inside(key))}")
            elif not prefix and (name in ("grid", "quick") or name.startswith("x-")):
                continue  # x-NAME: for anchors
            else:
                self.problems.add(node.place, key, unknown(key, known().section, inside(prefix.rstrip("."))))

    def _entries(self, root: Node, key: str) -> list[tuple[str, Node]]:
        node = (root.entries or {}).get(key)
        if node is None or node.value is None:
            return []
        if node.entries is not None:
            return list(node.entries.items())
        self.problems.add(node.place, key, f"found {node}, expected keys such as model.routing")
        return []

    def _with(self, assignments: Sequence[tuple[str, Node]]) -> Draft:
        draft = Draft(self.problems, dict(self.values), dict(self.grid), dict(self.names))
        seen: dict[str, str] = {}
        if any(key in BUDGETS for key, _ in assignments):  # another budget replaces the file's
            for key in BUDGETS:
                draft.values.pop(key, None)
        for key, node in assignments:
            name = key.removeprefix("grid.")
            valid = known().all if name == key else known().grid
            if (mapping := _mapping(name)) and name not in seen:
                seen[name] = node.place
                draft._add(mapping, name.removeprefix(f"{mapping}."), node)
            elif name not in valid and name not in seen:
                self.problems.add(node.place, key, unknown(name, valid))
            elif name in seen:
                self.problems.add(node.place, key, f"already given by {seen[name]}; several values take a list")
            else:
                seen[name] = node.place
                draft.names[name] = key
                draft._assign(name, node, varied=name != key or name in AXES or name in self.grid)
        return draft

    def _assign(self, key: str, node: Node, *, varied: bool) -> None:
        """Sets `key`. Several values go to the grid and replace any list there; so does a single one if `varied`."""
        items = node.items
        if items is not None and known().all[key].is_list and not any(item.items for item in items):
            items = None  # [512, 1024] is one value of model.decoder_units
        if key in known().grid and (varied or items is not None):
            self.grid[key] = node if items is not None else Node([node], node.text, node.place)
            self.values.pop(key, None)
        else:
            self.values[key] = node

    def _add(self, mapping: str, name: str, node: Node) -> None:
        """Adds an entry to a mapping, such as a variable to those for the trials, or to each of several of them."""

        def with_it(old: Node | None) -> Node:
            return Node({**((old and old.entries) or {}), name: node}, "", node.place)

        if mapping in self.grid:
            varied = self.grid[mapping]
            self.grid[mapping] = Node([with_it(item) for item in varied.items or ()], "", varied.place)
        else:
            self.values[mapping] = with_it(self.values.get(mapping))

    def _checked(self, key: str, node: Node) -> Any:
        if node.refused:
            return None
        if key == SPACE:
            return read_space(node, self.problems)
        try:
            value = known().all[key].check(_as_written(node) if key == VARIABLES else node)
            if key == VARIABLES:
                for name, text in value.items():
                    zero = "a variable cannot hold a zero byte" if "\0" in text else None
                    if reason := refused(name) or zero or unusable(name, text):
                        raise UserError(f"{name}: {reason}")
            if key == ENVIRONMENTS:
                for name in value:
                    registry.resolve(name)
            elif key == "impl":
                registry.resolve(value)
            elif key == "model.kind":
                models.load(value)
            elif key in ("data.name", "data.test_from") and value is not None:
                data.require(value, key)
        except ValueError as error:
            self.problems.add(node.place, self.written(key), str(error))
        except UserError as error:
            named, message = attributed(error, key)
            self.problems.add(node.place, self.written(named), message)
        else:
            return value
        return None


def _mapping(key: str) -> str | None:
    """The mapping that `key` names an entry of, if any."""
    return next((each for each in (VARIABLES, ENVIRONMENTS, SPACE) if key.startswith(f"{each}.")), None)


def _as_written(node: Node) -> Node:
    """A mapping whose numbers and booleans are the text that they were written as, which a variable holds."""
    if node.entries is None:
        return node
    return Node(
        {
            name: Node(each.text, each.text, each.place) if isinstance(each.value, (bool, int, float)) else each
            for name, each in node.entries.items()
        },
        node.text,
        node.place,
    )


def attributed(error: UserError, key: str) -> tuple[str, str]:
    """The key that the message begins with, or else `key`; and the message without it."""
    head, _, rest = str(error).partition(": ")
    return (head, rest) if head in known().all else (key, str(error))
