"""The commands and their options; imports nothing that takes time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, cast

from harness import __version__
from harness.commands.speed_options import add_options
from harness.errors import UserError, nearest

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


def parser() -> argparse.ArgumentParser:
    """What `capsbench` understands. Parsing raises `UserError` for what it does not."""
    top = _Parser(
        prog="capsbench",
        description="Equivalent capsule networks in PyTorch, TensorFlow and JAX: proven equal, then timed.",
    )
    top.add_argument("--version", action="version", version=f"capsbench {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
    summary = command("summary", "show a suite's models layer by layer: output shapes, parameters, operations")
    summary.add_argument("suite", type=Path, metavar="SUITE", help="a YAML file, such as suites/mnist.yaml")
    _overrides(summary)
    _mlflow(run)
    run.add_argument(
        "--no-mlflow", action="store_true", help="keep the journal only; `capsbench sync` can follow later"
    )
    run.add_argument(
        "--no-figures", action="store_true", help="draw no figures at the end; `capsbench figures` can follow later"
    )

    parity = command("parity", "prove implementations equal to the specification, or say which tensor is off")
    parity.add_argument(
        "suite", type=Path, nargs="?", metavar="SUITE|RUN",
        help="take model, data and optimiser from a suite; default: a compact model on embedded digits; "
        "a run's directory: compare its test errors over seeds (L7); or the first of two models, as for --model, "
        "implementations, or files of weights",
    )  # fmt: skip
    parity.add_argument("other", nargs="?", metavar="B", help="the second: compare the two, layer by layer")
    parity.add_argument(
        "--model", metavar="FILE.py:NAME",
        help="a torch.nn.Module or a Keras model, or a class or function that makes one: compare it without an adapter",
    )  # fmt: skip
    parity.add_argument("--model-args", metavar="JSON", help="arguments of that class or function")
    parity.add_argument("--loss", metavar="NAME", help="its loss: a method, a name in its file, or FILE.py:NAME")
    parity.add_argument("--loss-args", metavar="JSON", help="arguments of the loss that are no tensors")
    parity.add_argument(
        "--weights", action="append", default=[], metavar="W=OWN",
        help="which of the model's tensors a weight is: --weights digit.w=caps.route_weights; may be given several times",
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
    parity.add_argument(
        "--accept", action="append", default=[], metavar="KEY=VALUE",
        help="a convention that is no fault: squash_epsilon=1e-7, squash_epsilon=1e-7@outside, length_epsilon=0; may be "
        "given several times",
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

    report = command(
        "report", "what a run says over its seeds, beside published figures, and of cost; tables, page, figures"
    )
    report.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/scaling")
    report.add_argument("--out", type=Path, metavar="DIR", help="where files are written; default: RUN/report")

    compare = command("compare", "compare two runs cell by cell; exit code 1 if the second is significantly worse")
    compare.add_argument("run_a", type=Path, metavar="A", help="a run's directory: what to compare with")
    compare.add_argument("run_b", type=Path, metavar="B", help="a run's directory: what is perhaps worse")
    compare.add_argument(
        "--tolerance", type=float, default=1.0, metavar="PCT",
        help="by how many percent time and memory may rise and still be no regression; default: 1",
    )  # fmt: skip

    export = command("export", "write a trial's weights as a framework's own files, which load without capsbench")
    export.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    export.add_argument("trial", metavar="TRIAL", help="the trial's id, or its beginning; `capsbench plan` shows them")
    export.add_argument("--to", required=True, choices=("torch", "tf", "jax"), help="the framework")
    export.add_argument(
        "--weights", default="last", metavar="best|last|EPOCH",
        help="of the lowest validation error, of the last epoch (default), or of an epoch kept by train.keep_every",
    )  # fmt: skip
    export.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/exports/TRIAL-FRAMEWORK-WEIGHTS")

    figures = command("figures", "draw the figures of a run's finished trials again, from its directory alone")
    figures.add_argument("run_dir", type=Path, metavar="RUN", help="a run's directory, such as runs/quickstart")
    figures.add_argument("trials", nargs="*", metavar="TRIAL", help="ids of trials; default: all finished ones")
    figures.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder for each trial is made there; default: each trial's own"
    )

    ui = command("ui", "open the comparison in MLflow's pages, served to this machine alone")
    _out(ui)
    _mlflow(ui)
    ui.add_argument("--port", type=int, default=5000, help="default: 5000, or the next free one")
    ui.add_argument("--no-browser", action="store_true", help="print the address only")

    doctor = command("doctor", "what of this machine the bench can use, and what to do about the rest")
    _out(doctor)

    data = command("data", "list the data sets, fetch one, or show one")
    actions = data.add_subparsers(dest="action", required=True, metavar="list|fetch|show")
    listing, fetch, show = (actions.add_parser(name) for name in ("list", "fetch", "show"))
    for each in (fetch, show):
        each.add_argument("name", help="a data set's name, such as mnist")
    show.add_argument(
        "--out", type=Path, metavar="FILE",
        help="FILE.png: sheets are FILE-train.png, FILE-validation.png, FILE-test.png; default: NAME.png",
    )  # fmt: skip
    for each in (listing, fetch, show):
        each.add_argument("--dir", help="where files are kept; default: CAPSBENCH_DATA, or the user's cache")
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON_HELP)
    return top


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
