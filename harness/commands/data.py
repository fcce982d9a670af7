"""`capsbench data`: fetches, lists and shows the data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from harness import progress
from harness.commands import parser
from harness.commands.output import print_json
from harness.views.messages import Console

if TYPE_CHECKING:
    from harness.spec.trial import DataConfig


_NAMED = {
    False: "a data set's name, such as mnist",
    True: "a data set's name, such as mnist; or a suite, for its data (your own pictures)",
}


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench data`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="list|fetch|show")
    listing, fetch, show = (actions.add_parser(name) for name in ("list", "fetch", "show"))
    for each in (fetch, show):
        each.add_argument("name", help=_NAMED[each is show])
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

        with progress.task(f"drawing {args.name}", in_logs_alone=True):
            shown = show(_config(args.name, args.dir), args.out or Path(f"{Path(args.name).stem}.png"))
        console = Console(stderr=args.json)
        for line in (
            shown["provenance"],
            *shown["notes"],
            *(f"Sheet: {split['sheet']}" for split in shown["splits"].values()),
        ):
            console.print(Text(line), soft_wrap=True)
        if args.json:
            print_json(shown)
        return 0
    if args.action == "list":
        rows = data.list_datasets(args.dir)
    else:
        with progress.task(
            f"fetching {args.name}", in_logs_alone=True
        ):  # on a terminal, what is made has a bar of its own
            rows = [data.fetch(args.name, args.dir)]
    if args.json:
        print_json({"datasets": rows})
    else:
        print_data(Console(), rows)
        if args.action == "list":
            own = "Your own pictures: data.name folder, npz, csv, idx or module in a suite (docs/own-data.md)."
            Console().print(Text(own, "dim"), soft_wrap=True)
    return 0


def _config(name: str, directory: str | None) -> DataConfig:
    """The data set of that name, or the data of the suite of that name. Raises `UserError`."""
    from harness import data
    from harness.data.own import FORMATS
    from harness.errors import UserError
    from harness.spec.trial import DataConfig

    if name in FORMATS:
        raise UserError(
            f"{name}: your own pictures are described in a suite; capsbench data show SUITE.yaml draws them"
        )
    if name in data.names() or not (Path(name).exists() or name.endswith((".yaml", ".yml"))):
        data.require(name)
        return DataConfig(name=name, dir=directory)
    from harness.suite.suite import load_suite

    config = load_suite(name).data
    return config.model_copy(update={"dir": directory}) if directory else config
