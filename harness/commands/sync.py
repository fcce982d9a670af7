"""TODO(docstring)."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from harness.commands.common import _print_json


def _sync(args: argparse.Namespace) -> int:
    from harness.views.mlflow.tracking import sync

    report = sync(args.run_dir, args.mlflow_uri)
    if args.json:
        _print_json(asdict(report))
    else:
        Console().print(
            Text(f"{report.uri}: {report.trials} trials of {report.experiment}, {report.events} new events"),
            soft_wrap=True,
        )
    return 0
