"""Implementations in a file of the user's own, named as `folder/some-file.py:Class`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

from harness.errors import UserError, nearest


def is_file_name(name: str) -> bool:
    """Whether `name` names a file rather than a module: it has a folder, or ends in .py before the colon."""
    where = name.rpartition(":")[0] or name
    return where.endswith(".py") or "/" in where


def target_of(name: str, locate: Callable[[str], ModuleSpec | None]) -> str:
    """ "some-file.py:Class" as "module:Class", once the file's folder is on the import path, after all else.

    `locate` says what an import would find. Raises `UserError` for a file that does not exist, a name without class, or
    a file that another module of its name hides.
    """
    where, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    if not attribute.isidentifier():
        file = Path(where or name)
        raise UserError(f'"{name}" names no class: expected {file}:CLASS{_classes(file)}')
    file = Path(where).expanduser().resolve()
    if not file.is_file():
        near = {_beside(where, each) for each in file.parent.glob("*.py")} if file.parent.is_dir() else set[str]()
        hint = nearest(where, near) if near else "; files are looked for from the current folder."
        raise UserError(f'implementation "{name}": no file "{where}"{hint}')
    if "." in file.stem or file.suffix != ".py":
        raise UserError(f'implementation "{name}": a file to import is called NAME.py, and NAME has no dot; rename it')
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    found = locate(file.stem)
    if found is None or found.origin is None or Path(found.origin).resolve() != file:
        hidden = found.origin if found else "another module"
        raise UserError(f'implementation "{name}": {hidden} has the same name and comes first; rename {file.name}')
    return f"{file.stem}:{attribute}"


def _classes(file: Path) -> str:
    """The classes that the file defines, for a message."""
    try:
        text = file.expanduser().read_text(encoding="utf-8")
        names = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    except (OSError, ValueError, SyntaxError):
        return ""
    return f". It has: {', '.join(names)}" if names else ""


def _beside(where: str, other: Path) -> str:
    return str(Path(where).with_name(other.name))
