"""Copies of an implementation with single faults, which the ladder must catch and a diagnosis compares with."""

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
    """One textual change in `file` of the package ("models/cnn.py"): `old`, which occurs exactly once, becomes `new`."""

    file: str
    old: str
    new: str


def in_layers(old: str, new: str) -> Edit:
    return Edit("layers.py", old, new)


def in_model(old: str, new: str) -> Edit:
    return Edit("models/capsnet.py", old, new)


def in_cnn(old: str, new: str) -> Edit:
    return Edit("models/cnn.py", old, new)


def in_impl(old: str, new: str) -> Edit:
    return Edit("impl.py", old, new)


def in_steps(old: str, new: str) -> Edit:
    return Edit("steps.py", old, new)


def mutant(package: str, edits: Sequence[Edit]) -> ModuleType:
    """A copy of `package` under a new name, with `edits` made one after the other; the original is not changed.

    In the copy, imports of the package's own modules find the copy's modules. `discard` removes it from `sys.modules`.
    Raises `ValueError` unless each text to replace occurs exactly once.
    """
    name = f"{package.replace('.', '_')}_mutant_{next(_serial)}"
    sources = {
        ".".join((name, *_parts(file))): (file, _renamed(source, package, name))
        for file, source in edited(package, edits).items()
    }
    finder = _Finder(name, sources)
    sys.meta_path.insert(0, finder)
    try:
        copy = importlib.import_module(name)
        for module in sources:
            importlib.import_module(module)
    except BaseException:
        _forget(name)
        raise
    finally:
        sys.meta_path.remove(finder)
    return copy


def discard(copy: ModuleType) -> None:
    """Removes a mutant and its modules from `sys.modules`; objects made from them stay usable."""
    _forget(copy.__name__)


def edited(package: str, edits: Sequence[Edit]) -> dict[str, str]:
    """The sources of the package's modules after the edits, by file relative to the package: "models/cnn.py"."""
    folder = _folder(package)
    files = sorted(folder.rglob("*.py"))
    sources = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}
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
    return sources


def _parts(file: str) -> tuple[str, ...]:
    """A module's name relative to its package: ("models", "cnn") for "models/cnn.py", () for "__init__.py"."""
    path = Path(file)
    return path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts


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

    def __init__(self, name: str, sources: dict[str, tuple[str, str]]) -> None:
        """`sources`: a module's full name -> its file and source text."""
        self.name, self.sources = name, sources

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.sources:
            return None
        inside, source = self.sources[fullname]
        file = f"<{self.name}/{inside}>"
        linecache.cache[file] = (
            len(source),
            None,
            source.splitlines(keepends=True),
            file,
        )  # for tracebacks and inspect
        return ModuleSpec(fullname, _Loader(source, file), origin=file, is_package=Path(inside).name == "__init__.py")


class _Loader(InspectLoader):
    def __init__(self, source: str, file: str) -> None:
        self.source, self.file = source, file

    def get_source(self, fullname: str) -> str:
        return self.source

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self.file
        exec(compile(self.source, self.file, "exec", dont_inherit=True), module.__dict__)
