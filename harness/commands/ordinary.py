"""`capsbench parity --model` and `capsbench parity A B`: examine models in their own process, then climb the ladder."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from rich.text import Text

from harness import data, models, progress, registry
from harness.commands import ci_files
from harness.commands.common import following, log_folder
from harness.commands.output import print_json, tell
from harness.disk import finite
from harness.environments.interpreters import Interpreters
from harness.errors import UserError
from harness.machine.surroundings import kept, refused
from harness.own_file import is_file_name
from harness.parity.check import Report
from harness.parity.ordinary.framework import told_by
from harness.parity.ordinary.pair import is_weights
from harness.parity.ordinary.source import VARIABLE, Source, is_model_name, split_target
from harness.spec import ModelSpec
from harness.spec.model import ModelConfig
from harness.spec.trial import DataConfig, Interpreter, ParityConfig, RuntimeConfig, TrainConfig, Trial
from harness.suite.suite import load_suite
from harness.supervisor.ordinary import examine
from harness.supervisor.parity import PRECISIONS, Climb, Tell, run_climbs
from harness.views.ci import parity as in_ci
from harness.views.messages import Console
from harness.views.mlflow.parity import record
from harness.views.mlflow.where import locate, redact
from harness.views.ordinary import show_model, show_pair
from harness.views.parity import show

_ARCHITECTURE = (
    "profile", "routing", "decoder", "conv_channels", "primary_types", "primary_dim", "digit_dim", "decoder_units", "kernel",
)  # fmt: skip
_COMPACT: dict[str, Any] = {"conv_channels": 32, "primary_types": 8, "decoder_units": (128, 256)}
"""The model that two implementations are compared on if no suite says which."""
_LEVEL = "L4"  # an adapter has no training
_VARIABLE = "runtime.environment."


@dataclass(frozen=True)
class ModelRequest:
    """What the command line asked for."""

    target: str
    suite: Path | None = None
    overrides: Sequence[str] = ()
    arguments: str | None = None
    loss: str | None = None
    loss_arguments: str | None = None
    weights: Sequence[str] = ()
    level: str | None = None
    precision: str | None = None
    time_limit_s: float = 300.0
    out: Path = Path("runs")
    mlflow_uri: str | None = None
    track: bool = True


@dataclass(frozen=True)
class Outcome:
    """What was found out about the model, and its reports."""

    found: dict[str, Any]
    reports: list[Report]
    logs: list[Path]
    level: str
    mlflow_uri: str | None = None
    warnings: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.reports) and all(row["ok"] for row in self.found["layers"])

    def to_json(self) -> dict[str, Any]:
        """The output of `parity --json`."""
        reports = zip(self.reports, self.logs, strict=True)
        return finite(
            {
                "ok": self.ok,
                "level": self.level,
                "model": self.found,
                "reports": [{**report.to_json(), "log": str(log)} for report, log in reports],
                "mlflow_uri": self.mlflow_uri,
                "warnings": self.warnings,
            }
        )


def parity_of_model(request: ModelRequest, tell: Tell) -> Outcome:
    """Examines the model, compares its layers, and climbs the ladder. Raises `UserError` if it cannot be checked."""
    if not (math.isfinite(request.time_limit_s) and request.time_limit_s > 0):
        raise UserError(f"--time-limit: found {request.time_limit_s:g}; expected seconds, more than 0")
    if request.track:
        locate(request.out, request.mlflow_uri)
    sizes, config = _asked(request)
    variables = _variables(request)
    source = source_of(request, sizes)
    level = min(request.level or _LEVEL, _LEVEL)
    where = _python(request, [told_by(source)])
    with log_folder(request.out, "parity") as folder:
        tell(f"{source.name}: examined")
        job = {"source": source.to_json()}
        found = _examined(job, variables, where, folder / "model.log", request.time_limit_s)
        model = ModelSpec.model_validate(found["model"], strict=False)
        data.ensure(config, progress=True)
        precisions = (request.precision,) if request.precision else PRECISIONS
        trials = [_trial(source.name, model, config, precision, variables, where) for precision in precisions]
        climbs = [
            Climb(trial, level, request.time_limit_s, folder / f"model-{trial.runtime.precision}.log")
            for trial in trials
        ]
        os.environ[VARIABLE] = source.to_json()
        try:
            with following(climbs, tell) as told:
                reports = run_climbs(climbs, told)
        finally:
            del os.environ[VARIABLE]
    uri, warnings = None, list[str]()
    if request.track:
        uri, problem = record(reports, trials, request.out, request.mlflow_uri)
        warnings += [problem] if problem else []
    return Outcome(found, reports, [climb.log_path for climb in climbs], level, uri and redact(uri), warnings)


def parity_of_two(a: str, b: str, request: ModelRequest, tell: Tell) -> dict[str, Any]:
    """Compares A and B: models, implementations, or files of weights of the model `request.target`. Raises `UserError`."""
    sizes, config = _asked(request)
    source = source_of(request, sizes).to_json() if request.target else None
    model = data.model(config, ModelConfig(**_COMPACT)).model_dump(mode="json")
    where = _python(request, [_computing(name, request) for name in (a, b)])
    with log_folder(request.out, "parity") as folder:
        tell(f"{a}, {b}: compared")
        job = {"pair": [a, b], "source": source, "model": model | sizes}
        found = _examined(job, _variables(request), where, folder / "pair.log", request.time_limit_s)
    found["ok"] = all(row["ok"] for row in (*found["layers"], *found["values"]))
    return found


def source_of(request: ModelRequest, sizes: dict[str, Any]) -> Source:
    """The options as a `Source`; `sizes`: what is given of the architecture. Raises `UserError` if one is malformed."""
    split_target(request.target)
    names: dict[str, str] = {}
    for each in request.weights:
        canonical, equals, own = each.partition("=")
        if not equals or not own:
            raise UserError(f'--weights: found "{each}"; expected CANONICAL=OWN, such as conv1.w=features.0.weight')
        if canonical not in (*(f"dec{layer}.w" for layer in (1, 2, 3)), "conv1.w", "primary.w", "digit.w"):
            raise UserError(
                f'--weights: "{canonical}" names no weight; expected conv1.w, primary.w, digit.w, dec1.w ...'
            )
        names[canonical] = own
    return Source(
        request.target,
        _object("--model-args", request.arguments),
        request.loss,
        _object("--loss-args", request.loss_arguments),
        names,
        sizes,
        str(Path.cwd()),
    )


def _object(option: str, text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{option}: not JSON ({error}); expected an object, such as '{{\"num_classes\": 10}}'"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{option}: found {text}; expected an object, such as '{{\"num_classes\": 10}}'")
    return cast("dict[str, Any]", found)


def _asked(request: ModelRequest) -> tuple[dict[str, Any], DataConfig]:
    """The architecture as far as a suite or `-s model.KEY=VALUE` gives it, and the images. Raises `UserError`."""
    if request.suite:
        suite = load_suite(request.suite, request.overrides)
        model = data.model(suite.data, suite.model)
        if not models.of(model).has_capsules or model.overlaid > 1:
            raise UserError(f"--model: {request.suite} is of another kind of model than a CapsNet on single digits")
        given = {key: getattr(model, key) for key in (*_ARCHITECTURE, "image", "classes")}
        return given, suite.data
    given: dict[str, Any] = {}
    for each in request.overrides:
        key, _, value = each.partition("=")
        if key.startswith(_VARIABLE):
            continue
        section, _, name = key.partition(".")
        if section != "model" or name not in (*_ARCHITECTURE, "classes", "image"):
            raise UserError(
                f"-s {key}: with --model and no suite, expected model.KEY, KEY one of {', '.join((*_ARCHITECTURE, 'classes'))}"
            )
        given[name] = yaml.safe_load(value)
    return given, DataConfig(name="digits")


def _variables(request: ModelRequest) -> dict[str, str]:
    """The environment variables that the suite, the shell or `-s runtime.environment.NAME=VALUE` asks for."""
    if request.suite:
        return load_suite(request.suite, request.overrides).runtime.environment
    found = kept()
    for each in request.overrides:
        key, _, value = each.partition("=")
        name = key.removeprefix(_VARIABLE)
        if name == key:
            continue
        if reason := refused(name):
            raise UserError(f"-s {key}: {reason}")
        found[name] = value
    return found


def _computing(name: str, request: ModelRequest) -> str | None:
    """The implementation that computes A or B; None for a file of weights. Raises `UserError` for an unknown name."""
    if is_weights(name):
        return told_by(Source(request.target, cwd=str(Path.cwd()))) if request.target else None
    if not is_model_name(name):
        return registry.resolve(name).name
    if not is_file_name(name):
        return None
    with suppress(UserError):  # an implementation of the user's own need not name a framework
        return told_by(Source(name, cwd=str(Path.cwd())))
    return None


def _python(request: ModelRequest, impls: Sequence[str | None]) -> Interpreter | None:
    """The Python of all these implementations; None for capsbench's own. Raises `UserError` if it is not the same one."""
    names = [name for name in dict.fromkeys(impls) if name]
    suite = load_suite(request.suite, request.overrides).environments if request.suite else {}
    pythons = Interpreters(names, suite, str(request.suite or "the suite"))
    found = {name: pythons.of(name) for name in names}
    paths = {name: each.path if each else sys.executable for name, each in found.items()}
    if len({*paths.values()}) > 1:
        told = " and ".join(f"{name} in {path}" for name, path in paths.items())
        each = " ".join(f"--impl {name}" for name in names)
        raise UserError(
            f"A and B compute in different Pythons ({told}), and are compared in one process. Compare each with the "
            f"specification: capsbench parity {each}"
        )
    return next(iter(found.values()), None)


def _examined(
    job: dict[str, Any], variables: dict[str, str], where: Interpreter | None, log: Path, time_limit_s: float
) -> dict[str, Any]:
    model, images = ModelSpec(image=(28, 28, 1), classes=10), DataConfig(name="digits")
    trial = _trial(registry.SPECIFICATION, model, images, "fp64", variables, where)
    with progress.task("examining the model"):
        return examine(job, trial, log, time_limit_s)


def _trial(
    impl: str,
    model: ModelSpec,
    config: DataConfig,
    precision: str,
    variables: dict[str, str],
    where: Interpreter | None,
) -> Trial:
    runtime = {"precision": precision, "compile": False, "environment": variables}
    return Trial(
        id="", suite="model", impl=impl, seed=0, params={}, data=config, model=model, train=TrainConfig(),
        runtime=RuntimeConfig.model_validate(runtime), parity=ParityConfig(),
        cpus=1, gpus=0, interpreter=where,
    )  # fmt: skip


def check_model(args: argparse.Namespace) -> int:
    """Runs `capsbench parity --model`; returns the exit code."""
    if args.impls:
        raise UserError("--impl and --model cannot be given together: check one after the other")
    request = ModelRequest(
        args.model, args.suite, args.overrides, args.model_args, args.loss, args.loss_args, args.weights, args.level,
        args.precision, args.time_limit, args.out, args.mlflow_uri, not args.no_mlflow,
    )  # fmt: skip
    outcome = parity_of_model(request, tell)
    console = Console(stderr=args.json)
    show_model(console, outcome.found)
    show(console, outcome.reports, outcome.logs, outcome.level)
    for line in outcome.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    ci_files.write(
        args,
        lambda: in_ci.junit(outcome.reports, outcome.level, outcome.found),
        lambda: in_ci.summary(outcome.reports, outcome.level, outcome.warnings, outcome.found),
    )
    if args.json:
        print_json(outcome.to_json())
    return 0 if outcome.ok else 1


def check_pair(args: argparse.Namespace) -> int:
    """Runs `capsbench parity A B`; returns the exit code."""
    request = ModelRequest(
        args.model or "",
        None,
        args.overrides,
        args.model_args,
        args.loss,
        args.loss_args,
        args.weights,
        time_limit_s=args.time_limit,
        out=args.out,
    )
    found = parity_of_two(str(args.suite), args.other, request, tell)
    show_pair(Console(stderr=args.json), found)
    ci_files.write(args, lambda: in_ci.pair_junit(found), lambda: in_ci.pair_summary(found))
    if args.json:
        print_json(finite(found))
    return 0 if found["ok"] else 1
