"""Kinds of model, found by name: what the border needs of `harness.models`, which it does not import by itself.

As with implementations, a name leads to a module that is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.spec.model import ModelSpec

DEFAULT = "capsnet"
"""The kind of a model whose description names none."""


def _models() -> Any:
    return importlib.import_module("harness.models")


def is_known(kind: object) -> bool:
    """Whether there is a kind of this name, right or broken."""
    return isinstance(kind, str) and _models().is_known(kind)


def spec_of(kind: str) -> type[ModelSpec]:
    """The class that describes models of this kind. Raises `UserError` for a kind that is unknown or broken."""
    return _models().load(kind).spec


def is_setting(name: str) -> bool:
    """Whether some kind of model has a setting of this name."""
    return any(name in keys for keys in _models().settings().values())


def part(kind: str, implementation: str, contract: type) -> ModuleType:
    """What `implementation` knows of a kind that it does not bring itself: the module that the kind registers for it.

    `contract` is the protocol whose names it must have. Raises `UserError` if the kind has none for it, if the module cannot
    be imported, or if it lacks a name.
    """
    return _models().part(kind, implementation, contract)
