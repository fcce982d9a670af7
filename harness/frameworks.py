"""A framework's own module, `device.py`: found beside its implementation, run on its own, checked and queried.

`harness.spec.device.Device` documents its functions, `FACTS` its constants. No framework is named here.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from harness.errors import UserError

if TYPE_CHECKING:
    import numpy as np

FUNCTIONS = ("environment", "keep_compiled", "without_gpu", "gpus", "product", "copy")
"""The functions of `harness.spec.device.Device`."""


def _is_strings(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in cast("tuple[Any, ...]", value))


def _is_devices(value: Any) -> bool:
    return _is_strings(value) and bool(value) and set(value) <= {"cpu", "gpu"}


def _is_color(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value) is not None


FACTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "PACKAGES": (
        'import names that must be there, such as ("mylib",)',
        lambda value: _is_strings(value) and bool(value),
    ),
    "INSTALL": ("how to install them, a string", lambda value: isinstance(value, str)),
    "DEVICES": ('one or both of "cpu" and "gpu", a tuple', _is_devices),
    "DISTRIBUTIONS": ("names of what is installed whose versions can change a result, a tuple", _is_strings),
    "SHORT_NAME": ("a string of 1 to 8 characters", lambda value: isinstance(value, str) and 1 <= len(value) <= 8),
    "COLOR": ('a colour such as "#CC79A7"', _is_color),
    "SLOW_START": ("a whole number, 0 or more", lambda value: type(value) is int and value >= 0),
    "VARIABLES": ("beginnings of environment variables that change results or times, a tuple of strings", _is_strings),
    "OUT_OF_MEMORY": ("names of exceptions, a tuple of strings", _is_strings),
}
"""Constants of a `device.py`, each a field of `harness.registry.Entry` in capitals: expected value and a test for it."""


@dataclass(frozen=True)
class Framework:
    """The content of a `device.py`; without the file, or for a missing function, the protocol's defaults.

    Every method raises `UserError`, naming the implementation, for anything that goes wrong in the module.
    """

    who: str  # the implementation's name
    path: Path | None = None
    module: ModuleType | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])  # by fields of `Entry`

    def has(self, function: str) -> bool:
        return hasattr(self.module, function)

    def environment(self, threads: int, precision: str, gpu: bool) -> dict[str, str | None]:
        return self._variables("environment", threads, precision, gpu)

    def keep_compiled(self, folder: str) -> dict[str, str | None]:
        return self._variables("keep_compiled", folder)

    def without_gpu(self) -> str | None:
        found = self._ask("without_gpu") if self.has("without_gpu") else None
        if found is not None and not isinstance(found, str):
            raise self._wrong("without_gpu", found, "a string or None")
        return found

    def product(self, a: np.ndarray, precision: str, gpu: bool) -> Callable[[], None]:
        return self._called("product", a, precision, gpu)

    def copy(self, count: int) -> Callable[[], None]:
        return self._called("copy", count)

    def _called(self, function: str, *arguments: Any) -> Callable[[], None]:
        """The result of `function`, already called once."""
        found = self._ask(function, *arguments)
        if not callable(found):
            raise self._wrong(function, found, "a function without arguments")
        try:
            found()
        except Exception as error:
            raise self._raised(f"what {function}() returned", error) from error
        return cast("Callable[[], None]", found)

    def _variables(self, function: str, *arguments: Any) -> dict[str, str | None]:
        """The environment variables that `function` returns; none without it."""
        found: Any = self._ask(function, *arguments) if self.has(function) else {}
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and (value is None or isinstance(value, str))
            for name, value in cast("dict[Any, Any]", found).items()
        ):
            raise self._wrong(function, found, "a dictionary of strings to strings or None")
        return cast("dict[str, str | None]", found)

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self.module, function)(*arguments)
        except Exception as error:
            raise self._raised(f"{function}()", error) from error

    def _wrong(self, function: str, found: Any, expected: str) -> UserError:
        return self._error(f"{function}() returned {found!r}; expected {expected}")

    def _raised(self, what: str, error: BaseException) -> UserError:
        said = " ".join(str(error).split())
        return self._error(f"{what} raised {type(error).__name__}: {said}")

    def _error(self, text: str) -> UserError:
        return UserError(f'implementation "{self.who}": {text} ({self.path})')


def framework(who: str, path: Path | None) -> Framework:
    """The content of the `device.py` at `path`; None is for an implementation without one.

    A file that defines nothing that the bench needs is an unrelated module of the same name, and is ignored. Raises
    `UserError` if it cannot be run or has invalid content.
    """
    if path is None:
        return Framework(who)
    try:
        module = _run(path, path.stat().st_mtime_ns)
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise UserError(f"running {path} by itself raised {type(error).__name__}: {said}") from error
    if module is None:
        return Framework(who)
    for name in FUNCTIONS:
        if not callable(getattr(module, name, len)):
            raise UserError(f"{path}: {name} is {getattr(module, name)!r}; expected a function")
    facts: dict[str, Any] = {}
    for name, (expected, is_right) in FACTS.items():
        if hasattr(module, name):
            value = getattr(module, name)
            if not is_right(value):
                raise UserError(f"{path}: {name} is {value!r}; expected {expected}")
            facts[name.lower()] = value
    return Framework(who, path, module, facts)


@cache
def _run(path: Path, _modified_ns: int) -> ModuleType | None:
    """The module without its package, whose import would import the framework; None for a file not meant for the bench."""
    if not _names(ast.parse(path.read_bytes())) & {*FUNCTIONS, *FACTS}:
        return None
    spec = importlib.util.spec_from_file_location(f"_capsbench_device_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes look up their module here
    spec.loader.exec_module(module)
    return module


def _names(tree: ast.Module) -> set[str]:
    """What a module defines at its top level."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found
