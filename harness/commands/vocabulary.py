"""What the command line consists of: commands, options, what each takes, a suite's keys. For completion in shells.

Looking it up loads every command, which takes a second or two; so it is kept in the user's cache, until anything that
could change it has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from harness import __version__

_FORM = 1
_TOP = Path(__file__).resolve().parents[2]
_SOURCES = (
    "harness/commands",
    "harness/suite",
    "harness/spec",
    "harness/models",
    "harness/data",
    "suites",
    "capsbench/suites",
)
_KINDS = {
    "RUN": "run", "RUN|CRATE": "run", "TRIAL": "trial", "SUITE": "suite", "SUITE|RUN": "suite", "KEY=VALUE": "setting",
    "DIR": "folder", "FOLDER": "folder", "PATH": "file", "FILE": "file", "FILE.png": "file", "DIR|ZIP": "file",
    "best|last|EPOCH": "epoch", "best|last|EPOCH|FILE": "weights", "FILE.py:NAME": "file", "EXE": "file", "PY": "file",
}  # fmt: skip
"""Metavar -> what stands there; of others nothing is known that could be offered."""
_EXCEPTIONS = {
    ("compare", "A"): "run", ("compare", "B"): "run", ("data", "DIR"): "folder", ("data fetch", "NAME"): "data",
    ("data show", "NAME"): "data", ("suites copy", "NAME"): "shipped", ("env remove", "NAME"): "environment",
    ("env create", "NAME"): "framework", ("parity", "--impl"): "impl", ("speed", "--impl"): "impl",
    ("predict", "--impl"): "impl", ("demo", "--impl"): "impl", ("verify", "--impl"): "impl", ("retest", "--impl"): "impl",
    ("parity", "B"): "file",
}  # fmt: skip


def vocabulary() -> dict[str, Any]:
    """JSON-able: `commands` (as `_command` makes each), `keys` (key -> choices), `suites` (name -> question), and names."""
    mark, kept = _mark(), _place()
    with suppress(OSError, ValueError):
        found: Any = json.loads(kept.read_text("utf-8"))
        if isinstance(found, dict) and cast("dict[str, Any]", found).get("mark") == mark:
            return cast("dict[str, Any]", found)
    made = {"mark": mark, **_made()}
    with suppress(OSError):  # a cache that cannot be written: slower, no worse
        from harness.disk import write_atomic

        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(made))
    return made


def _place() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("capsbench") / "completion.json"


def _mark() -> list[Any]:
    """What the vocabulary depends on: changes whenever a source file of it does."""
    files = [path for folder in _SOURCES for path in sorted((_TOP / folder).glob("*.[py]*"))]
    return [_FORM, __version__, str(_TOP), sys.prefix, max(path.stat().st_mtime_ns for path in files), len(files)]


def _made() -> dict[str, Any]:
    from harness import data, registry
    from harness.commands.cli import COMMANDS, parser
    from harness.suite.keys import known
    from harness.suite.shipped import shipped

    commands: dict[str, Any] = {}
    for name, help in COMMANDS.items():
        top = parser([name])
        (choice,) = (each for each in _actions(top) if isinstance(each, _Several))
        commands[name] = {"help": help, **_command(cast(Any, choice).choices[name], name)}
    keys = {key: leaf.choices for key, leaf in known().all.items()}
    impls = [*registry.names(), *([] if registry.SPECIFICATION in registry.names() else [registry.SPECIFICATION])]
    return {
        "commands": commands,
        "keys": {**keys, "impl": impls, "data.name": list(data.names())},
        "suites": {each.name: each.question for each in shipped()},
        "data": list(data.names()),
        "frameworks": list(registry.FRAMEWORKS),
        "impls": impls,
    }


_Several: Any = cast(Any, argparse)._SubParsersAction


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return cast(Any, parser)._actions


def _command(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    """`options` (each: names, takes, help, many), `words` (what each argument takes, the last one for all that follow if
    `more`), and `actions` (name -> the same again), of which one must come first."""
    made: dict[str, Any] = {"options": [], "words": [], "more": False, "actions": {}}
    for action in _actions(parser):
        if isinstance(action, _Several):
            for name, below in cast(Any, action).choices.items():
                made["actions"][name] = {"help": below.description or "", **_command(below, f"{path} {name}")}
        elif not action.option_strings:
            made["words"] += _words(action, path)
            made["more"] = action.nargs in ("*", "+")
        elif action.help != argparse.SUPPRESS:
            made["options"].append(
                {
                    "names": list(action.option_strings),
                    "takes": None if action.nargs == 0 else _taken(action, path, action.option_strings[-1]),
                    "is_optional": action.nargs == "?",
                    "help": (action.help or "").partition(";")[0].replace("%%", "%"),
                    "many": type(action).__name__ == "_AppendAction",
                }
            )
    return made


def _words(action: argparse.Action, path: str) -> Iterator[Any]:
    """One for each word of "RUN TRIAL FILE"."""
    for name in str(action.metavar or action.dest.upper()).split():
        yield _taken(action, path, name, name)


def _taken(action: argparse.Action, path: str, name: str, metavar: str | None = None) -> Any:
    """A kind, a list of choices, or "" where nothing is known."""
    if action.choices is not None:
        return [str(each) for each in action.choices]
    metavar = metavar or str(action.metavar or action.dest.upper())
    return _EXCEPTIONS.get((path, name)) or _KINDS.get(metavar, "")
