"""`capsbench verify`: what of a published run is confirmed, what could not be checked, and what is false."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from harness import progress, registry
from harness.commands.output import print_json, tell
from harness.commands.parity import ParityRequest, parity
from harness.errors import UserError
from harness.publishing import checks, crate
from harness.publishing.checks import Asked, Row, Run, Tell
from harness.views.messages import Console
from harness.views.tables import print_table

_COLORS = {"confirmed": "green", "not checked": "yellow", "false": "bold red"}


@dataclass(frozen=True)
class Verified:
    """What was found, statement by statement."""

    path: Path
    rows: list[Row]
    missing: list[str]  # files that the crate should have

    @property
    def exit_code(self) -> int:
        """2 if files are missing, 1 if anything is false."""
        return 2 if self.missing else int(any(row.state == "false" for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """The output of `verify --json`."""
        return {
            "crate": str(self.path),
            "ok": self.exit_code == 0,
            "missing": self.missing,
            "checks": [row.to_json() for row in self.rows],
        }


def verify(path: Path, asked: Asked, tell: Tell, *, sha256: str | None = None, again: bool = False) -> Verified:
    """Checks a crate; `tell` gets a line whenever an implementation begins or ends its climb.

    Args:
        sha256: what the SHA-256 of the metadata is known to be.
        again: whether the implementations climb the ladder of `capsbench parity` with the crate's suite.

    Raises `UserError` for what is no crate.
    """
    with progress.task(f"verifying {path.name}"), crate.opened(path) as folder:
        rows = list(_rows(path, folder, asked, tell, sha256))
        if again:
            rows += _parity(folder, asked, tell)
        return Verified(path, rows, checks.missing(folder))


def _rows(path: Path, folder: Path, asked: Asked, tell: Tell, sha256: str | None) -> Iterator[Row]:
    found = crate.sha256(folder / crate.metadata.NAME)
    if sha256 and sha256.lower() == found:
        yield Row("origin", "confirmed", f"the metadata's SHA-256 is {found}")
    elif sha256:
        yield Row("origin", "false", f"the metadata's SHA-256 is {found}, not {sha256}")
    else:
        yield Row(
            "origin", "not checked", "whoever changes a crate can seal it anew; --sha256, as its author stated it"
        )
    yield from checks.files(path, folder)
    try:
        run = Run(folder)
    except UserError as error:
        yield Row("results", "false", f"the run cannot be read: {error}".replace(f"{folder}/", ""))
        return
    tests = checks.test_images()
    yield from checks.results(run)
    yield from checks.errors(run)
    yield from checks.retested(run)
    yield from checks.labels(run, tests)
    if asked.impls:
        yield from checks.weights(run, tests, asked)
    else:
        yield Row("weights", "not checked", "not asked for")


def _parity(folder: Path, asked: Asked, tell: Tell) -> Iterator[Row]:
    impls = [impl for impl in asked.impls if impl != registry.SPECIFICATION]
    try:
        outcome = parity(ParityRequest(suite=folder / "suite.yaml", impls=impls, track=False), tell)
    except UserError as error:
        yield Row("parity", "not checked", str(error).partition("\n")[0])
        return
    for report in outcome.reports:
        state = "confirmed" if report.ok else "false"
        worst = "" if report.ok else f", {report.worst.name}"
        yield Row("parity", state, f"{report.impl} {report.precision}: up to {outcome.level}{worst}")


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench verify`."""
    command.add_argument("crate", type=Path, metavar="PATH", help="what `capsbench publish` wrote: a folder or a ZIP")
    command.add_argument("--sha256", metavar="HEX", help="of the metadata, as its author stated it")
    command.add_argument(
        "--impl", action="append", metavar="NAME",
        help="recompute predictions with this implementation alone; may be repeated; none: with no one. Default: every "
        "framework installed here on all test images, and the specification on a sample",
    )  # fmt: skip
    command.add_argument("--images", type=int, metavar="N", help="at most so many test images; default: all")
    command.add_argument(
        "--sample", type=int, default=Asked.sample, metavar="N", help=f"for the specification; default: {Asked.sample}"
    )
    command.add_argument(
        "--parity", action="store_true", help="compare the implementations here with the specification, too"
    )


def main(args: argparse.Namespace) -> int:
    for name in ("images", "sample"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: expected a whole number of at least 1")
    asked = Asked(_impls(args.impl), args.images, args.sample)
    found = verify(args.crate, asked, tell, sha256=args.sha256, again=args.parity)
    _show(Console(stderr=args.json), found)
    if args.json:
        print_json(found.to_json())
    return found.exit_code


def _impls(named: list[str] | None) -> list[str]:
    if named == ["none"]:
        return []
    if named:
        for name in named:
            if reason := registry.missing(registry.resolve(name)):
                raise UserError(f"--impl {name}: {reason}")
        return list(dict.fromkeys(named))
    able = [name for name in registry.FRAMEWORKS if registry.missing(registry.resolve(name)) is None]
    return [*able, registry.SPECIFICATION]


def _show(console: Console, found: Verified) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("what", "state", "detail"):
        table.add_column(title, no_wrap=title != "detail")
    for row in found.rows:
        table.add_row(row.what, Text(row.state, _COLORS[row.state]), Text(row.detail))
    print_table(console, table)
    console.print()
    counts = {state: sum(row.state == state for row in found.rows) for state in _COLORS}
    if found.missing:
        listed = ", ".join(found.missing[:5]) + (" ..." if found.missing[5:] else "")
        verdict = Text(f"{found.path} lacks {len(found.missing)} of its files: {listed}. Fetch it again.", "bold red")
    elif counts["false"]:
        verdict = Text(f"{found.path} is not what it claims to be: {counts['false']} statements are false.", "bold red")
    else:
        left = f"; {counts['not checked']} not checked" if counts["not checked"] else ""
        verdict = Text(f"{found.path}: all that was checked is confirmed{left}.", "green")
    console.print(verdict, soft_wrap=True)
