"""The suites that come with the bench. Every command that takes a suite accepts their names instead of a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, nearest
from harness.suite.file import STDIN, files_near, nearest_file, read_text
from harness.suite.yaml import Problems, parse_mapping

_TOP = Path(__file__).resolve().parents[2]
_FOLDERS = (_TOP / "capsbench" / "suites", _TOP / "suites")
"""Where they are: in the package `capsbench` if it is installed, else at the top of the checkout."""


@dataclass(frozen=True)
class Shipped:
    """A suite that comes with the bench."""

    name: str
    path: Path
    question: str
    how_long: str  # as its header says

    def to_json(self) -> dict[str, str]:
        """One row of `suites --json`."""
        return {"name": self.name, "question": self.question, "how_long": self.how_long, "path": str(self.path)}


def shipped() -> list[Shipped]:
    """All of them by name, those with other projects' settings last. Raises `UserError` for one that cannot be read."""
    return [_described(name, path) for name, path in _files().items()]


def named(name: str) -> Path:
    """The file of the shipped suite `name`. Raises `UserError` if there is none."""
    files = _files()
    if name not in files:
        raise UserError(f'no shipped suite "{name}"{nearest(name, files)} `capsbench suites` says what each answers')
    return files[name]


def locate(path: Path) -> Path:
    """The file that a command's SUITE refers to: `path` itself, or the shipped suite of that name.

    A file of that name takes precedence; "-" is stdin. Raises `UserError` if it is neither.
    """
    if path == STDIN:
        return path
    is_name = str(path) == path.name and path.suffix not in (".yaml", ".yml")
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except OSError:
        return path  # reading it will report what is wrong
    files = _files()
    if is_name and path.name in files and (is_folder or not is_there):
        return files[path.name]
    if is_there:
        return path
    if is_name:
        own = {file for file in files_near(path) if Path(file).resolve() not in files.values()}
        raise UserError(
            f"{path}: neither a file nor a shipped suite{nearest(path.name, {*files, *own})} "
            "`capsbench suites` says what each answers"
        )
    if path.stem in files:
        hint = nearest_file(path).removesuffix(".")
        raise UserError(f'{path}: no such file{hint}. The shipped suite of that name goes by "{path.stem}" alone')
    return path


def _files() -> dict[str, Path]:
    folder = next((each for each in _FOLDERS if each.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("recipes/*.yaml")))}


def _described(name: str, path: Path) -> Shipped:
    text = read_text(path)
    problems = Problems()
    entries = parse_mapping(text, path, problems).entries or {}
    problems.raise_any()
    question = entries["question"].plain() if "question" in entries else ""
    head = re.match(r"(?:#.*\n)*", text)
    paragraphs = re.split(r"\n#\s*\n", head[0]) if head else []
    said = (paragraph.partition("# How long: ")[2] for paragraph in paragraphs)
    how_long = next((" ".join(each.replace("\n# ", " ").split()) for each in said if each), "")
    return Shipped(name, path, str(question), how_long)
