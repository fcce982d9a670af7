"""`capsbench compare`: two runs of one suite side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import progress
from harness.analysis.compare import compare
from harness.commands import ci_files
from harness.commands.output import print_json
from harness.views.ci.comparison import junit, summary
from harness.views.compare import show
from harness.views.messages import Console


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench compare`."""
    command.add_argument("run_a", type=Path, metavar="A", help="a run's directory: what to compare with")
    command.add_argument("run_b", type=Path, metavar="B", help="a run's directory: what is perhaps worse")
    command.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="PCT",
        help="by how many percent time and memory may rise and still be no regression; default: 1",
    )
    ci_files.options(command)


def main(args: argparse.Namespace) -> int:
    ci_files.check(args)
    with progress.task("comparing"):
        comparison = compare(args.run_a, args.run_b, args.tolerance)
    show(Console(stderr=args.json), comparison)
    ci_files.write(args, lambda: junit(comparison), lambda: summary(comparison))
    if args.json:
        print_json(comparison.to_json())
    return 0 if comparison.ok else 1
