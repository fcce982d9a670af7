"""The Pythons of one command's implementations: chosen, asked, and given to its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import registry
from harness.environments.chosen import Chosen, chosen, of_user
from harness.environments.probe import Answer, ask, is_own, is_version, library_version, names_version
from harness.errors import UserError, nearest
from harness.machine.environment import fingerprint, versions
from harness.machine.surroundings import given
from harness.spec.trial import Interpreter, Trial

HERE = "CAPSBENCH_COMPUTES_HERE"
"""The environment variable of a command that was started again in an implementation's Python, which it names."""
_AT_ONCE = 4


class Interpreters:
    """Of some implementations, those that do not run in the bench's own Python, and in which one they do.

    Args:
        impls: their names.
        suite: the suite's `environments`.
        source: what the suite is called in messages.

    Raises `UserError` for every one that cannot run where it should: why, and what to do. Nothing has been started then.
    """

    def __init__(self, impls: Iterable[str], suite: Mapping[str, str] | None = None, source: str = "the suite") -> None:
        wanted = [(impl, _chosen(impl, suite or {}, source)) for impl in dict.fromkeys(impls)]
        others = [each for _, each in wanted if each is not None]
        found, problems = asked(others)
        if problems:
            raise UserError("\n".join(problems.values()))
        self._found = {impl: each.interpreter() for impl, each in found.items()}

    def of(self, impl: str) -> Interpreter | None:
        """The Python of the implementation; None for the bench's own."""
        return self._found.get(impl)

    def fingerprint(self, facts: Mapping[str, Any], impl: str) -> dict[str, Any]:
        """As `harness.machine.environment.fingerprint`, with the versions of the Python that it runs in."""
        own = self.of(impl)
        if own is None:
            return fingerprint(dict(facts), impl)
        found = fingerprint({**facts, "python": own.python, "versions": own.versions}, impl)
        used = {name: own.versions[name] for name in found["versions"] if name in own.versions}
        return {**found, "versions": used}

    def assigned(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """The trials, each with the Python that it runs in."""
        return tuple(
            trial.model_copy(update={"interpreter": own}) if (own := self.of(trial.impl)) else trial for trial in trials
        )

    def record(self) -> dict[str, Any]:
        """JSON-able: implementation -> path, Python and versions; empty if all run in the bench's own."""
        return {impl: each.model_dump(mode="json") for impl, each in self._found.items()}


def elsewhere(impl: str, recorded: Interpreter | None = None) -> Interpreter | None:
    """The Python in which the implementation is to compute, if that is not this one; `recorded` is what trained.

    A recorded one that is gone does not count. Raises `UserError` as `Interpreters` does.
    """
    suite = {impl: recorded.path} if recorded and Path(recorded.path).exists() else {}
    return Interpreters([impl], suite, "the trial").of(impl)


def not_here(impl: str) -> str | None:
    """Why the implementation does not compute in this Python: it has another one, or is of another version; else None."""
    if given().get(HERE) == impl:
        return None
    found = of_user().get(impl)
    try:
        if found is not None:
            path = found.executable()
            return None if is_own(path) else f"it runs in {path}"
        _chosen(impl, {}, "the suite")
    except UserError as error:
        return str(error)
    return None


def asked(each: Sequence[Chosen]) -> tuple[dict[str, Answer], dict[str, str]]:
    """Implementation -> what its Python says, without those that are the bench's own; or what is wrong with it."""
    found: dict[str, Answer] = {}
    problems: dict[str, str] = {}

    def one(chosen: Chosen) -> Answer | UserError | None:
        try:
            return None if is_own(chosen.executable()) else ask(chosen)
        except UserError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for chosen, answer in zip(each, pool.map(one, each), strict=True):
            if isinstance(answer, UserError):
                problems[chosen.impl] = str(answer)
            elif answer is not None:
                found[chosen.impl] = answer
    return found, problems


def _chosen(impl: str, suite: Mapping[str, str], source: str) -> Chosen | None:
    """The Python chosen for the implementation; None: our own. Raises `UserError` for a label that names none."""
    found = chosen(impl, suite, source)
    entry = registry.resolve(impl)
    if found is not None or entry.label is None:
        return found
    library = library_version(entry, versions(entry.distributions))
    if names_version(entry.label) and library and is_version(entry.label, library[1]):
        return None  # our own has that version
    there = [name for name in {**of_user(), **suite} if name.partition("@")[0] == entry.base]
    known = nearest(impl, there) if there else "."
    own = f" Here is {library[0]} {library[1]}." if library else ""
    raise UserError(
        f"{impl}: there is no environment of that name{known}{own} Make one: capsbench env create {impl}; or name a Python "
        f'in {source} or the configuration: environments: {{"{impl}": /path/to/bin/python}}'
    )
