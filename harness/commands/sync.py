"""`capsbench sync`: sends a run's journal to MLflow, or writes it as event files for TensorBoard."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict

from rich.text import Text

from harness import progress
from harness.commands import parser, registering
from harness.commands.output import print_json, tell
from harness.errors import UserError
from harness.journal.directory import require_run
from harness.views.messages import Console
from harness.views.mlflow.tracking import sync
from harness.views.mlflow.where import locate, shown
from harness.views.tensorboard import write_all


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench sync`."""
    parser.run_dir(command)
    parser.mlflow(command)
    registering.options(command, "RUN")
    command.add_argument(
        "--trial",
        metavar="TRIAL",
        help="with --register: this trial, by the beginning of its id, instead of the best ones",
    )
    command.add_argument(
        "--impl", metavar="X", help="with --register: the implementation that computes; default: the one that trained"
    )
    command.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files for TensorBoard, to RUN/tensorboard, and leave MLflow",
    )


def main(args: argparse.Namespace) -> int:
    registering.refused_with(args)
    if args.tensorboard:
        return _tensorboard(args)
    chosen, name, where = [], "", locate(args.run_dir.parent, args.mlflow_uri)
    if args.register is not None:
        suite = str(require_run(args.run_dir).get("suite"))
        registering.named(args.impl)
        chosen = registering.choose(args.run_dir, args.trial, args.impl)
        name = registering.require(registering.wanted(args), suite, where, args.run_dir.parent)
    if line := where.line:
        Console(stderr=True).print(Text(line), soft_wrap=True)
    with progress.task(f"bringing {args.run_dir.name} into MLflow"):
        report = sync(args.run_dir, args.mlflow_uri)
    registered = registering.register(args.run_dir, args.mlflow_uri, name, chosen)
    if args.json:
        added = {"registered": [each.to_json() for each in registered]} if args.register is not None else {}
        print_json(asdict(report) | added)
    else:
        Console().print(
            Text(f"{shown(report.uri)}: {report.trials} trials of {report.experiment}, {report.events} new events"),
            soft_wrap=True,
        )
        registering.show(Console(), registered, where)
    for note in report.notes:
        tell(note, "yellow")
    return 0


def _tensorboard(args: argparse.Namespace) -> int:
    if args.mlflow_uri:
        raise UserError("--tensorboard writes files and --mlflow-uri names a server: give one of them")
    with progress.task("writing event files"):
        folder, trials, points = write_all(args.run_dir)
    if args.json:
        print_json({"logdir": str(folder), "trials": trials, "points": points})
    else:
        console = Console()
        console.print(Text(f"{folder}: {trials} trials, {points:,} points"), soft_wrap=True)
        console.print(Text(f"To see them: tensorboard --logdir {shlex.quote(str(folder))}"), soft_wrap=True)
    return 0
