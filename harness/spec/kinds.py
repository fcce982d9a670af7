"""Kinds of model, found by name: what the border needs from `harness.models`, which it does not import on its own.

As with implementations, the module behind a name is imported when it is first needed.
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
    """Whether there is a kind with this name, working or broken."""
    return isinstance(kind, str) and _models().is_known(kind)


def spec_of(kind: str) -> type[ModelSpec]:
    """The class that describes models of this kind. Raises `UserError` for a kind that is unknown or broken."""
    return _models().load(kind).spec


def is_setting(name: str) -> bool:
    """Whether some kind of model has a setting with this name."""
    return any(name in keys for keys in _models().settings().values())


def part(kind: str, implementation: str, contract: type) -> ModuleType:
    """The module that a kind registers for `implementation`, for a kind that the implementation does not include itself.

    `contract` is the protocol whose names it must have. Raises `UserError` if the kind has none for it, if the module cannot
    be imported, or if it lacks a name.
    """
    return _models().part(kind, implementation, contract)
