"""`capsbench data`: fetches, lists and shows the data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.commands import parser
from harness.commands.output import print_json


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench data`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="list|fetch|show")
    listing, fetch, show = (actions.add_parser(name) for name in ("list", "fetch", "show"))
    for each in (fetch, show):
        each.add_argument("name", help="a data set's name, such as mnist")
    show.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="FILE.png: sheets are FILE-train.png, FILE-validation.png, FILE-test.png; default: NAME.png",
    )
    for each in (listing, fetch, show):
        each.add_argument("--dir", help="where files are kept; default: CAPSBENCH_DATA, or the user's cache")
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=parser.JSON_HELP)


def main(args: argparse.Namespace) -> int:
    from harness import data
    from harness.views.tables import print_data

    if args.action == "show":
        from harness.views.sheet import show

        shown = show(args.name, args.dir, args.out or Path(f"{args.name}.png"))
        console = Console(stderr=args.json)
        for line in (shown["provenance"], *(f"Sheet: {split['sheet']}" for split in shown["splits"].values())):
            console.print(Text(line), soft_wrap=True)
        if args.json:
            print_json(shown)
        return 0
    rows = data.list_datasets(args.dir) if args.action == "list" else [data.fetch(args.name, args.dir)]
    if args.json:
        print_json({"datasets": rows})
    else:
        print_data(Console(), rows)
    return 0
