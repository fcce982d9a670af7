"""`capsbench parity`: from what was asked for to reports, each implementation in each precision a climb of its own."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import data, registry
from harness.config import RuntimeConfig, Trial
from harness.errors import UserError
from harness.journal import file_lock, finite
from harness.parity.check import Report
from harness.parity.probe import image_count
from harness.parity.process import Climb, Tell, run_climbs
from harness.parity.record import record
from harness.spec import ModelSpec
from harness.suite import Suite, load_suite
from harness.tracking import redact

PRECISIONS = ("fp64", "fp32")
_COMPACT = """\
name: compact
question: Do the implementations compute the same CapsNet?
data: {name: digits}
model: {conv_channels: 32, primary_types: 8, primary_dim: 8, digit_dim: 16, decoder_units: [128, 256], routing: 3}
train: {lr: 1.0e-3, lr_decay: {rate: 0.96, steps: 2000}}
grid: {impl: [torch, tf, jax]}
resources: {cpus: 1, gpus: 0}
"""
"""What is checked without a suite: the paper's architecture with fewer channels, on digits that need no download."""


@dataclass(frozen=True)
class Request:
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


@dataclass(frozen=True)
class Outcome:
    """Reports in the order asked for, the log of each, and what to tell the user beside them."""

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
        """The document of `parity --json`."""
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


def parity(request: Request, tell: Tell) -> Outcome:
    """Climbs with every implementation asked for; `tell` gets a line whenever one begins or ends.

    Raises `UserError` for a request that cannot be met.
    """
    if not (math.isfinite(request.time_limit_s) and request.time_limit_s > 0):
        raise UserError(f"--time-limit: found {request.time_limit_s:g}; expected seconds, more than 0")
    if request.mlflow_uri and importlib.util.find_spec("mlflow") is None:
        raise UserError('MLflow is not installed: pip install "capsbench[mlflow]", or drop --mlflow-uri.')
    with registry.importable(Path.cwd()):
        suite = _suite(request)
        impls, warnings = _implementations(request, suite)
        model = _model(suite)
        images = image_count(model, suite.train.batch)
        data.ensure(suite.data, progress=True)
        precisions = (request.precision,) if request.precision else PRECISIONS
        trials = [_trial(suite, model, impl, precision) for impl in impls for precision in precisions]
    with _log_folder(request.out) as folder:
        climbs = [
            Climb(trial, images, request.level, request.time_limit_s, folder / _log_name(trial)) for trial in trials
        ]
        reports = run_climbs(climbs, tell)
    uri = None
    if request.track:
        uri, problem = record(reports, trials, request.out, request.mlflow_uri)
        warnings += [problem] if problem else []
    return Outcome(reports, [c.log_path for c in climbs], request.level, images, uri and redact(uri), warnings)


def _suite(request: Request) -> Suite:
    if request.suite:
        return load_suite(request.suite, request.overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "built-in.yaml"
        path.write_text(_COMPACT)
        try:
            return load_suite(path, request.overrides)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "the built-in setting")) from error


def _model(suite: Suite) -> ModelSpec:
    classes = data.info(suite.data.name).classes
    return ModelSpec(**suite.model.model_dump(), image=data.shape(suite.data), classes=classes)


def _implementations(request: Request, suite: Suite) -> tuple[list[str], list[str]]:
    """Names, and a line for each that is left out. One named on the command line must be there."""
    chosen = list(dict.fromkeys(request.impls or suite.grid["impl"]))
    absent = {name: reason for name in chosen if (reason := registry.missing(registry.resolve(name)))}
    lines = [f"{name}: {reason}" for name, reason in absent.items()]
    if absent and (request.impls or len(absent) == len(chosen)):
        raise UserError("; ".join(lines))
    return [name for name in chosen if name not in absent], lines


def _trial(suite: Suite, model: ModelSpec, impl: str, precision: str) -> Trial:
    # float64 proves the algorithm and is not timed: torch's eager mode needs no half minute to compile
    compiled = suite.runtime.compile and not (impl == "torch" and precision == "fp64")
    asked = suite.resources.gpus
    gpus = asked if isinstance(asked, int) and "gpu" in registry.resolve(impl).devices else 0
    return Trial(
        id="", suite=suite.name, impl=impl, seed=0, params={}, data=suite.data, model=model, train=suite.train,
        runtime=RuntimeConfig.model_validate({"precision": precision, "compile": compiled}),
        parity=suite.parity, cpus=1, gpus=gpus,
    )  # fmt: skip


def _log_name(trial: Trial) -> str:
    return re.sub(r"[^\w.-]", "_", f"{trial.impl}-{trial.runtime.precision}") + ".log"


@contextmanager
def _log_folder(out: Path) -> Generator[Path, None, None]:
    """`parity` in the output folder, alone for the length of the `with` block: a second command at a time gets `parity-2`."""
    for number in itertools.count(1):
        folder = out / ("parity" if number == 1 else f"parity-{number}")
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                is_ours = held.enter_context(file_lock(folder / ".lock", 0))
            except OSError as error:
                raise UserError(
                    f"cannot write logs to {folder}: {error.strerror}; choose another folder with --out DIR"
                ) from error
            if is_ours:
                yield folder
                return
