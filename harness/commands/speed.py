"""`capsbench speed`: from a request to figures. Each implementation in each setting is one measurement."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import data, models, modules, progress, registry
from harness.analysis import baseline
from harness.analysis.speed import document
from harness.commands import ci_files, parser
from harness.commands.common import installed, log_folder, suite_or_built_in
from harness.commands.output import print_json, tell
from harness.disk import finite
from harness.environments.chosen import chosen
from harness.environments.interpreters import Interpreters, asked
from harness.errors import UserError
from harness.executors.holders import with_runs
from harness.machine.environment import available_cores, environment
from harness.machine.leases import local_gpus
from harness.spec.trial import Interpreter, Trial
from harness.suite.suite import Suite
from harness.supervisor.parity import Tell
from harness.supervisor.speed import Method, Record, measure
from harness.views.ci import speed as in_ci
from harness.views.messages import Console
from harness.views.speed import show
from harness.views.tables import print_table

_BUILT_IN = """\
name: speed
question: How fast is a training step of the paper's CapsNet, and what is it made of?
data: {{name: digits}}
model: {{profile: paper, routing: 3, decoder: true}}
train: {{batch: 128}}
grid: {{impl: [{impls}]}}
resources: {{cpus: {cores}, gpus: auto}}
"""
"""The suite if none is given: the paper's full size, on digits that need no download."""

_KEYS = {"impl": "--impl", "runtime.precision": "--precision", "train.batch": "--batch", "model.routing": "--routing"}
"""Keys of a suite that have their own option."""


@dataclass(frozen=True)
class SpeedRequest:
    """What the command line asked for."""

    suite: Path | None = None
    overrides: Sequence[str] = ()
    impls: Sequence[str] = ()
    precisions: Sequence[str] = ()
    batches: Sequence[str] = ()
    routings: Sequence[str] = ()
    rounds: int = 7
    steps: int = 4
    matmul: int = 4096
    gate: bool = True
    trace: Path | None = None
    time_limit_s: float = 900.0
    out: Path = Path("runs")
    baseline: Path | None = None
    tolerance_pct: float = 10.0
    parts: bool = True


def speed(request: SpeedRequest, tell: Tell) -> dict[str, Any]:
    """Measures every requested cell and returns the output of `speed --json`; `tell` gets a line at every step.

    Raises `UserError` for a request that cannot be met, before anything is started.
    """
    _check_numbers(request)
    with modules.importable(Path.cwd()):
        suite = _suite(request)
        pythons = Interpreters(suite.grid["impl"], suite.environments, str(request.suite or "the suite"))
        impls, warnings = installed(list(suite.grid["impl"]), pythons, named=bool(request.impls))
        trials = pythons.assigned([trial for trial in _trials(suite) if trial.impl in impls])
        for config in {trial.data.model_dump_json(): trial.data for trial in trials}.values():
            data.ensure(config, progress=True)
    names = _names(trials)
    stored = request.baseline and baseline.read(request.baseline, names, request.tolerance_pct)
    others, problems = _other_pythons(suite)
    if request.trace:
        _check_folder(request.trace)
    with log_folder(request.out, "speed") as folder:
        method = Method(
            request.rounds,
            request.steps,
            request.matmul,
            request.gate,
            request.time_limit_s,
            folder,
            request.trace,
            others,
            request.parts,
        )
        records = [Record(name, trial, folder / f"{name}.log") for name, trial in zip(names, trials, strict=True)]
        with progress.task("measuring"):
            found = document(measure(records, method, lambda line: tell(with_runs(line))), method)
    found |= {"warnings": [*warnings, *problems, *found["warnings"]], "environment": environment()}
    if request.baseline and stored:
        compared = baseline.against(request.baseline, stored, finite(found), request.tolerance_pct)
        found |= {"ok": found["ok"] and compared.ok, "baseline": compared.to_json()}
    return finite(found)


def _other_pythons(suite: Suite) -> tuple[dict[str, Interpreter], list[str]]:
    """The Pythons of built-in implementations that are not measured, for the floor; and a line for each that is unusable."""
    names = [name for name in registry.BUILT_IN if name not in suite.grid["impl"]]
    answers, problems = asked([each for name in names if (each := chosen(name, suite.environments, "the suite"))])
    return {name: answer.interpreter() for name, answer in answers.items()}, [*problems.values()]


def _check_numbers(request: SpeedRequest) -> None:
    if not (math.isfinite(request.time_limit_s) and request.time_limit_s > 0):
        raise UserError(f"--time-limit: found {request.time_limit_s:g}; expected seconds, more than 0")
    for option, value in (("--rounds", request.rounds), ("--steps", request.steps), ("--matmul", request.matmul)):
        if value < 1:
            raise UserError(f"{option}: found {value}; expected a whole number of at least 1")


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--trace: cannot write to {folder}: {error.strerror}; choose a folder of yours") from error


def _suite(request: SpeedRequest) -> Suite:
    """The suite, overridden by the command's options. Raises `UserError` with messages that name the options."""
    asked = dict(zip(_KEYS, (request.impls, request.precisions, request.batches, request.routings), strict=True))
    options = [f"{key}={','.join(dict.fromkeys(values))}" for key, values in asked.items() if values]
    built_in = _BUILT_IN.format(cores=available_cores(), impls=", ".join(registry.FRAMEWORKS))
    try:
        return suite_or_built_in(request.suite, built_in, (*request.overrides, *options))
    except UserError as error:
        text = str(error)
        for key, option in _KEYS.items():
            text = text.replace(f"-s {key}=", f"{option} ")
        raise UserError(text) from error


def _trials(suite: Suite) -> list[Trial]:
    """Every point of the grid once, with its first seed."""
    trials = suite.trials(len(local_gpus()), lambda _: {})
    return [trial for trial in trials if trial.seed == suite.grid["seed"][0]]


def _names(trials: Sequence[Trial]) -> list[str]:
    """A name for each measurement, valid as a file name: "torch-fp32-b128-r3", and what else the grid varies."""
    found: list[str] = []
    own = {*_KEYS, "model.kind"}  # already in every name
    for trial in trials:
        more = [f"{key.rpartition('.')[2]}{value}" for key, value in trial.params.items() if key not in own]
        model = models.of(trial.model).label(trial.model)
        parts = [trial.impl, trial.runtime.precision, f"b{trial.train.batch}", model, *more]
        name = re.sub(r"[^\w.-]", "_", "-".join(parts))
        found.append(name if name not in found else f"{name}-{len(found)}")
    return found


_DESCRIPTION = """\
Measure a training step and an evaluation, against the machine's own limit.

Every implementation in every setting is measured in a process of its own, built and compiled once, compared with the
specification (to L4), and measured in turns with the others, all on the same cores. The floor is the operations of the
direct algorithm at the rate of the fastest float32 matrix product of any installed library, measured in the same rounds;
on a GPU, that of its precision, or the time to move a step's bytes if that is longer. A step can be below its
floor: in the frequency domain, the large convolution takes a fifth of the direct algorithm's operations.

Exit code 1: a measurement failed (the others are measured all the same), or a step is slower than in --baseline."""


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench speed`."""
    command.description = _DESCRIPTION
    command.formatter_class = parser.Paragraphs
    command.add_argument(
        "suite",
        type=Path,
        nargs="?",
        metavar="SUITE",
        help="take model, data, batch and resources from a suite; default: the paper's full-size model on embedded digits",
    )
    for option, metavar, help in (
        (
            "--impl",
            "NAME",
            f"{', '.join(registry.names())}, or a class of yours as package.module:Class or file.py:Class; "
            f"default: {', '.join(registry.FRAMEWORKS)}",
        ),
        ("--precision", "P", "fp32, or another that `runtime.precision` may have"),
        ("--batch", "N", "images in a training step; default: 128"),
        ("--routing", "R", "routing iterations; default: 3"),
    ):
        command.add_argument(
            option, action="append", default=[], metavar=metavar, help=f"{help}; may be given several times"
        )
    command.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7; an interval takes 6")
    command.add_argument("--steps", type=int, default=4, metavar="N", help="training steps a round; default: 4")
    command.add_argument(
        "--matmul", type=int, default=4096, metavar="N", help="size of the floor's matrix product; default: 4096"
    )
    command.add_argument("--no-gate", action="store_true", help="time what was not compared with the specification")
    command.add_argument(
        "--parts", action=argparse.BooleanOptionalAction, default=True,
        help="also measure the parts of a step, by steps cut short after each of them; default: yes. It takes about five "
        "times as long as the rest",
    )  # fmt: skip
    command.add_argument(
        "--trace", type=Path, metavar="DIR", help="write a profile of each measurement for ui.perfetto.dev"
    )
    command.add_argument(
        "--time-limit",
        type=float,
        default=900.0,
        metavar="S",
        help="seconds for one measurement, not counting the others' turns; default: 900",
    )
    command.add_argument(
        "--baseline", type=Path, metavar="FILE",
        help="what `speed --json` printed before, perhaps elsewhere: compare a step over the machine's floor with it",
    )  # fmt: skip
    command.add_argument(
        "--tolerance", type=float, default=10.0, metavar="PCT",
        help="by how many percent it may be slower than the baseline; default: 10",
    )  # fmt: skip
    parser.overrides(command)
    parser.out(command)
    ci_files.options(command)


def main(args: argparse.Namespace) -> int:
    request = SpeedRequest(
        args.suite, args.overrides, args.impl, args.precision, args.batch, args.routing, args.rounds, args.steps,
        args.matmul, not args.no_gate, args.trace, args.time_limit, args.out, args.baseline, args.tolerance,
        args.parts,
    )  # fmt: skip
    ci_files.check(args)
    document = speed(request, tell)
    console = Console(stderr=args.json)
    show(console, document)
    if compared := document.get("baseline"):
        console.print()
        print_table(console, in_ci.baseline_table(compared["rows"]))
        for line in compared["warnings"]:
            console.print(Text(line, "yellow"), soft_wrap=True)
        console.print(Text(in_ci.verdict(document), "green" if document["ok"] else "bold red"), soft_wrap=True)
    ci_files.write(args, lambda: in_ci.junit(document), lambda: in_ci.summary(document))
    if args.json:
        print_json(document)
    return 0 if document["ok"] else 1
