"""`capsbench sync`: sends a run's journal to MLflow."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from harness.commands import parser
from harness.commands.output import print_json
from harness.views.mlflow.tracking import sync
from harness.views.mlflow.where import locate, shown


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench sync`."""
    parser.run_dir(command)
    parser.mlflow(command)


def main(args: argparse.Namespace) -> int:
    if line := locate(args.run_dir.parent, args.mlflow_uri).line:
        Console(stderr=True).print(Text(line), soft_wrap=True)
    report = sync(args.run_dir, args.mlflow_uri)
    if args.json:
        print_json(asdict(report))
    else:
        Console().print(
            Text(f"{shown(report.uri)}: {report.trials} trials of {report.experiment}, {report.events} new events"),
            soft_wrap=True,
        )
    return 0
