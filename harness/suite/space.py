"""What is searched: for each key of a suite a range, even or logarithmic, or a list of values; read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.errors import nearest
from harness.search.config import Dimension, Space
from harness.suite.keys import Leaf, known
from harness.suite.yaml import Node, Problems

_SECTIONS = ("train.", "model.", "data.augment.")
_UNFIT = {
    "train.epochs": "it is what the budget is counted in",
    "train.start_from": "it is where training starts, not how",
    "train.keep_every": "it changes no result",
    "model.kind": "another kind is another contestant: put it in the grid",
}
_FORMS = "{log: [1e-4, 1e-2]}, {uniform: [0.9, 1.0]} or a list of values"


def read_space(node: Node, problems: Problems) -> Space:
    """The space that a mapping of keys describes, in its order; what is wrong goes to `problems`, each with its line."""
    entries: Mapping[str, Node] = node.entries or {}
    if not entries:
        problems.add(node.place, "search.space", f"found {node}, expected keys with ranges, such as train.lr: {_FORMS}")
    found: list[Dimension] = []
    for key, each in entries.items():
        if wrong := _unfit(key):
            problems.add(each.place, f"search.space.{key}", wrong)
            continue
        try:
            found.append(_dimension(key, each, known().section[key]))
        except ValueError as error:
            problems.add(each.place, f"search.space.{key}", str(error))
    return tuple(found)


def searchable() -> list[str]:
    """The keys that can be searched."""
    return [key for key in known().section if key.startswith(_SECTIONS) and not _reason(key)]


def _reason(key: str) -> str | None:
    if key.startswith("train.stop."):
        return "it decides how much of the budget is used"
    return _UNFIT.get(key)


def _unfit(key: str) -> str | None:
    if reason := _reason(key):
        return f"cannot be searched: {reason}"
    if key in known().section and not key.startswith(_SECTIONS):
        return f"cannot be searched; keys of {', '.join(each.rstrip('.') for each in _SECTIONS)} can"
    return None if key in known().section else f"unknown key{nearest(key, searchable())}"


def _dimension(key: str, node: Node, leaf: Leaf) -> Dimension:
    if node.items is not None:
        return Dimension(key, choices=_choices(node, leaf))
    entries: Mapping[str, Node] = node.entries or {}
    if len(entries) != 1:
        raise ValueError(f"found {node}, expected {_FORMS}")
    [(form, ends)] = entries.items()
    if form not in ("log", "uniform"):
        raise ValueError(f"unknown range{nearest(form, ('log', 'uniform'))}")
    if ends.items is None or len(ends.items) != 2:
        raise ValueError(f"found {ends}, expected its two ends, such as {form}: [1e-4, 1e-2]")
    low, high = (leaf.check(end) for end in ends.items)
    numbers = [each for each in (low, high) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) != 2:
        raise ValueError(f"has no range: it takes {leaf.expected}; give a list of values")
    if not low < high:
        raise ValueError(f"from {low} to {high}: the first must be less than the second")
    if form == "log" and low <= 0:
        raise ValueError(f"a logarithmic range begins above 0, not at {low}")
    whole = _is_whole(leaf)
    return Dimension(key, low if whole else float(low), high if whole else float(high), form == "log", whole)


def _choices(node: Node, leaf: Leaf) -> tuple[Any, ...]:
    values = [leaf.check(item) for item in node.items or ()]
    if len(values) < 2:
        raise ValueError(f"found {node}, expected at least two values; a single one belongs in its section")
    if len({json.dumps(each) for each in values}) < len(values):
        raise ValueError(f"found {node}: a value is there twice; drop one")
    return tuple(values)


def _is_whole(leaf: Leaf) -> bool:
    try:
        leaf.adapter.validate_python(0.5)
    except ValueError:
        return "number" not in leaf.expected.replace("whole number", "")
    return False
