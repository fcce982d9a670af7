"""The command line. Exit codes: 0 good, 1 a trial or its parity failed, 2 the request was wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rich.console import Console
from rich.text import Text

from harness import __version__
from harness.errors import UserError, nearest
from harness.speed.options import add_options

if TYPE_CHECKING:
    from harness.run import Request

_JSON_HELP = "print one JSON document on stdout, all else on stderr"


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest choice in its complaints, and our errors instead of its usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Complains of an unknown option where it stands: the parser of its command knows which are valid."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if options := [each for each in unknown if each.startswith("-")]:
            name = options[0].partition("=")[0]
            self.error(f'unknown option "{name}"{nearest(name, cast(Any, self)._option_string_actions)}')
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, cast(Any, argparse)._SubParsersAction) else action.option_strings[0]
            self.error(f'unknown {what} "{value}"{nearest(str(value), action.choices)}')

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nSee: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="capsbench",
        description="Equivalent capsule networks in PyTorch, TensorFlow and JAX: proven equal, then timed.",
    )
    parser.add_argument("--version", action="version", version=f"capsbench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.add_argument("--json", action="store_true", help=_JSON_HELP)
        return added

    run = command("run", "run a suite: finished trials are kept, half-done ones go on")
    plan = command("plan", "show a suite's trials: finished or to run, what each takes, and how long it should last")
    for each in (run, plan):
        each.add_argument("suite", type=Path, metavar="SUITE", help="a YAML file, such as suites/quickstart.yaml")
        _overrides(each)
        each.add_argument("--quick", action="store_true", help="apply the suite's `quick` settings: minutes, not hours")
        _out(each)
        each.add_argument(
            "--executor", choices=("auto", "ray", "inline"), default="auto",
            help="ray: schedule on this machine or a cluster; inline: one trial after another, without Ray",
        )  # fmt: skip
        each.add_argument("--ray-address", metavar="A", help="a running Ray cluster, such as auto or ray-head:6379")
    _mlflow(run)
    run.add_argument(
        "--no-mlflow", action="store_true", help="keep the journal only; `capsbench sync` can follow later"
    )

    parity = command("parity", "prove implementations equal to the specification, or say which tensor is off")
    parity.add_argument(
        "suite", type=Path, nargs="?", metavar="SUITE|RUN",
        help="take model, data and optimiser from a suite; default: a compact model on embedded digits; "
        "a run's directory: compare its test errors over seeds (L7)",
    )  # fmt: skip
    parity.add_argument(
        "--impl", dest="impls", action="append", default=[], metavar="NAME",
        help="torch, tf, jax, numpy, or a class of yours as package.module:Class; may be given several times",
    )  # fmt: skip
    parity.add_argument(
        "--level", type=str.upper, choices=("L1", "L2", "L3", "L4", "L5", "L6"),
        help="how far to climb; default: L6",
    )  # fmt: skip
    parity.add_argument("--precision", choices=("fp32", "fp64", "tf32", "bf16"), help="default: fp64, then fp32")
    _overrides(parity)
    parity.add_argument(
        "--time-limit", type=float, default=300.0, metavar="S",
        help="seconds for one implementation in one precision; default: 300",
    )  # fmt: skip
    _out(parity)
    _mlflow(parity)
    parity.add_argument("--no-mlflow", action="store_true", help="record nothing")

    speed = command("speed", "measure a training step and an evaluation, against the machine's own limit")
    add_options(speed)
    _overrides(speed)
    _out(speed)

    sync = command("sync", "bring a run into MLflow, or what MLflow still lacks of it")
    sync.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    _mlflow(sync)

    report = command("report", "draw what a run says of cost, and fit a model of the cost to it")
    report.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/scaling")
    report.add_argument("--out", type=Path, metavar="DIR", help="where figures are written; default: RUN/report")

    ui = command("ui", "open the comparison in MLflow's pages, served to this machine alone")
    _out(ui)
    _mlflow(ui)
    ui.add_argument("--port", type=int, default=5000, help="default: 5000, or the next free one")
    ui.add_argument("--no-browser", action="store_true", help="print the address only")

    doctor = command("doctor", "what of this machine the bench can use, and what to do about the rest")
    _out(doctor)

    data = command("data", "list the data sets, or fetch one")
    actions = data.add_subparsers(dest="action", required=True, metavar="list|fetch")
    listing, fetch = actions.add_parser("list"), actions.add_parser("fetch")
    fetch.add_argument("name", help="a data set's name, such as mnist")
    for each in (listing, fetch):
        each.add_argument("--dir", help="where files are kept; default: CAPSBENCH_DATA, or the user's cache")
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON_HELP)
    return parser


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a setting: -s model.routing=1,3 -s train.epochs=2",
    )  # fmt: skip


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="the folder of runs; default: runs"
    )


def _mlflow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mlflow-uri", metavar="U", help="a tracking server or database; default: OUT/mlflow.db")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `capsbench` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        args = _parser().parse_args(arguments)
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
    total = "time unknown until one has run" if None in todo else f"about {duration(sum(todo))}, one after another"
    console.print(f"\n{len(todo)} of {len(rows)} trials to run{f': {total}' if todo else ''}.", highlight=False)
    for line in [note, *running.reasons(plan)]:
        if line:
            console.print(Text(line, "yellow"), soft_wrap=True)
    return 0


def _request(args: argparse.Namespace) -> Request:
    from harness.run import Request

    request = Request(args.suite, args.overrides, args.quick, args.out, args.executor, args.ray_address)
    if args.command == "plan":
        return request
    return replace(request, mlflow_uri=args.mlflow_uri, track=not args.no_mlflow)


def _parity(args: argparse.Namespace) -> int:
    from harness.parity.command import Request as ParityRequest
    from harness.parity.command import parity
    from harness.parity.show import show

    if args.suite and args.suite.is_dir():
        return _parity_of_run(args)
    console = Console(stderr=args.json)
    request = ParityRequest(
        args.suite, args.overrides, args.impls, args.level or "L6", args.precision, args.time_limit, args.out,
        args.mlflow_uri, not args.no_mlflow,
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


def _parity_of_run(args: argparse.Namespace) -> int:
    from harness.equivalence import judge, show

    options = ("--impl", args.impls), ("--level", args.level), ("--precision", args.precision), ("-s", args.overrides)
    judgement = judge(args.suite, [option for option, value in (*options, ("--mlflow-uri", args.mlflow_uri)) if value])
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
    from harness.report import draw, make_report, sentences, table, to_json
    from harness.tables import print_table

    report = make_report(args.run_dir)
    paths = draw(report, args.out or args.run_dir / "report") if report.keys else []
    console = Console(stderr=args.json)
    print_table(console, table(report))
    for line in ["", *sentences(report), *(f"no timing: {line}" for line in report.left_out)]:
        console.print(Text(line), soft_wrap=True)
    for path in paths:
        console.print(Text(f"Figure: {path}"), soft_wrap=True)
    if args.json:
        _print_json({**to_json(report), "figures": [str(path) for path in paths]})
    return 0


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

    rows = data.list_datasets(args.dir) if args.action == "list" else [data.fetch(args.name, args.dir)]
    if args.json:
        _print_json({"datasets": rows})
    else:
        print_data(Console(), rows)
    return 0


_COMMANDS = {
    "run": _run, "plan": _plan, "parity": _parity, "speed": _speed, "sync": _sync, "report": _report, "ui": _ui,
    "doctor": _doctor, "data": _data,
}  # fmt: skip
