"""`capsbench env`: makes, lists and removes environments, in which frameworks or versions run apart from the others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from harness import registry
from harness.commands import parser
from harness.commands.output import print_json
from harness.commands.probes import probe
from harness.environments.chosen import Chosen, config_path, folder, of_user
from harness.environments.create import Wanted, create, remove
from harness.environments.interpreters import asked
from harness.errors import Stopped, UserError
from harness.views.messages import Console
from harness.views.tables import print_table

_IMPORT_S = 300.0
_EXAMPLE = f"{registry.FRAMEWORKS[0]}@2.12"


def listing() -> list[dict[str, Any]]:
    """The user's environments as JSON: what each has, or what is wrong with it."""
    known = list(of_user().values())
    usable: list[Chosen] = []
    problems: dict[str, str] = {}
    for each in known:
        try:
            registry.resolve(each.impl)
            usable.append(each)
        except UserError as error:
            problems[each.impl] = str(error)
    answers, broken = asked(usable)
    problems |= broken
    rows: list[dict[str, Any]] = []
    for each in known:
        answer = answers.get(each.impl)
        rows.append(
            {
                "name": each.impl,
                "python": answer.path if answer else each.python,
                "source": each.source,
                "state": "broken" if each.impl in problems else "ok",
                "problem": problems.get(each.impl),
                "python_version": answer.python if answer else None,
                "versions": answer.versions if answer else {},
                "capsbench": answer.installed if answer else None,
            }
        )
    return rows


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench env`."""
    command.description = (
        "Environments: an implementation can run in another Python than capsbench's own, so that frameworks that cannot "
        f"be installed together, or versions of one, compete all the same. Trials of {_EXAMPLE} run in the environment of "
        "that name. docs/environments.md says more."
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="create|list|remove")
    creating = actions.add_parser(
        "create", description="make an environment, by uv if it is installed, else by venv and pip"
    )
    creating.add_argument(
        "name", metavar="NAME",
        help=f"{', '.join(registry.FRAMEWORKS)}: for all trials of that name; or with a version, such as {_EXAMPLE}: a "
        "contestant of that name",
    )  # fmt: skip
    creating.add_argument("--gpu", action="store_true", help="the build for NVIDIA GPUs")
    creating.add_argument("--path", type=Path, metavar="DIR", help=f"a new folder for it; default: one in {folder()}")
    creating.add_argument("--python", metavar="PY", help="the Python to base it on; default: capsbench's own")
    creating.add_argument("--index", metavar="URL", help="look for packages in this index, too")
    creating.add_argument(
        "--with", dest="more", action="append", default=[], metavar="REQUIREMENT",
        help='install this, too, such as "scipy<1.16"; may be given several times',
    )  # fmt: skip
    list_ = actions.add_parser("list", description="list the environments, and what is wrong with them")
    removing = actions.add_parser("remove", description="remove an environment that capsbench has made")
    removing.add_argument("name", metavar="NAME")
    for each in (creating, list_, removing):
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=parser.JSON_HELP)


def main(args: argparse.Namespace) -> int:
    if args.action == "create":
        return _create(args)
    if args.action == "remove":
        place = remove(args.name)
        if args.json:
            print_json({"name": args.name, "path": str(place)})
        else:
            Console().print(Text(f"{args.name}: removed {place}"), soft_wrap=True)
        return 0
    rows = listing()
    if args.json:
        print_json({"environments": rows, "config": str(config_path()), "folder": str(folder())})
    else:
        _show(Console(), rows)
    return int(any(row["state"] == "broken" for row in rows))


def _create(args: argparse.Namespace) -> int:
    wanted = Wanted(args.name, args.gpu, args.path, tuple(args.more), args.index, args.python)
    console = Console(stderr=True)
    console.print(Text(f"{args.name}: installing {', '.join(wanted.requirements())}", "dim"), soft_wrap=True)
    place = create(wanted, lambda line: console.print(Text(line, "dim"), soft_wrap=True))
    chosen = Chosen(args.name, str(place), "made by capsbench env create", place)
    answers, problems = asked([chosen])
    if problems:
        raise Stopped(problems[args.name])
    answer = answers[args.name]
    check = probe(registry.resolve(args.name), answer.path, _IMPORT_S)  # imports the framework, once
    if check.state != "ok":
        raise Stopped(f"{args.name}: {place} was made, but does not work: {check.detail}; {check.advice}")
    if args.json:
        print_json({"name": args.name, "path": str(place), "python": answer.path, **_facts(check, answer.python)})
        return 0
    told = f"{args.name}: {check.detail}, Python {answer.python}, in {place}"
    Console().print(Text(told), soft_wrap=True)
    if registry.resolve(args.name).label:
        use = f"Use it: capsbench run quickstart -s impl={args.name.partition('@')[0]},{args.name}"
    else:
        use = f"Trials of {args.name} now run in it; capsbench env remove {args.name} ends that."
    Console().print(Text(use), soft_wrap=True)
    return 0


def _facts(check: Any, python: str) -> dict[str, Any]:
    return {"python_version": python, "versions": check.versions, "devices": check.devices}


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        told = f"No environment: everything runs in {sys.executable}. Make one: capsbench env create {_EXAMPLE}"
        console.print(Text(told), soft_wrap=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in ("name", "state", "detail"):
        table.add_column()
    for row in rows:
        colour = "green" if row["state"] == "ok" else "red"
        used = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        another = f"; its own capsbench {row['capsbench']} is not used" if row["capsbench"] else ""
        detail = row["problem"] or f"Python {row['python_version']}, {used}{another}" if row["python_version"] else None
        own = "the Python of capsbench itself"
        table.add_row(Text(row["name"], "bold"), Text(row["state"], colour), Text(row["problem"] or detail or own))
        table.add_row("", "", Text(f"{row['python']} ({row['source']})", "dim"))
    print_table(console, table)
