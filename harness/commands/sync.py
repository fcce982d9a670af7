"""`capsbench sync`: sends a run's journal to MLflow, or writes it as event files for TensorBoard."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict

from rich.text import Text

from harness import progress
from harness.commands import parser
from harness.commands.output import print_json
from harness.errors import UserError
from harness.views.messages import Console
from harness.views.mlflow.tracking import sync
from harness.views.mlflow.where import locate, shown
from harness.views.tensorboard import write_all


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench sync`."""
    parser.run_dir(command)
    parser.mlflow(command)
    command.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files for TensorBoard, to RUN/tensorboard, and leave MLflow",
    )


def main(args: argparse.Namespace) -> int:
    if args.tensorboard:
        return _tensorboard(args)
    if line := locate(args.run_dir.parent, args.mlflow_uri).line:
        Console(stderr=True).print(Text(line), soft_wrap=True)
    with progress.task(f"bringing {args.run_dir.name} into MLflow"):
        report = sync(args.run_dir, args.mlflow_uri)
    if args.json:
        print_json(asdict(report))
    else:
        Console().print(
            Text(f"{shown(report.uri)}: {report.trials} trials of {report.experiment}, {report.events} new events"),
            soft_wrap=True,
        )
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
