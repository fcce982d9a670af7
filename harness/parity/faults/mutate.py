"""Copies of an implementation with single faults in them: what the ladder must catch, and what a diagnosis compares with."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import linecache
import re
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

_serial = itertools.count(1)


class Edit(NamedTuple):
    """One textual change: in `file` of the package ("layers.py"), `old`, which occurs there exactly once, becomes `new`."""

    file: str
    old: str
    new: str


def in_layers(old: str, new: str) -> Edit:
    return Edit("layers.py", old, new)


def in_model(old: str, new: str) -> Edit:
    return Edit("model.py", old, new)


def in_impl(old: str, new: str) -> Edit:
    return Edit("impl.py", old, new)


def mutant(package: str, edits: Sequence[Edit]) -> ModuleType:
    """A copy of `package` under a name of its own, with `edits` made one after the other; the original stays as it is.

    The copy's imports of the package's own modules find the copy's. `discard` takes it out of `sys.modules` again.
    Raises `ValueError` if a text to replace is not there exactly once.
    """
    name = f"{package.replace('.', '_')}_mutant_{next(_serial)}"
    sources = edited(package, edits)
    finder = _Finder(name, {module: _renamed(source, package, name) for module, source in sources.items()})
    sys.meta_path.insert(0, finder)
    try:
        copy = importlib.import_module(name)
        for module in sources:
            importlib.import_module(f"{name}.{module}" if module else name)
    except BaseException:
        _forget(name)
        raise
    finally:
        sys.meta_path.remove(finder)
    return copy


def discard(copy: ModuleType) -> None:
    """Takes a mutant and its modules out of `sys.modules`; what was made from them lives on."""
    _forget(copy.__name__)


def edited(package: str, edits: Sequence[Edit]) -> dict[str, str]:
    """The sources of the package's modules after the edits, by module name; "" is the package itself."""
    folder = _folder(package)
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    for edit in edits:
        if edit.file not in sources:
            raise ValueError(f'{package} has no file "{edit.file}" to edit: it has {", ".join(sources)}')
        found = sources[edit.file].count(edit.old)
        if found != 1:
            raise ValueError(
                f"{package}: the text to replace occurs {found} times in {edit.file}, expected once; "
                f"adapt the edit to the source:\n{edit.old}"
            )
        sources[edit.file] = sources[edit.file].replace(edit.old, edit.new)
    return {"" if file == "__init__.py" else Path(file).stem: source for file, source in sources.items()}


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f'"{package}" is not an importable package: only packages can be copied and edited')
    return Path(spec.submodule_search_locations[0])


def _renamed(source: str, package: str, name: str) -> str:
    return re.sub(rf"\b{re.escape(package)}\b", name, source)


def _forget(name: str) -> None:
    for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[module]
    for file in [each for each in linecache.cache if each.startswith(f"<{name}/")]:
        del linecache.cache[file]


class _Finder(MetaPathFinder):
    """Finds the modules of one mutant in memory."""

    def __init__(self, name: str, sources: dict[str, str]) -> None:
        self.sources = {f"{name}.{module}" if module else name: source for module, source in sources.items()}

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.sources:
            return None
        package, _, module = fullname.partition(".")
        file = f"<{package}/{module or '__init__'}.py>"
        source = self.sources[fullname]
        linecache.cache[file] = (
            len(source),
            None,
            source.splitlines(keepends=True),
            file,
        )  # for tracebacks and inspect
        return ModuleSpec(fullname, _Loader(source, file), origin=file, is_package=not module)


class _Loader(InspectLoader):
    def __init__(self, source: str, file: str) -> None:
        self.source, self.file = source, file

    def get_source(self, fullname: str) -> str:
        return self.source

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self.file
        exec(compile(self.source, self.file, "exec", dont_inherit=True), module.__dict__)
