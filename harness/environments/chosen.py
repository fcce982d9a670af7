"""Which Python an implementation is to run in: as the suite, the user's configuration, or `capsbench env create` says."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import registry
from harness.disk import read_json
from harness.errors import UserError, nearest
from harness.machine.surroundings import given
from harness.suite.yaml import Problems, parse_mapping

CONFIG = "CAPSBENCH_CONFIG"
"""The environment variable that names the user's configuration; default: capsbench/config.yaml in XDG_CONFIG_HOME."""
FOLDER = "CAPSBENCH_ENVIRONMENTS"
"""The environment variable with the folder of those that are made; default: capsbench/environments in XDG_DATA_HOME."""
MARK = "capsbench-environment.json"
"""The file in an environment that `capsbench env create` made; its `state` is "complete" once all is installed."""
_KEY = "environments"
_EXPECTED = f"a mapping of implementations to Pythons, such as {{{registry.FRAMEWORKS[0]}: /path/to/bin/python}}"


@dataclass(frozen=True)
class Chosen:
    """A Python for an implementation, and who says so."""

    impl: str
    python: str  # as it was given; see `executable`
    source: str  # where it was named, for messages
    made: Path | None = None  # the folder of one that `capsbench env create` made

    def executable(self) -> str:
        """The absolute path of the interpreter; of a folder, its bin/python. Raises `UserError` if there is none.

        Links stay: an environment's interpreter is one to another Python.
        """
        text = self.python
        if os.sep not in text and not Path(text).exists():
            if found := shutil.which(text, path=given().get("PATH")):
                return os.path.abspath(found)  # noqa: PTH100
            raise self.unusable(f'there is no command "{text}"')
        path = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100
        if path.is_dir():
            inside = path / "bin" / "python"
            if not inside.exists():
                raise self.unusable("it is a folder without bin/python")
            path = inside
        if not path.exists():
            gone = " any more: what it links to is gone" if path.is_symlink() else _beside(path)
            raise self.unusable(f"there is no such file{gone}")
        if not os.access(path, os.X_OK):
            raise self.unusable("it may not be executed")
        return str(path)

    def unusable(self, why: str, advice: str | None = None) -> UserError:
        """The error that says what is wrong with it, and what to do."""
        advice = advice or (
            f"make it anew: capsbench env remove {self.impl}, then capsbench env create {self.impl}"
            if self.made
            else f"name a Python there, such as /path/to/bin/python, or make one: capsbench env create {self.impl}"
        )
        return UserError(f"{self.impl}: {self.python} ({self.source}): {why}; {advice}")


def chosen(impl: str, suite: Mapping[str, str], source: str) -> Chosen | None:
    """The Python of `impl`: that of the suite's `environments`, else the user's, else one that was made; None: our own.

    `source` names the suite. Raises `UserError` if the user's configuration is wrong.
    """
    if impl in suite:
        return Chosen(impl, suite[impl], f"{_KEY} in {source}")
    return of_user().get(impl)


def of_user() -> dict[str, Chosen]:
    """Implementation -> Python, for all suites: what was made, and above that, what the configuration says."""
    return {each.impl: each for each in (*_made(), *_configured())}


def folder() -> Path:
    """Where environments are made."""
    if own := given().get(FOLDER):
        return Path(own).expanduser().absolute()
    return _base("XDG_DATA_HOME", ".local/share") / "capsbench" / "environments"


def config_path() -> Path:
    """The user's configuration, whether it exists or not."""
    if own := given().get(CONFIG):
        return Path(own).expanduser().absolute()
    return _base("XDG_CONFIG_HOME", ".config") / "capsbench" / "config.yaml"


def is_complete(place: Path) -> bool:
    """Whether `capsbench env create` has made an environment there, to the end."""
    return (read_json(place / MARK) or {}).get("state") == "complete"


def is_made(place: Path) -> bool:
    """Whether it made one there, or began to."""
    return read_json(place / MARK) is not None


def _base(variable: str, otherwise: str) -> Path:
    """A folder of the XDG standard, which ignores relative ones."""
    told = given().get(variable)
    if told and os.path.isabs(told):  # noqa: PTH117
        return Path(told)
    return Path(given().get("HOME") or Path.home()) / otherwise


def _made() -> Iterator[Chosen]:
    where = folder()
    try:
        names = sorted(each.name for each in where.iterdir() if not each.name.startswith("."))
    except OSError:  # none has been made
        return
    for name in names:
        place = where / name
        if place.is_symlink() or is_made(place):
            yield Chosen(name, str(place), "made by capsbench env create", place)


def _configured() -> Iterator[Chosen]:
    path = config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if given().get(CONFIG):
            raise UserError(f"{CONFIG} names {path}, which does not exist; correct it, or unset it") from error
        return
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the configuration {path} cannot be read: {why}") from error
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return
    problems = Problems()
    root = parse_mapping(text, path, problems)
    for key, node in (root.entries or {}).items():
        if key != _KEY:
            problems.add(node.place, key, f"unknown key{nearest(key, [_KEY])}")
            continue
        if node.entries is None and node.value is not None:
            problems.add(node.place, key, f"found {node}, expected {_EXPECTED}")
        for impl, each in (node.entries or {}).items():
            if not isinstance(each.value, str) or not each.value:
                problems.add(each.place, f"{key}.{impl}", f"found {each}, expected the path of a Python")
            else:
                yield Chosen(impl, each.value, f"{_KEY} in {path}")
    problems.raise_any()


def _beside(path: Path) -> str:
    """The nearest name beside a path that does not exist, for a message."""
    parent = next((each for each in path.parents if each.is_dir()), None)
    if parent is None:
        return ""
    missing = path.relative_to(parent).parts[0]
    with os.scandir(parent) as entries:
        near = difflib.get_close_matches(missing, [each.name for each in entries], n=1)
    return (
        f"; did you mean {parent / near[0]}?"
        if near
        else f" ({parent} has no {missing})"
        if parent != path.parent
        else ""
    )
