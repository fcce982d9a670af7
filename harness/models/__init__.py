"""The kinds of model, one module each, and the registry that finds them by name: see `harness.models.base.ModelKind`.

To add one here, write a module with an object of a class derived from `ModelKind`, a line in `_BUILT_IN`, and a module
in each `impls/X/models`. An external distribution adds one by an entry point of the group `capsbench.models`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from harness import modules
from harness.errors import BrokenPlugin, UserError, nearest
from harness.plugins import registered

if TYPE_CHECKING:
    from harness.models.base import ModelKind
    from harness.spec import ModelSpec

GROUP = "capsbench.models"
"""The entry-point group by which a distribution registers kinds of model: `name = "package.module:KIND"`."""

_BUILT_IN = {"capsnet": "harness.models.capsnet:CAPSNET", "cnn": "harness.models.cnn:CNN"}


def names() -> tuple[str, ...]:
    """The built-in kinds, then those that installed distributions register; built-in names cannot be overridden."""
    return (*_BUILT_IN, *sorted(_registered(tuple(sys.path))))


def of(model: ModelSpec) -> ModelKind:
    """The kind of a model."""
    return load(model.kind)


def load(name: str) -> ModelKind:
    """The kind with this name. Raises `UserError` for an unknown kind, and for a broken plug-in, naming it."""
    if name in _BUILT_IN:
        return _found(name, _BUILT_IN[name])
    point = _registered(tuple(sys.path)).get(name)
    if point is None:
        elsewhere = " One that another distribution registers has to be installed."
        raise UserError(f'unknown kind of model "{name}"{nearest(name, names())}{elsewhere}')
    return _found(name, point.value)


def target(name: str) -> str:
    """Where a known kind is: "package.module:OBJECT". Imports nothing."""
    return _BUILT_IN.get(name) or _registered(tuple(sys.path))[name].value


def is_known(name: str) -> bool:
    """Whether there is a kind with this name, working or broken."""
    return name in _BUILT_IN or name in _registered(tuple(sys.path))


def is_built_in(name: str) -> bool:
    """Whether every built-in implementation includes the kind."""
    return name in _BUILT_IN


def settings() -> Mapping[str, tuple[str, ...]]:
    """Kind -> the names of its own settings, for all kinds that can be loaded; a broken plug-in is refused on use."""
    return _settings(names())


def foreign(name: str) -> frozenset[str]:
    """The settings of other kinds, which this one ignores."""
    return frozenset(key for keys in settings().values() for key in keys) - {*load(name).settings}


def part(name: str, implementation: str, contract: type) -> ModuleType:
    """The module that a kind registers for an implementation, with the names of the protocol `contract`.

    Raises `UserError` if there is none, if it cannot be imported, or if it lacks a name.
    """
    parts = load(name).parts
    if implementation not in parts:
        raise BrokenPlugin(
            lacking(name, implementation) or f'implementation "{implementation}" does not bring kind "{name}"'
        )
    module = _imported(name, parts[implementation])
    wanted = (
        *vars(contract).get("__annotations__", ()),
        *(key for key, value in vars(contract).items() if callable(value)),
    )
    if absent := [key for key in wanted if not key.startswith("_") and not hasattr(module, key)]:
        raise BrokenPlugin(
            f'model kind "{name}": its part for {implementation}, {module.__name__}, lacks {", ".join(absent)}; '
            f"{contract.__module__}.{contract.__name__} says what they do"
        )
    return module


def lacking(name: str, implementation: str) -> str | None:
    """Why a built-in implementation cannot make models of a kind; None if it can. Others may know kinds themselves."""
    parts = load(name).parts
    if is_built_in(name) or implementation in parts:
        return None
    known = f"it has one for {', '.join(parts)}" if parts else "it has none for any"
    return f'model kind "{name}" has no part for the implementation "{implementation}": {known}'


def problem(name: str) -> str | None:
    """What is wrong with a registered kind or a part of it that can be looked up; None if nothing is."""
    try:
        kind = load(name)
        for implementation, module in kind.parts.items():
            if modules.locate(module) is None:
                return f'model kind "{name}": its part for {implementation}, {module}, cannot be found'
    except UserError as error:
        return str(error)
    return None


@cache
def _registered(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The entry points by name; looked up once while `sys.path` does not change."""
    return {point.name: point for point in registered(GROUP) if point.name not in _BUILT_IN}


@cache
def _settings(kinds: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name in kinds:
        try:
            found[name] = load(name).settings
        except UserError:
            continue
    return found


@cache
def _found(name: str, where: str) -> ModelKind:
    module, _, attribute = where.partition(":")
    base = importlib.import_module("harness.models.base")
    holder = _imported(name, module)
    kind = getattr(holder, attribute or "KIND", None)
    if isinstance(kind, type) and issubclass(kind, base.ModelKind):
        kind = _called(name, where, kind)
    if not isinstance(kind, base.ModelKind):
        raise BrokenPlugin(
            f'model kind "{name}": {where} is {type(kind).__name__}, expected an object of a class derived from '
            "harness.models.base.ModelKind"
        )
    return cast("ModelKind", _checked(name, where, kind))


def _called(name: str, where: str, kind: Any) -> Any:
    try:
        return kind()
    except Exception as error:
        raise BrokenPlugin(f'model kind "{name}": {where} cannot be made: {type(error).__name__}: {error}') from error


def _checked(name: str, where: str, kind: Any) -> Any:
    """The kind, if it declares everything that it must."""
    if getattr(kind, "name", None) != name:
        raise BrokenPlugin(
            f'model kind "{name}": {where} calls itself "{getattr(kind, "name", "")}"; give both the same name'
        )
    spec: Any = getattr(kind, "spec", None)
    base = importlib.import_module("harness.spec.model").ModelSpec
    if not (isinstance(spec, type) and issubclass(spec, base) and spec is not base):
        raise BrokenPlugin(
            f'model kind "{name}": its spec is {spec!r}, expected a class derived from harness.spec.ModelSpec'
        )
    fields: dict[str, Any] = cast(Any, spec).model_fields
    if (told := fields["kind"].default) != name:
        raise BrokenPlugin(
            f'model kind "{name}": {spec.__name__} is of kind "{told}"; write kind: str = "{name}" in it'
        )
    if needed := [key for key in kind.settings if fields[key].is_required()]:
        raise BrokenPlugin(f'model kind "{name}": {spec.__name__} has settings without a default: {", ".join(needed)}')
    return kind


def _imported(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way it likes
        cause = str(error).strip().partition("\n")[0]
        raise BrokenPlugin(
            f'model kind "{name}": importing {module} failed: {type(error).__name__}: {cause}'
        ) from error
