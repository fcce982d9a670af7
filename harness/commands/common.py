"""Shared by the commands that build their own suite: that suite, which implementations are installed, their logs."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import progress, registry
from harness.disk import file_lock, obstacle
from harness.environments.interpreters import Interpreters
from harness.errors import UserError
from harness.executors.holders import with_runs
from harness.suite.suite import Suite, load_suite
from harness.supervisor.parity import Climb, Tell


def suite_or_built_in(path: Path | None, built_in: str, overrides: Sequence[str]) -> Suite:
    """The suite at `path`, or else the one whose text is `built_in`. Raises `UserError`."""
    if path:
        return load_suite(path, overrides)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "built-in.yaml"
        written.write_text(built_in, encoding="utf-8")
        try:
            return load_suite(written, overrides)
        except UserError as error:
            raise UserError(str(error).replace(str(written), "the built-in setting")) from error


def installed(impls: Sequence[str], pythons: Interpreters, *, named: bool) -> tuple[list[str], list[str]]:
    """Those installed, and a line for each that is not. Raises `UserError` if a missing one was `named`, or all are."""
    own = [name for name in impls if pythons.of(name) is None]
    absent = {name: reason for name in own if (reason := registry.missing(registry.resolve(name)))}
    lines = [f"{name}: {reason}" for name, reason in absent.items()]
    if absent and (named or len(absent) == len(impls)):
        raise UserError("; ".join(lines))
    return [name for name in impls if name not in absent], lines


@contextmanager
def following(climbs: Sequence[Climb], tell: Tell) -> Generator[Tell]:
    """For `run_climbs`: tells the same, and how many of the climbs have ended."""
    ended = re.compile(r": (ok|right with conventions|FAILED)( at L\d)?$")
    with progress.task("comparing with the specification", len(climbs)) as comparing:

        def told(line: str) -> None:
            tell(with_runs(line))
            if ended.search(line):
                comparing.advance()

        yield told


@contextmanager
def log_folder(out: Path, name: str) -> Generator[Path, None, None]:
    """`name` in the output folder, reserved during the `with` block: a second command meanwhile gets `name-2`."""
    for number in itertools.count(1):
        folder = out / (name if number == 1 else f"{name}-{number}")
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                is_ours = held.enter_context(file_lock(folder / ".lock", 0))
            except OSError as error:
                raise UserError(
                    f"cannot write logs to {folder}: {obstacle(folder) or error.strerror}; choose another folder with --out DIR"
                ) from error
            if is_ours:
                yield folder
                return
