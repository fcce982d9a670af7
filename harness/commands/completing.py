"""What may stand at the end of a command line that is being typed. Nothing here raises for a line that makes no sense."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_SETTING = re.compile(r"[A-Za-z][\w.@+-]*=")
_MOST = 2_000  # entries of a folder that are looked at
_RUNS = "runs"  # where `capsbench run` writes by default


class Candidate(NamedTuple):
    """A word; it ends with "/", "." or "=" if more belongs to it. `about` describes it."""

    word: str
    about: str = ""
    is_path: bool = False


def candidates(words: Sequence[str], known: Mapping[str, Any]) -> list[Candidate]:
    """What the last of `words` could become.

    Args:
        words: those after "capsbench", without quotes; the last one is being typed, and may be empty.
        known: `harness.commands.vocabulary.vocabulary()`.
    """
    *before, word = words or [""]
    while before and before[0] == "--json":
        before = before[1:]
    is_help = before[:1] == ["help"]
    if is_help:
        before = before[1:]
    if not before:
        found = [Candidate(name, command["help"]) for name, command in known["commands"].items()]
        if not is_help and word.startswith("-"):
            found = [Candidate("--help"), Candidate("--version"), Candidate("--json")]
        return _beginning(found, word)
    command = known["commands"].get(before[0])
    if command is None or is_help:
        return []
    place = _Place.after(command, before[1:])
    return _beginning(_possible(place, word, known), word)


@dataclass
class _Place:
    """Where on its line the word stands: in which command, after which arguments."""

    command: Mapping[str, Any]
    words: list[str]  # arguments so far, without options and settings
    given: set[str]  # options so far
    option: Mapping[str, Any] | None = None  # whose value the word is
    is_last: bool = False  # after "--": no more options

    @classmethod
    def after(cls, command: Mapping[str, Any], before: Sequence[str]) -> _Place:
        place = cls(command, [], set())
        for word in before:
            if place.option and not (place.option["is_optional"] and word.startswith("-")):
                place.option = None
            elif word == "--" and not place.is_last:
                place.option, place.is_last = None, True
            elif word.startswith("-") and word != "-" and not place.is_last:
                name, equals, _ = word.partition("=")
                option = place.named(name)
                place.given.add(name)
                place.option = option if option and option["takes"] is not None and not equals else None
            elif not place.words and word in place.command["actions"]:
                place.command = place.command["actions"][word]
            elif not (_SETTING.match(word) and place.named("-s")):
                place.words.append(word)
        return place

    def named(self, name: str) -> Mapping[str, Any] | None:
        return next((each for each in self.command["options"] if name in each["names"]), None)

    def takes(self) -> Any:
        """What the next argument is; None if there is none."""
        words = self.command["words"]
        if len(self.words) < len(words):
            return words[len(self.words)]
        return words[-1] if words and self.command["more"] else None

    def run(self) -> str:
        """The run that trials are of: the first argument, as every command has it."""
        return self.words[0] if self.words else ""


def _possible(place: _Place, word: str, known: Mapping[str, Any]) -> Iterator[Candidate]:
    if place.option:
        yield from _values(place.option["takes"], word, place, known)
        if not place.option["is_optional"]:
            return
    name, equals, value = word.partition("=")
    if not place.is_last and equals and (option := place.named(name)) and option["takes"] is not None:
        for each in _values(option["takes"], value, place, known):
            yield each._replace(word=f"{name}={each.word}")
        return
    if word.startswith("-") and not place.is_last:
        for option in place.command["options"]:
            if option["many"] or not place.given & {*option["names"]}:
                yield Candidate(option["names"][-1], option["help"])
        return
    if not place.words:
        for action, below in place.command["actions"].items():
            yield Candidate(action, below["help"])
    kind = place.takes()
    if kind is not None:
        yield from _values(kind, word, place, known)
    if place.named("-s") and (word or kind is None) and kind != "setting":
        yield from _settings(word, known["keys"])


def _values(kind: Any, word: str, place: _Place, known: Mapping[str, Any]) -> Iterable[Candidate]:
    if not isinstance(kind, str):
        return [Candidate(each) for each in kind]
    names = {"impl": "impls", "data": "data", "framework": "frameworks"}
    match kind:
        case "run":
            return _runs(word)
        case "trial":
            return _trials(place.run(), {*place.words[1:]})
        case "suite":
            shipped = [Candidate(name, question) for name, question in known["suites"].items()]
            return [*_files(word, (".yaml", ".yml")), *shipped]
        case "shipped":
            return [Candidate(name, question) for name, question in known["suites"].items()]
        case "setting":
            return _settings(word, known["keys"])
        case "folder":
            return _files(word, None)
        case "file":
            return _files(word)
        case "epoch" | "weights":
            return [Candidate("best"), Candidate("last"), *(_files(word) if kind == "weights" else ())]
        case "environment":
            return _environments()
        case _ if kind in names:
            return [Candidate(each) for each in known[names[kind]]]
        case _:
            return []


def _settings(word: str, keys: Mapping[str, Sequence[str]]) -> Iterator[Candidate]:
    """Keys, a section at a time; after "=", and after each comma there, the values of those that have few."""
    key, equals, value = word.partition("=")
    if equals:
        head = word[: len(word) - len(value.rpartition(",")[2])]
        taken = value.split(",")[:-1]
        yield from (Candidate(head + each) for each in keys.get(key, ()) if each not in taken)
        return
    for name in keys:
        if name.startswith(word):
            section, dot, _ = name[len(word) :].partition(".")
            yield Candidate(word + section + dot if dot else f"{name}=")


def _runs(word: str) -> list[Candidate]:
    found = [
        each._replace(word=each.word.removesuffix("/")) if _is_run(each.word) else each for each in _files(word, None)
    ]
    inside = [] if "/" in word else [each for each in _files(f"{_RUNS}/", None) if _is_run(each.word)]
    if inside:
        runs = [each._replace(word=each.word.removesuffix("/")) for each in inside]
        found = runs + [each for each in found if word and each.word != f"{_RUNS}/"]
    return found


def _is_run(word: str) -> bool:
    return (_place(word) / "plan.json").is_file()


def _place(word: str) -> Path:
    """With the home folder for "~"; a user whom nobody knows has none."""
    with suppress(RuntimeError):
        return Path(word).expanduser()
    return Path(word)


def _trials(run: str, named: set[str]) -> Iterator[Candidate]:
    """Ids of the run's trials, each with what it is."""
    for path in _entries(_place(run) / "trials"):
        if path.name in named or not path.is_dir():
            continue
        about = ""
        with suppress(OSError, ValueError, AttributeError):
            trial: dict[str, Any] = json.loads((path / "trial.json").read_bytes())
            params: dict[str, Any] = trial.get("params") or {}
            shown = {"seed": trial.get("seed"), **{key: value for key, value in params.items() if key != "impl"}}
            about = " ".join([str(trial["impl"]), *(f"{key}={value}" for key, value in shown.items())])
        yield Candidate(path.name, about)


def _files(word: str, suffixes: tuple[str, ...] | None = ("",)) -> list[Candidate]:
    """Folders, and files whose names end so; no files at all for None. As the word has them: relative, or with "~"."""
    head, slash, begun = word.rpartition("/")
    place = _place(f"{head}{slash}" or ".")
    found: list[Candidate] = []
    for path in _entries(place):
        if not path.name.startswith(begun) or (path.name.startswith(".") and not begun.startswith(".")):
            continue
        if path.is_dir():
            found.append(Candidate(f"{head}{slash}{path.name}/", is_path=True))
        elif suffixes is not None and path.name.endswith(suffixes):
            found.append(Candidate(f"{head}{slash}{path.name}", is_path=True))
    return found


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry, _ in zip(entries, range(_MOST), strict=False))
    return []


def _environments() -> list[Candidate]:
    from harness.environments.chosen import of_user

    return [Candidate(name) for name in of_user()]


def _beginning(found: Iterable[Candidate], word: str) -> list[Candidate]:
    """Those that begin with the word, each once; nothing that a line of a shell's list could not show."""
    fitting = {each.word: each for each in found if each.word.startswith(word) and each.word.isprintable()}
    return list(fitting.values())


def split(line: str) -> list[str]:
    """The words of a line as a shell would have them, the last one as far as it goes; with quotes that are still open."""
    if (len(line) - len(line.rstrip("\\"))) % 2:
        line = line[:-1]  # it has nothing to escape yet
    for ending in ("", '"', "'"):
        with suppress(ValueError):
            words = shlex.split(line + ending)
            is_new = not line or (line[-1].isspace() and not ending and not line.endswith("\\ "))
            return [*words, ""] if is_new else words
    return line.split(" ")
