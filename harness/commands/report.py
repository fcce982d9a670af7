"""`capsbench report`: what one or several runs say, on the screen and as files."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from harness import progress
from harness.commands.output import print_json, tell
from harness.commands.reporting import Written, report, side_by_side
from harness.errors import UserError, nearest
from harness.views.messages import Console
from harness.views.report.files import DEFAULT, FORMATS
from harness.views.report.page import Section
from harness.views.report.speed import read
from harness.views.tables import print_table

__all__ = ["Written", "main", "options", "report", "show"]


def show(console: Console, written: Written) -> None:
    """Prints the answer, every section, and where the files are."""
    for line in [*written.answer.sentences, *written.answer.notes]:
        console.print(Text(line), soft_wrap=True)
    console.print()
    show_sections(console, written.sections)
    for path in written.figures:
        console.print(Text(f"Figure: {path}"), soft_wrap=True)


def show_sections(console: Console, found: Sequence[Section]) -> None:
    """Prints these sections."""
    for section in found:
        console.print(Text(f"{section.title}\n", "bold"), end="")
        if section.text:
            console.print(Text(section.text, "dim"), soft_wrap=True)
        if section.table:
            print_table(console, section.table)
        for line in [*section.notes, ""]:
            console.print(Text(line), soft_wrap=True)


def _show_files(console: Console, pages: Sequence[Path], tables: Sequence[Path]) -> None:
    for title, paths in (("Report", pages), ("Tables", tables)):
        if paths:
            console.print(Text(f"{title}: {', '.join(map(str, paths))}"), soft_wrap=True)


def _formats(given: str) -> list[str]:
    found = [each.strip().lower() for each in given.split(",")]
    if unknown := [each for each in found if each not in FORMATS]:
        raise UserError(f'--format: unknown form "{unknown[0]}"{nearest(unknown[0], FORMATS)}')
    return found


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench report`."""
    command.add_argument(
        "run_dir", type=Path, nargs="+", metavar="RUN",
        help="a run's directory, such as runs/scaling; several stand side by side, the first being compared with each other",
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where files are written; default: RUN/report, of several runs report-with-OTHERS in the first; of what was "
        "published, in from-RUN here, since it must stay as it is",
    )  # fmt: skip
    command.add_argument(
        "--speed", type=Path, metavar="FILE",
        help="what `capsbench speed --json` printed: shows a step's parts and its distance to the machine's floor as well",
    )  # fmt: skip
    command.add_argument(
        "--format", action="append", default=[], metavar="FORM",
        help=f"{', '.join(FORMATS)}; several with commas or one after another; default: {','.join(DEFAULT)}",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    formats = list(itertools.chain.from_iterable(map(_formats, args.format))) or list(DEFAULT)
    run_dirs = list(dict.fromkeys(args.run_dir))
    with progress.task(f"making a report of {' and '.join(each.name for each in run_dirs)}"):
        made = side_by_side(run_dirs, args.out, formats, read(args.speed) if args.speed else None)
    console = Console(stderr=args.json)
    for problem in made.problems:
        tell(f"capsbench: {problem}", "red")
    show_sections(console, made.sections[bool(made.problems) :])
    for run_dir, run in zip((run.cost.run_dir for run in made.runs), made.runs, strict=True):
        if len(made.runs) > 1:
            console.print(Text(f"{run_dir}\n", "bold"))
        show(console, run)
    _show_files(console, made.pages, made.tables)
    if args.json:
        document = made.to_json() if len(run_dirs) > 1 else made.runs[0].to_json()
        print_json(document | ({"error": "\n".join(made.problems)} if made.problems else {}))
    return 2 if made.problems else 0
