"""Which framework a model uses, and its module; nothing is imported before it is needed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import UserError
from harness.parity.ordinary.source import Source, attribute, construct, load_file, split_target


def imports(path: Path) -> set[str]:
    """Top-level packages imported by a file, or by modules of its folder that it imports; empty if it cannot be parsed."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        if (here := waiting.pop()) in seen or not here.is_file():
            continue
        seen.add(here)
        try:
            tree = ast.parse(here.read_bytes())
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                found.add(top)
                waiting.append(here.parent / f"{top}.py")
    return found


def framework_of(source: Source) -> str:
    """The implementation's name, by the file's imports. Raises `UserError` if there is none or it is not installed."""
    where, _ = split_target(source.target)
    found = told_by(source)
    if found is None:
        return next(iter(registry.ordinary()))  # its loader then reports the missing file
    signs = registry.ordinary()[found].signs
    if importlib.util.find_spec(signs[0]) is None:
        install = registry.resolve(found).install
        raise UserError(f'--model: "{where}" is of {signs[0]}, which is not installed: {install}')
    return found


def told_by(source: Source) -> str | None:
    """The implementation's name, by the file's imports, whether it is installed or not; None if there is no file.

    Raises `UserError` if the file imports no framework.
    """
    where, _ = split_target(source.target)
    path = (Path(source.cwd) / where).expanduser()
    if not path.is_file():
        spec = importlib.util.find_spec(where.partition(".")[0]) if "/" not in where else None
        folder = Path(spec.origin).parent if spec and spec.origin else None
        path = folder.parent.joinpath(*where.split(".")).with_suffix(".py") if folder else path
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
    found = imports(path)
    all_signs = {name: ordinary.signs for name, ordinary in registry.ordinary().items()}
    for name, signs in all_signs.items():
        if found & set(signs):
            return name
    if path.is_file():
        neither = " nor ".join(signs[0] for signs in all_signs.values())
        raise UserError(f'--model: "{where}" imports neither {neither}; found {", ".join(sorted(found)) or "nothing"}')
    return None


def build(source: Source, sizes: Mapping[str, Any], precision: str, threads: int) -> Built:
    """The model in its framework. Raises `UserError`."""
    framework = framework_of(source)
    module: Any = importlib.import_module(registry.resolve(framework).module + ".ordinary")
    here = module.start(precision, threads)
    where, name = split_target(source.target)
    with here:
        loaded = load_file(where, Path(source.cwd), module.names)
        found = attribute(loaded, name, where)
        made = construct(found, sizes, source.arguments, name, registry.ordinary()[framework].channels_first)
        made = module.chosen(made)
    if not module.is_model(made):
        kind = type(made).__name__
        raise UserError(
            f'--model: "{source.target}" gave a {kind}; expected {module.EXPECTED}, or a class or function that makes one'
        )
    return Built(framework, module, loaded, found, module.network(made, precision))


class Built:
    """A model and where it came from."""

    def __init__(self, framework: str, module: Any, file: Any, made_by: Any, network: Any) -> None:
        self.framework, self.module, self.file, self.made_by, self.network = framework, module, file, made_by, network
