"""Modules by name, found without importing them or their parents."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


@contextmanager
def importable(folder: Path) -> Generator[None]:
    """Makes modules in `folder` importable, after all installed ones, for the duration of the `with` block."""
    importlib.invalidate_caches()  # the folder may have been scanned before the module was written
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def locate(module: str) -> ModuleSpec | None:
    """Where `module` would be imported from, without importing its parent packages; None if it cannot be found."""
    top, *rest = module.split(".")
    spec = find(top)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By its last name only: a folder without __init__.py would need its parent imported for the full name.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return spec


def is_lying_about(spec: ModuleSpec) -> bool:
    """Whether this is a folder or file of the working directory that only has a library's name."""
    if spec.origin is None:
        return True
    here, file = Path.cwd(), Path(spec.origin)
    is_asked_for = str(here) in (
        str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
    )
    return here in (file.parent, file.parent.parent) and not is_asked_for


def find(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return None
