"""`capsbench parity`: from a request to reports. Each implementation climbs the ladder once in each precision."""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import data, modules, registry
from harness.analysis.equivalence import judge
from harness.commands import ci_files, ordinary, parser
from harness.commands.common import following, installed, log_folder, suite_or_built_in
from harness.commands.output import print_json, tell
from harness.cost.limits import refusal
from harness.disk import finite
from harness.environments.interpreters import Interpreters
from harness.errors import UserError
from harness.machine.environment import cpu_model, gpus, memory_bytes
from harness.parity.check import Report
from harness.spec import ModelSpec
from harness.spec.conventions import accepted
from harness.spec.trial import Trial
from harness.suite.suite import Suite
from harness.supervisor.parity import PRECISIONS, Climb, Tell, run_climbs
from harness.views import equivalence as judged
from harness.views.ci import parity as in_ci
from harness.views.messages import Console
from harness.views.mlflow.parity import record
from harness.views.mlflow.where import locate, redact, shown
from harness.views.parity import show

_COMPACT = """\
name: compact
question: Do the implementations compute the same CapsNet?
data: {name: digits}
model:
  {conv_channels: 32, primary_types: 8, primary_dim: 8, digit_dim: 16, decoder_units: [128, 256], routing: 3,
   cnn_channels: [24, 24, 12], cnn_units: [41, 24]}
train: {lr: 1.0e-3, lr_decay: {rate: 0.96, steps: 2000}}
grid: {impl: [FRAMEWORKS]}
resources: {cpus: 1, gpus: 0}
""".replace("FRAMEWORKS", ", ".join(registry.FRAMEWORKS))
"""The suite if none is given: the paper's architectures with fewer channels, on digits that need no download."""


@dataclass(frozen=True)
class ParityRequest:
    """What the command line asked for."""

    suite: Path | None = None
    overrides: Sequence[str] = ()
    impls: Sequence[str] = ()
    level: str = "L6"
    precision: str | None = None
    time_limit_s: float = 300.0
    out: Path = Path("runs")
    mlflow_uri: str | None = None
    track: bool = True
    accept: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """Reports in the order requested, the log of each, and further notes for the user."""

    reports: list[Report]
    logs: list[Path]
    level: str
    images: int
    mlflow_uri: str | None = None
    warnings: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        """The output of `parity --json`."""
        reports = zip(self.reports, self.logs, strict=True)
        return finite(
            {
                "ok": self.ok,
                "level": self.level,
                "images": self.images,
                "reports": [{**report.to_json(), "log": str(log)} for report, log in reports],
                "mlflow_uri": self.mlflow_uri,
                "warnings": self.warnings,
            }
        )


def parity(request: ParityRequest, tell: Tell) -> Outcome:
    """Climbs the ladder with every requested implementation; `tell` gets a line whenever one begins or ends.

    Raises `UserError` for a request that cannot be met.
    """
    if not (math.isfinite(request.time_limit_s) and request.time_limit_s > 0):
        raise UserError(f"--time-limit: found {request.time_limit_s:g}; expected seconds, more than 0")
    conventions = accepted(request.accept).named()
    if request.mlflow_uri and importlib.util.find_spec("mlflow") is None:
        raise UserError('MLflow is not installed: pip install "capsbench[mlflow]", or drop --mlflow-uri.')
    if request.track:
        locate(request.out, request.mlflow_uri)
    with modules.importable(Path.cwd()):
        suite = suite_or_built_in(request.suite, _COMPACT, request.overrides)
        chosen = list(dict.fromkeys(request.impls or suite.grid["impl"]))
        pythons = Interpreters(chosen, suite.environments, str(request.suite or "the suite"))
        impls, warnings = installed(chosen, pythons, named=bool(request.impls))
        model = data.model(suite.data, suite.model)
        data.ensure(suite.data, progress=True)
        precisions = (request.precision,) if request.precision else PRECISIONS
        trials = pythons.assigned([_trial(suite, model, impl, each) for impl in impls for each in precisions])
        _refuse(trials)
    with log_folder(request.out, "parity") as folder:
        climbs = [
            Climb(trial, request.level, request.time_limit_s, folder / _log_name(trial), conventions)
            for trial in trials
        ]
        with following(climbs, tell) as told:
            reports = run_climbs(climbs, told)
    images = max((report.images for report in reports), default=0)
    uri = None
    if request.track:
        uri, problem = record(reports, trials, request.out, request.mlflow_uri)
        warnings += [problem] if problem else []
    return Outcome(reports, [c.log_path for c in climbs], request.level, images, uri and redact(uri), warnings)


def _refuse(trials: Sequence[Trial]) -> None:
    """Raises `UserError` for the first trial that this machine cannot compute at all."""
    for trial in trials:
        if verdict := refusal(trial, memory_bytes(), gpus(), cpu_model()):
            hint = verdict.hint.replace("-s runtime.precision=", "--precision ")
            raise UserError(f"{trial.impl} {trial.runtime.precision}: {verdict.cause}; {hint}")


def _trial(suite: Suite, model: ModelSpec, impl: str, precision: str) -> Trial:
    asked = suite.resources.gpus
    count = asked if isinstance(asked, int) and "gpu" in registry.resolve(impl).devices else 0
    return Trial(
        id="", suite=suite.name, impl=impl, seed=0, params={}, data=suite.data, model=model, train=suite.train,
        runtime=suite.runtime.model_copy(update={"precision": precision}),
        parity=suite.parity, cpus=1, gpus=count,
    )  # fmt: skip


def _log_name(trial: Trial) -> str:
    return re.sub(r"[^\w.-]", "_", f"{trial.impl}-{trial.runtime.precision}") + ".log"


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench parity`."""
    command.add_argument(
        "suite",
        type=Path,
        nargs="?",
        metavar="SUITE|RUN",
        help="take model, data and optimiser from a suite; default: a compact model on embedded digits; "
        "a run's directory: compare its test errors over seeds (L7); or the first of two models, as for --model, "
        "implementations, or files of weights",
    )
    command.add_argument("other", nargs="?", metavar="B", help="the second: compare the two, layer by layer")
    command.add_argument(
        "--model",
        metavar="FILE.py:NAME",
        help=f"a model of {' or '.join(each.signs[0] for each in registry.ordinary().values())}, or a class or function that "
        "makes one: compare it without an adapter",
    )
    command.add_argument("--model-args", metavar="JSON", help="arguments of that class or function")
    command.add_argument("--loss", metavar="NAME", help="its loss: a method, a name in its file, or FILE.py:NAME")
    command.add_argument("--loss-args", metavar="JSON", help="arguments of the loss that are no tensors")
    command.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="W=OWN",
        help="which of the model's tensors a weight is: --weights digit.w=caps.route_weights; may be given several times",
    )
    command.add_argument(
        "--impl",
        dest="impls",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{', '.join(registry.names())}, or a class of yours as package.module:Class or file.py:Class; may be given "
        "several times",
    )
    command.add_argument(
        "--level", type=str.upper, choices=("L1", "L2", "L3", "L4", "L5", "L6"), help="how far to climb; default: L6"
    )
    command.add_argument("--precision", choices=("fp32", "fp64", "tf32", "bf16"), help="default: fp64, then fp32")
    parser.overrides(command)
    command.add_argument(
        "--time-limit",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds for one implementation in one precision; default: 300",
    )
    command.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a convention that is no fault: squash_epsilon=1e-7, squash_epsilon=1e-7@outside, length_epsilon=0; may be "
        "given several times",
    )
    parser.out(command)
    parser.mlflow(command)
    command.add_argument("--no-mlflow", action="store_true", help="record nothing")
    ci_files.options(command)


def main(args: argparse.Namespace) -> int:
    ci_files.check(args)
    if args.other:
        for name in (str(args.suite), args.other):
            if Path(name).suffix in (".yaml", ".yml") or Path(name).is_dir():
                raise UserError(
                    f'found "{args.suite}" and "{args.other}", but one suite or run is checked at a time; two names are two '
                    "models, implementations, or files of weights"
                )
        return ordinary.check_pair(args)
    if args.model:
        return ordinary.check_model(args)
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
    outcome = parity(request, tell)
    show(console, outcome.reports, outcome.logs, outcome.level)
    for line in outcome.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    if outcome.mlflow_uri:
        console.print(Text(f"Recorded in MLflow: {shown(outcome.mlflow_uri)}"), soft_wrap=True)
    ci_files.write(
        args,
        lambda: in_ci.junit(outcome.reports, outcome.level),
        lambda: in_ci.summary(outcome.reports, outcome.level, outcome.warnings),
    )
    if args.json:
        print_json(outcome.to_json())
    return 0 if outcome.ok else 1


def _parity_of_run(args: argparse.Namespace) -> int:
    options = ("--impl", args.impls), ("--level", args.level), ("--precision", args.precision), ("-s", args.overrides)
    judgement = judge(
        args.suite,
        [option for option, value in (*options, ("--accept", args.accept), ("--mlflow-uri", args.mlflow_uri)) if value],
    )
    judged.show(Console(stderr=args.json), judgement)
    ci_files.write(args, lambda: in_ci.judged_junit(judgement), lambda: in_ci.judged_summary(judgement))
    if args.json:
        print_json(judgement.to_json())
    return 0 if judgement.ok else 1
