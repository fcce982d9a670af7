"""`capsbench run`: from a suite to results. What is finished is kept, what is half done goes on, nothing is lost."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import data, registry
from harness.config import Trial
from harness.cost import estimate_s, finished_trials
from harness.environment import environment, fingerprint, gpus
from harness.equivalence import Pair, caveat, compare
from harness.errors import UserError
from harness.executor import Emit, Executor, InlineExecutor, Job
from harness.figures import draw_missing
from harness.journal import Event, Journal
from harness.mlflow_client import redact
from harness.results import Result, summarise
from harness.resume import resume_point
from harness.screen import Screen
from harness.start import weights_file
from harness.suite import Suite, load_suite
from harness.tracking import Tracker
from harness.verdict import Verdict, refusal

ExecutorName = Literal["auto", "ray", "inline"]


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    suite: Path
    overrides: Sequence[str] = ()
    quick: bool = False
    out: Path = Path("runs")
    executor: ExecutorName = "auto"
    ray_address: str | None = None
    mlflow_uri: str | None = None
    track: bool = True
    figures: bool = True


@dataclass(frozen=True)
class Plan:
    """A suite's trials, bound to this machine or cluster; `results` holds those that are finished already."""

    suite: Suite
    run_dir: Path
    environment: dict[str, Any]
    trials: tuple[Trial, ...]
    results: dict[str, Result]
    states: dict[str, str]  # finished, failed, interrupted, running, pending or unavailable
    unavailable: dict[str, Verdict]  # by trial: why it cannot run here
    estimates: dict[str, float | None]  # seconds, by trial; 0 for a finished one

    def to_json(self) -> dict[str, Any]:
        """The document of `plan --json`."""
        return {"suite": self.suite.name, "trials": [self.row(trial) for trial in self.trials]}

    def row(self, trial: Trial) -> dict[str, Any]:
        named = {key: getattr(trial, key) for key in ("id", "impl", "params", "seed", "cpus", "gpus")}
        return {**named, "state": self.states[trial.id], "estimate_s": self.estimates[trial.id],
                "at_most": trial.train.stop.images is not None}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What `run` leaves: results in the plan's order, and what to tell the user beside them."""

    suite: str
    run_dir: Path
    mlflow_uri: str | None
    results: list[Result]
    interrupted: bool
    warnings: list[str] = field(default_factory=list[str])
    equivalence: list[Pair] = field(default_factory=list[Pair])  # empty where the plan has one seed alone

    @property
    def exit_code(self) -> int:
        """0 if all is good, 1 if a trial, its parity or its audit failed, 130 if interrupted."""
        if self.interrupted:
            return 130
        return int(any(result.status != "finished" or result.flaw for result in self.results))

    def to_json(self) -> dict[str, Any]:
        """The document of `run --json`."""
        return {
            "suite": self.suite,
            "run_dir": str(self.run_dir),
            "mlflow_uri": self.mlflow_uri,
            "trials": [result.to_json() for result in self.results],
            "warnings": self.warnings,
            "equivalence": [pair.to_json() for pair in self.equivalence],
        }


def make_executor(request: Request) -> tuple[Executor, str | None]:
    """The executor asked for; `auto` is Ray where it is installed, else inline with a word about it."""
    name = request.executor
    has_ray = importlib.util.find_spec("ray") is not None
    if name == "inline" and request.ray_address:
        raise UserError("--executor inline runs on this machine alone: drop it, or drop --ray-address.")
    if (name == "ray" or request.ray_address) and not has_ray:
        raise UserError('Ray is not installed: pip install "capsbench[ray]", or use --executor inline on this machine.')
    if request.mlflow_uri and importlib.util.find_spec("mlflow") is None:
        raise UserError('MLflow is not installed: pip install "capsbench[mlflow]", or drop --mlflow-uri.')
    if name == "inline" or not has_ray:
        note = "Ray is not installed: trials run one after another, in this process" if name == "auto" else None
        return InlineExecutor(), note
    from harness.ray_executor import RayExecutor

    return RayExecutor(request.ray_address), None


def make_plan(request: Request, executor: Executor) -> Plan:
    """Reads the suite and what is known of its trials. Raises `UserError` for a request that cannot be met."""
    suite = load_suite(request.suite, request.overrides, request.quick)
    facts = environment()
    trials = suite.trials(executor.capacity().gpus, lambda impl: fingerprint(facts, impl))
    executor.check(trials)
    run_dir = request.out / (f"{suite.name}-quick" if request.quick else suite.name)
    journal = Journal(run_dir)
    results = {trial.id: summarise(trial, journal.events(trial.id)) for trial in trials}
    states: dict[str, str] = {id: result.status for id, result in results.items()}
    if journal.is_live():  # another driver is at work: what looks interrupted is going on
        states = {id: "running" if state == "interrupted" else state for id, state in states.items()}
    # the nodes of a cluster have environments of their own
    unavailable = {} if request.ray_address else _unavailable(trials, states, facts)
    states |= dict.fromkeys(unavailable, "unavailable")
    known = list(finished_trials(request.out))
    ended = ("finished", "unavailable")
    estimates = {trial.id: 0.0 if states[trial.id] in ended else estimate_s(trial, known) for trial in trials}
    return Plan(suite, run_dir, facts, trials, results, states, unavailable, estimates)


def _unavailable(trials: Sequence[Trial], states: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Verdict]:
    """Why trials that are not finished cannot run on this machine; the others are not in it."""
    found: dict[str, Verdict] = {}
    devices = gpus()
    absent = {impl: registry.missing(registry.resolve(impl)) for impl in dict.fromkeys(t.impl for t in trials)}
    without = ",".join(impl for impl, reason in absent.items() if not reason)
    hint = f"to leave it out: -s grid.impl={without}" if without else ""
    for trial in trials:
        if states[trial.id] == "finished":
            continue
        if reason := absent[trial.impl]:
            found[trial.id] = Verdict(reason, hint)
        elif verdict := refusal(trial, facts["memory_bytes"], devices, facts["cpu"]):
            found[trial.id] = verdict
    return found


def reasons(plan: Plan) -> list[str]:
    """One line for each reason why trials cannot run here: "torch, jax: tf32 needs ..."."""
    impls: dict[Verdict, list[str]] = {}
    for trial in plan.trials:
        if verdict := plan.unavailable.get(trial.id):
            impls.setdefault(verdict, []).append(trial.impl)
    return [
        "; ".join(filter(None, (f"{', '.join(dict.fromkeys(names))}: {verdict.cause}", verdict.hint)))
        for verdict, names in impls.items()
    ]


def run(request: Request, screen_of: Callable[[Mapping[str, float | None]], Screen]) -> Outcome:
    """Runs what is not finished yet; `screen_of(estimates)` makes the screen.

    Raises `UserError` before anything is started or written if the request cannot be met.
    """
    executor, note = make_executor(request)
    try:
        plan = make_plan(request, executor)
        todo = [trial for trial in plan.trials if plan.states[trial.id] not in ("finished", "unavailable")]
        if set(plan.states.values()) == {"unavailable"}:
            raise UserError("; ".join(reasons(plan)))
        for config in {trial.data.model_dump_json(): trial.data for trial in todo}.values():
            data.ensure(config, progress=True)
        with Journal(plan.run_dir).open() as journal:
            return _execute(request, plan, todo, executor, journal, screen_of(plan.estimates), note)
    finally:
        executor.close()


def _execute(
    request: Request,
    plan: Plan,
    todo: Sequence[Trial],
    executor: Executor,
    journal: Journal,
    screen: Screen,
    note: str | None,
) -> Outcome:
    by_id = {trial.id: trial for trial in plan.trials}
    results = dict(plan.results)
    warnings = [note] if note else []
    _write_plan(request, plan, journal)
    tracker = _tracker(request, journal, warnings)

    def on_event(trial_id: str, event: Event) -> None:
        if event["kind"] == "waiting":  # for a core or GPU: of interest now, not later
            screen.note(event["message"])
            return
        journal.append(trial_id, event)
        if event["kind"] in ("result", "failed", "interrupted"):
            results[trial_id] = summarise(by_id[trial_id], journal.events(trial_id))
            if event["kind"] != "interrupted":
                journal.write_result(trial_id, results[trial_id].to_json())
        if tracker:
            tracker.notify(trial_id)
        screen.update(trial_id, event)

    interrupted = False
    screen.begin(plan.trials, cached={trial.id for trial in plan.trials if plan.states[trial.id] == "finished"})
    try:
        if todo:
            if executor.name == "ray":
                screen.note("starting Ray")
            executor.run([_job(plan, journal, trial, on_event) for trial in todo], on_event)
        if request.figures:  # all cores are free again: no timed trial shares them
            finished = [id for id, result in results.items() if result.status == "finished"]
            warnings += draw_missing(journal, finished, tracker.notify if tracker else lambda _: None, screen.note)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        screen.end()
        closing = tracker.close(5 if interrupted else 60) if tracker else None
    if closing:
        warnings.append(closing)
    reported = [_reported(trial, plan, results) for trial in plan.trials]
    equivalence = compare(reported, plan.suite.parity.margin_pct)
    if equivalence and (coarse := caveat(plan.trials)):
        warnings.append(coarse)
    uri = redact(tracker.uri) if tracker else None
    return Outcome(plan.suite.name, plan.run_dir, uri, reported, interrupted, warnings, equivalence)


def _write_plan(request: Request, plan: Plan, journal: Journal) -> None:
    document = {
        "suite": plan.suite.name,
        "question": plan.suite.question,
        "source": str(request.suite),
        "overrides": list(request.overrides),
        "quick": request.quick,
        "trials": [trial.model_dump(mode="json") for trial in plan.trials],
    }
    journal.write_plan(document, plan.suite.source)
    journal.write_environment(plan.environment)


def _tracker(request: Request, journal: Journal, warnings: list[str]) -> Tracker | None:
    if not request.track:
        return None
    if importlib.util.find_spec("mlflow") is None:
        warnings.append(
            "MLflow is not installed: the journal holds everything; where it is installed, "
            f"capsbench sync {journal.run_dir} brings it in"
        )
        return None
    tracker = Tracker(journal, request.mlflow_uri)
    tracker.start()
    return tracker


def _job(plan: Plan, journal: Journal, trial: Trial, emit: Emit) -> Job:
    """The next attempt; if it cannot go on where the last one ended, it says so."""
    attempt, point = journal.next_attempt(trial.id), resume_point(journal, trial)
    if point.warning:
        event = {"kind": "warning", "message": point.warning}
        emit(trial.id, {"trial": trial.id, "attempt": attempt, "time": time.time(), **event})
    start = weights_file(trial.train.start_from) if trial.train.start_from else None
    return Job(trial, plan.run_dir, attempt, point.epoch, point.checkpoint or start, point.recorded)


def _reported(trial: Trial, plan: Plan, results: Mapping[str, Result]) -> Result:
    """The trial's result; one that could not be tried here has failed, and says what is missing."""
    if verdict := plan.unavailable.get(trial.id):
        others = len(plan.unavailable) < len(plan.trials)
        hint = "; ".join(filter(None, ("the others went on" if others else "", verdict.hint)))
        return Result(
            trial.id,
            trial.impl,
            trial.params,
            trial.seed,
            "failed",
            cause=verdict.cause,
            error="Unavailable",
            hint=hint,
        )
    return results[trial.id]
