"""`capsbench run`: its options and what it prints."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.analysis.equivalence import sentence
from harness.commands import parser, registering
from harness.commands.beside import FEW
from harness.commands.output import print_json
from harness.commands.plan import (
    requested,
    surrounding,
)
from harness.commands.running import Outcome, run
from harness.errors import UserError
from harness.journal.results import Result
from harness.text import ended
from harness.views import search as search_view
from harness.views.mlflow.registration import Registered, default_name
from harness.views.mlflow.server import answer_page
from harness.views.mlflow.where import locate, redact
from harness.views.screen import Screen, own_console
from harness.views.tables import comparison, print_table, remarks
from harness.views.tensorboard import FOLDER


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench run`."""
    parser.scheduled(command)
    parser.mlflow(command)
    command.add_argument(
        "--mlflow-required", action="store_true",
        help="start nothing if MLflow cannot be used (exit code 2), and fail if it lacks results at the end (1)",
    )  # fmt: skip
    command.add_argument(
        "--no-mlflow", action="store_true", help="keep the journal only; `capsbench sync` can follow later"
    )
    registering.options(command, "SUITE")
    figures = command.add_mutually_exclusive_group()
    figures.add_argument(
        "--figures", choices=("all", "last", "none"),
        help="of which trials to draw figures at the end, for no longer than the training took: all, the last one of each "
        f"implementation, or none; default: all of up to {FEW} trials, else last; `capsbench figures` can follow later",
    )  # fmt: skip
    figures.add_argument("--no-figures", action="store_true", help="the same as --figures none")
    command.add_argument(
        "--tensorboard", action="store_true",
        help="keep event files for TensorBoard up to date in RUN/tensorboard; `capsbench sync --tensorboard` can follow later",
    )  # fmt: skip
    command.add_argument(
        "--storage", metavar="URL",
        help="keep the run there, too, such as s3://bucket/path or file:///shared: it goes on from there on another machine",
    )  # fmt: skip


def _register(args: argparse.Namespace, outcome: Outcome, console: Console) -> list[Registered] | None:
    """What was registered; None if that failed, which is told."""
    if outcome.interrupted or outcome.stopped:
        return []
    name = registering.wanted(args) or default_name(outcome.suite)
    again = f"{locate(args.out, args.mlflow_uri).sync(outcome.run_dir)} --register {shlex.quote(name)}"
    try:
        chosen = registering.choose(outcome.run_dir)
        found = registering.register(outcome.run_dir, args.mlflow_uri, name, chosen)
    except UserError as error:
        console.print(Text(f"{ended(str(error))} After that is mended: {again}", "red"), soft_wrap=True)
        return None
    registering.show(console, found, locate(args.out, args.mlflow_uri))
    return found


def _show(console: Console, results: Sequence[Result]) -> None:
    if (table := comparison(results)).row_count:  # none as long as a search has confirmed nothing
        print_table(console, table)


def main(args: argparse.Namespace) -> int:
    console = own_console(args.json)
    if not args.no_mlflow and importlib.util.find_spec("mlflow") and (line := locate(args.out, args.mlflow_uri).line):
        console.print(Text(line), soft_wrap=True)
    outcome = run(
        requested(args),
        lambda estimates: Screen(console, estimates),
        lambda results: _show(console, results),
    )
    if outcome.search:
        console.print(Text(f"\n{search_view.TITLE}", "bold"))
        print_table(console, search_view.table(outcome.search))
        for line in (search_view.text(outcome.search), *search_view.notes(outcome.search)):
            console.print(Text(line, "dim"), soft_wrap=True)
    lines = [Text(sentence(pair)) for pair in outcome.equivalence]
    lines += [*remarks(outcome.results, outcome.run_dir), *(Text(warning, "yellow") for warning in outcome.warnings)]
    lines += [Text(line, "yellow") for line in surrounding()]
    for line in [Text(), *lines] if lines else []:
        console.print(line, soft_wrap=True)
    console.print(Text(f"\nJournal, logs and weights: {outcome.run_dir}"), soft_wrap=True)
    if outcome.storage:
        console.print(Text(f"Kept in storage: {outcome.storage}"), soft_wrap=True)
    if outcome.interrupted or outcome.stopped:
        given = [str(outcome.source) if each == str(args.suite) else each for each in sys.argv[1:]]
        again = redact(shlex.join(["capsbench", *given]))
        if outcome.stopped:
            told = f"Stopped: {outcome.stopped}. Nothing finished is lost. After that is mended, to go on: {again}"
            console.print(Text(told, "red"), soft_wrap=True)
        else:
            console.print(Text(f"Interrupted; nothing finished is lost. To go on: {again}", "yellow"), soft_wrap=True)
    elif outcome.mlflow_uri:
        where = "" if args.out == Path("runs") else f" --out {shlex.quote(str(args.out))}"
        where += locate(args.out, args.mlflow_uri).option
        console.print(Text(f"Compare in the browser: capsbench ui{where}"), soft_wrap=True)
        if address := answer_page(outcome.run_dir, outcome.mlflow_uri):
            console.print(Text(f"The answer: {address}"), soft_wrap=True)
    if args.tensorboard:
        told = f"Watch in TensorBoard: tensorboard --logdir {shlex.quote(str(outcome.run_dir / FOLDER))}"
        console.print(Text(told), soft_wrap=True)
    if len({result.seed for result in outcome.results}) > 1 and not (outcome.interrupted or outcome.stopped):
        told = f"Intervals over seeds, differences, published figures: capsbench report {shlex.quote(str(outcome.run_dir))}"
        console.print(Text(told), soft_wrap=True)
    registered = _register(args, outcome, console) if args.register is not None else []
    if args.json:
        added = {} if args.register is None else {"registered": [each.to_json() for each in registered or ()]}
        print_json(outcome.to_json() | added)
    return outcome.exit_code or int(registered is None)
