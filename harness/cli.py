"""The command line. Exit codes: 0 good, 1 a trial, parity or comparison failed, 2 the request was wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.text import Text

from harness.arguments import parser
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.run import Request


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `capsbench` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        args = parser().parse_args(arguments)
        code = _COMMANDS[args.command](args)
    except UserError as error:
        Console(stderr=True).print(Text(f"capsbench: {error}", "red"), soft_wrap=True)
        if as_json:
            _print_json({"error": str(error)})
        code = 2
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        if as_json:
            _print_json({"error": "interrupted"})
        code = 130
    sys.exit(code)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


def _run(args: argparse.Namespace) -> int:
    from harness import run as running
    from harness.equivalence import sentence
    from harness.screen import Screen, own_console
    from harness.tables import comparison, print_table, remarks

    console = own_console(args.json)
    outcome = running.run(_request(args), lambda estimates: Screen(console, estimates))
    print_table(console, comparison(outcome.results))
    lines = [Text(sentence(pair)) for pair in outcome.equivalence]
    lines += [*remarks(outcome.results, outcome.run_dir), *(Text(warning, "yellow") for warning in outcome.warnings)]
    for line in [Text(), *lines] if lines else []:
        console.print(line, soft_wrap=True)
    console.print(Text(f"\nJournal, logs and weights: {outcome.run_dir}"), soft_wrap=True)
    if outcome.interrupted:
        again = shlex.join(["capsbench", *sys.argv[1:]])
        console.print(Text(f"Interrupted; nothing finished is lost. To go on: {again}", "yellow"), soft_wrap=True)
    elif outcome.mlflow_uri:
        where = "" if args.out == Path("runs") else f" --out {shlex.quote(str(args.out))}"
        where += f" --mlflow-uri {shlex.quote(args.mlflow_uri)}" if args.mlflow_uri else ""
        console.print(Text(f"Compare in the browser: capsbench ui{where}"), soft_wrap=True)
    if len({result.seed for result in outcome.results}) > 1 and not outcome.interrupted:
        told = f"Intervals over seeds, differences, published figures: capsbench report {shlex.quote(str(outcome.run_dir))}"
        console.print(Text(told), soft_wrap=True)
    if args.json:
        _print_json(outcome.to_json())
    return outcome.exit_code


def _plan(args: argparse.Namespace) -> int:
    from harness import run as running
    from harness.tables import duration, plan_table, print_table

    request = _request(args)
    executor, note = running.make_executor(request)
    try:
        plan = running.make_plan(request, executor)
    finally:
        executor.close()
    console = Console(stderr=args.json)
    if args.json:
        _print_json(plan.to_json())
        return 0
    rows = [plan.row(trial) for trial in plan.trials]
    print_table(console, plan_table(rows))
    todo = [row["estimate_s"] for row in rows if row["state"] not in ("finished", "unavailable")]
    most = "at most" if any(row["at_most"] for row in rows) else "about"
    total = "time unknown until one has run" if None in todo else f"{most} {duration(sum(todo))}, one after another"
    console.print(f"\n{len(todo)} of {len(rows)} trials to run{f': {total}' if todo else ''}.", highlight=False)
    for line in [note, *running.reasons(plan)]:
        if line:
            console.print(Text(line, "yellow"), soft_wrap=True)
    return 0


def _summary(args: argparse.Namespace) -> int:
    from harness.suite import load_suite
    from harness.summary import summaries, table
    from harness.tables import print_table

    suite = load_suite(args.suite, args.overrides)
    found = summaries(suite.trials(2**16, lambda _: {}))  # on whatever machine
    if args.json:
        _print_json({"suite": suite.name, "models": [summary.to_json() for summary in found]})
        return 0
    for summary in found:
        print_table(Console(), table(summary))
    return 0


def _request(args: argparse.Namespace) -> Request:
    from harness.run import Request

    request = Request(args.suite, args.overrides, args.quick, args.out, args.executor, args.ray_address)
    if args.command == "plan":
        return request
    return replace(request, mlflow_uri=args.mlflow_uri, track=not args.no_mlflow, figures=not args.no_figures)


def _parity(args: argparse.Namespace) -> int:
    from harness.parity.command import Request as ParityRequest
    from harness.parity.command import parity
    from harness.parity.show import show

    if args.other:
        for name in (str(args.suite), args.other):
            if Path(name).suffix in (".yaml", ".yml") or Path(name).is_dir():
                raise UserError(
                    f'found "{args.suite}" and "{args.other}", but one suite or run is checked at a time; two names are two '
                    "models, implementations, or files of weights"
                )
        return _parity_of_two(args)
    if args.model:
        return _parity_of_model(args)
    for option in ("model_args", "loss", "loss_args", "weights"):
        if getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} is about the model that --model FILE.py:NAME names")
    if args.suite and args.suite.is_dir():
        return _parity_of_run(args)
    console = Console(stderr=args.json)
    request = ParityRequest(
        args.suite, args.overrides, args.impls, args.level or "L6", args.precision, args.time_limit, args.out,
        args.mlflow_uri, not args.no_mlflow, args.accept,
    )  # fmt: skip
    outcome = parity(request, _tell)
    show(console, outcome.reports, outcome.logs, outcome.level)
    for line in outcome.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    if outcome.mlflow_uri:
        console.print(Text(f"Recorded in MLflow: {outcome.mlflow_uri}"), soft_wrap=True)
    if args.json:
        _print_json(outcome.to_json())
    return 0 if outcome.ok else 1


def _speed(args: argparse.Namespace) -> int:
    from harness.speed.command import Request as SpeedRequest
    from harness.speed.command import speed
    from harness.speed.show import show

    request = SpeedRequest(
        args.suite, args.overrides, args.impl, args.precision, args.batch, args.routing, args.rounds, args.steps,
        args.matmul, not args.no_gate, args.trace, args.time_limit, args.out,
    )  # fmt: skip
    document = speed(request, _tell)
    show(Console(stderr=args.json), document)
    if args.json:
        _print_json(document)
    return 0 if document["ok"] else 1


def _tell(line: str) -> None:
    Console(stderr=True).print(Text(line, "dim"), soft_wrap=True)


def _parity_of_model(args: argparse.Namespace) -> int:
    from harness.ordinary.command import Request, parity_of_model
    from harness.ordinary.show import show_model
    from harness.parity.show import show

    if args.impls:
        raise UserError("--impl and --model cannot be given together: check one after the other")
    request = Request(
        args.model, args.suite, args.overrides, args.model_args, args.loss, args.loss_args, args.weights, args.level,
        args.precision, args.time_limit, args.out, args.mlflow_uri, not args.no_mlflow,
    )  # fmt: skip
    outcome = parity_of_model(request, _tell)
    console = Console(stderr=args.json)
    show_model(console, outcome.found)
    show(console, outcome.reports, outcome.logs, outcome.level)
    for line in outcome.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    if args.json:
        _print_json(outcome.to_json())
    return 0 if outcome.ok else 1


def _parity_of_two(args: argparse.Namespace) -> int:
    from harness.journal import finite
    from harness.ordinary.command import Request, parity_of_two
    from harness.ordinary.show import show_pair

    request = Request(
        args.model or "", None, args.overrides, args.model_args, args.loss, args.loss_args, args.weights,
        time_limit_s=args.time_limit, out=args.out,
    )  # fmt: skip
    found = parity_of_two(str(args.suite), args.other, request, _tell)
    show_pair(Console(stderr=args.json), found)
    if args.json:
        _print_json(finite(found))
    return 0 if found["ok"] else 1


def _parity_of_run(args: argparse.Namespace) -> int:
    from harness.equivalence import judge, show

    options = ("--impl", args.impls), ("--level", args.level), ("--precision", args.precision), ("-s", args.overrides)
    judgement = judge(
        args.suite,
        [option for option, value in (*options, ("--accept", args.accept), ("--mlflow-uri", args.mlflow_uri)) if value],
    )
    show(Console(stderr=args.json), judgement)
    if args.json:
        _print_json(judgement.to_json())
    return 0 if judgement.ok else 1


def _sync(args: argparse.Namespace) -> int:
    from harness.tracking import sync

    report = sync(args.run_dir, args.mlflow_uri)
    if args.json:
        _print_json(asdict(report))
    else:
        Console().print(
            Text(f"{report.uri}: {report.trials} trials of {report.experiment}, {report.events} new events"),
            soft_wrap=True,
        )
    return 0


def _report(args: argparse.Namespace) -> int:
    from harness.report import report, show

    written = report(args.run_dir, args.out)
    show(Console(stderr=args.json), written)
    if args.json:
        _print_json(written.to_json())
    return 0


def _export(args: argparse.Namespace) -> int:
    from harness.export import ENVIRONMENT, export

    os.environ.update(ENVIRONMENT)
    exported = export(args.run_dir, args.trial, args.to, args.weights, args.out)
    if args.json:
        _print_json(exported.to_json())
    else:
        Console().print(Text(f"{exported.folder}: {', '.join(exported.files)}"), soft_wrap=True)
        Console().print(Text(f"How to load them: the head of {exported.folder / 'model.py'}"), soft_wrap=True)
    return 0


def _figures(args: argparse.Namespace) -> int:
    from harness.figures import draw_run, show

    drawn = draw_run(args.run_dir, args.trials, args.out, _tell)
    show(Console(stderr=args.json), drawn)
    if args.json:
        _print_json({"run_dir": str(args.run_dir), "trials": [each.to_json() for each in drawn]})
    return 0


def _compare(args: argparse.Namespace) -> int:
    from harness.compare import compare, show

    comparison = compare(args.run_a, args.run_b, args.tolerance)
    show(Console(stderr=args.json), comparison)
    if args.json:
        _print_json(comparison.to_json())
    return 0 if comparison.ok else 1


def _ui(args: argparse.Namespace) -> int:
    from harness.ui import serve

    serve(args.out, args.mlflow_uri, args.port, open_browser=not args.no_browser)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from harness.doctor import diagnose, render

    diagnosis = diagnose(args.out)
    if args.json:
        _print_json(diagnosis.to_json())
    else:
        render(diagnosis, Console())
    return 0 if diagnosis.ok else 1


def _data(args: argparse.Namespace) -> int:
    from harness import data
    from harness.tables import print_data

    if args.action == "show":
        from harness.data.sheet import show

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


_COMMANDS = {
    "run": _run, "plan": _plan, "summary": _summary, "parity": _parity, "speed": _speed, "sync": _sync, "report": _report,
    "compare": _compare, "figures": _figures, "export": _export, "ui": _ui, "doctor": _doctor, "data": _data,
}  # fmt: skip
