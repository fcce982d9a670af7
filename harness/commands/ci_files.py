"""--junit and --markdown: verdicts as files for CI, checked before anything is started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from harness.disk import obstacle, write_atomic
from harness.errors import UserError

_SUMMARY = "GITHUB_STEP_SUMMARY"


def options(command: argparse.ArgumentParser) -> None:
    """Adds --junit and --markdown."""
    command.add_argument(
        "--junit", type=Path, metavar="FILE", help="write the verdict as JUnit XML, a case a comparison"
    )
    command.add_argument(
        "--markdown", type=Path, metavar="FILE",
        help=f"write it as Markdown; to a file that ${_SUMMARY} names, it is added",
    )  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Makes the folders. Raises `UserError` for a file that could not be written."""
    given = {option: path for option in ("--junit", "--markdown") if (path := getattr(args, option[2:]))}
    for option, path in given.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(option, path, error) from error
        if path.is_dir():
            raise UserError(f"{option} {path}: a folder; expected a file")
        if blocked := obstacle(path.parent):
            raise UserError(f"{option} {path}: {blocked}; choose another file")
    if len(given) == 2 and os.path.realpath(args.junit) == os.path.realpath(args.markdown) and _is_file(args.junit):
        raise UserError(f"--junit and --markdown both name {args.junit}; give each a file of its own")


def write(args: argparse.Namespace, junit: Callable[[], str], markdown: Callable[[], str]) -> None:
    """Writes what was asked for. Raises `UserError` if it cannot be written."""
    for option, path, made in (("--junit", args.junit, junit), ("--markdown", args.markdown, markdown)):
        if not path:
            continue
        try:
            if option == "--markdown" and _is_summary(path):
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{made()}\n")
            else:
                write_atomic(path, made())
        except OSError as error:
            raise _unwritable(option, path, error) from error


def _is_summary(path: Path) -> bool:
    named = os.environ.get(_SUMMARY)
    return bool(named) and os.path.realpath(path) == os.path.realpath(str(named))


def _is_file(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _unwritable(option: str, path: Path, error: OSError) -> UserError:
    return UserError(f"{option} {path}: {obstacle(path.parent) or error.strerror}; choose another file")
