"""TODO(docstring)."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.commands.common import _print_json


def _data(args: argparse.Namespace) -> int:
    from harness import data
    from harness.views.tables import print_data

    if args.action == "show":
        from harness.views.sheet import show

        shown = show(args.name, args.dir, args.out or Path(f"{args.name}.png"))
        console = Console(stderr=args.json)
        for line in (shown["provenance"], *(f"Sheet: {split['sheet']}" for split in shown["splits"].values())):
            console.print(Text(line), soft_wrap=True)
        if args.json:
            _print_json(shown)
        return 0
    rows = data.list_datasets(args.dir) if args.action == "list" else [data.fetch(args.name, args.dir)]
    if args.json:
        _print_json({"datasets": rows})
    else:
        print_data(Console(), rows)
    return 0
