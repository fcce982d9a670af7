"""`capsbench history`: many runs of one suite, over commits or versions, and where error, time or memory stepped."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from harness import progress
from harness.analysis.history import history
from harness.commands import parser
from harness.commands.output import print_json
from harness.disk import finite
from harness.views.history.page import write
from harness.views.history.screen import show
from harness.views.messages import Console

_DESCRIPTION = """\
Many runs of one suite, over commits or versions, as one page: test error, seconds per epoch and memory of each cell, and
the run with which one of them stepped to another level, with what else is new in that run.

Exit code 2: something that was given is no run of the suite, or there is only one run; what can be shown is shown."""


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench history`."""
    command.description = _DESCRIPTION
    command.formatter_class = parser.Paragraphs
    command.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="a run's directory, or a folder that holds some"
    )
    command.add_argument("--suite", metavar="NAME", help="which suite, if the folders have runs of several")
    command.add_argument(
        "--order", choices=("time", "given"), default="time",
        help="time: as the runs ended; given: as the folders are given; default: time",
    )  # fmt: skip
    command.add_argument(
        "--tolerance", type=float, default=1.0, metavar="PCT",
        help="steps in time and memory below so many percent are not told; default: 1",
    )  # fmt: skip
    command.add_argument(
        "--html", type=Path, default=Path("history.html"), metavar="FILE", help="the page; default: history.html"
    )


def main(args: argparse.Namespace) -> int:
    with progress.task("looking for steps"):
        found = history(args.folders, args.suite, by_time=args.order == "time", tolerance_pct=args.tolerance)
    console = Console(stderr=args.json)
    show(console, found)
    with progress.task("drawing the page"):
        write(found, args.html)
    console.print(Text(f"Page: {args.html}"), soft_wrap=True)
    if args.json:
        print_json(finite({**found.to_json(), "page": str(args.html)}))
    return 2 if found.problems else 0
