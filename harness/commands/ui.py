"""`capsbench ui`: opens MLflow's pages on this machine, or to others where that is asked for."""

from __future__ import annotations

import argparse

from harness.commands import parser
from harness.views.mlflow.addresses import LOOPBACK
from harness.views.mlflow.server import serve


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench ui`."""
    parser.out(command)
    parser.mlflow(command)
    command.add_argument(
        "--host", default=LOOPBACK, metavar="H",
        help=f"the address to listen on; default: {LOOPBACK}, this machine only; 0.0.0.0: whoever can reach this machine",
    )  # fmt: skip
    command.add_argument("--port", type=int, default=5000, help="default: 5000, or the next free one")
    command.add_argument("--no-browser", action="store_true", help="print the address only")


def main(args: argparse.Namespace) -> int:
    serve(args.out, args.mlflow_uri, args.port, open_browser=not args.no_browser, host=args.host)
    return 0
