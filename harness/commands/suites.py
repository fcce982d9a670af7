"""`capsbench suites`: lists the suites that come with the bench, or copies one here to edit."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.padding import Padding
from rich.text import Text

from harness.commands import parser
from harness.commands.output import print_json
from harness.disk import write_atomic
from harness.errors import UserError
from harness.suite.file import read_text
from harness.suite.shipped import Shipped, named, shipped
from harness.views.messages import Console


def copy(name: str, folder: Path, force: bool) -> Path:
    """Copies the shipped suite `name` into `folder`, which is created if needed, and returns the new file.

    Raises `UserError` for an unknown name, a file that already exists (unless `force`), or an unwritable folder.
    """
    text = read_text(named(name))
    path = folder / f"{name}.yaml"
    try:
        if folder.suffix in (".yaml", ".yml") or folder.is_file():
            raise UserError(f"{folder}: expected a folder; the copy is named {path.name}, and can be renamed")
        if path.exists() and not force:
            raise UserError(f"{path} is there already; copy to another folder, or replace it with --force")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name a folder that you may write to") from error
    return path


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench suites`."""
    actions = command.add_subparsers(dest="action", metavar="copy")
    copying = actions.add_parser("copy", description="put a shipped suite into a folder, to edit")
    copying.add_argument("name", metavar="NAME", help="a shipped suite, such as mnist")
    copying.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: this folder")
    copying.add_argument("--force", action="store_true", help="replace a file of that name")
    copying.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=parser.JSON_HELP)


def main(args: argparse.Namespace) -> int:
    if args.action == "copy":
        path = copy(args.name, args.folder, args.force)
        if args.json:
            print_json({"name": args.name, "path": str(path)})
        else:
            Console().print(Text(f"{path}: edit it, then: capsbench plan {path}"), soft_wrap=True)
        return 0
    suites = shipped()
    if args.json:
        print_json({"suites": [suite.to_json() for suite in suites]})
        return 0
    console = Console()
    for suite in suites:
        _show(console, suite)
    console.print("\ncapsbench run NAME runs one; capsbench suites copy NAME puts it here, to edit.", highlight=False)
    return 0


def _show(console: Console, suite: Shipped) -> None:
    usual = re.split(r"[.;] with --quick", suite.how_long, maxsplit=1, flags=re.IGNORECASE)[0].rstrip(".")
    console.print(Text(suite.name, "bold"))
    for line in (Text(suite.question), Text(usual, "dim")):
        console.print(Padding(line, (0, 0, 0, 4), expand=False))
