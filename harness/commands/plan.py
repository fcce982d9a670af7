"""`capsbench plan`: a suite's trials on this machine or cluster, before anything starts."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from harness import registry
from harness.analysis.labels import run_name
from harness.commands import parser
from harness.commands.output import print_json
from harness.commands.pictures import found, notes
from harness.commands.searching import Searched, look, require_fitting, sentence
from harness.cost.estimate import estimate_s
from harness.cost.limits import Verdict, refusal
from harness.cost.space import space
from harness.disk import free_bytes
from harness.environments.interpreters import Interpreters
from harness.errors import UserError
from harness.executors.base import Executor
from harness.executors.inline import InlineExecutor
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.results import Result, finished_trials, summarise
from harness.journal.room import Room
from harness.machine.environment import environment, gpus
from harness.machine.leases import local_gpus, stale_gpus
from harness.machine.surroundings import remark
from harness.spec.trial import Trial
from harness.suite import longer
from harness.suite.longer import Shorter
from harness.suite.suite import Suite, load_suite
from harness.text import duration, megabytes
from harness.views.messages import Console
from harness.views.tables import plan_table, print_table

ExecutorName = Literal["auto", "ray", "inline"]


@dataclass(frozen=True)
class RunRequest:
    """What the command line asked for."""

    suite: Path
    overrides: Sequence[str] = ()
    quick: bool = False
    out: Path = Path("runs")
    executor: ExecutorName = "auto"
    ray_address: str | None = None
    mlflow_uri: str | None = None
    mlflow_required: bool = False  # refuse to start if MLflow cannot be used, and fail if it lacks results at the end
    track: bool = True
    figures: Literal["all", "last", "none"] | None = None  # None: "all" of a few trials, "last" of many
    fresh: bool = False  # train from the first epoch, even where a shorter trial could be gone on from
    go_on_from: Path | None = None  # another run directory with such trials
    tensorboard: bool = False
    storage: str | None = None  # an address where the run is kept, too
    register: str | None = None  # the name of a registered model, "" for the suite's; None: nothing is registered


@dataclass(frozen=True)
class Plan:
    """A suite's trials on this machine or cluster; `results` holds those that are already finished."""

    suite: Suite
    run_dir: Path
    environment: dict[str, Any]
    trials: tuple[Trial, ...]
    results: dict[str, Result]
    states: dict[str, str]  # finished, failed, interrupted, running, pending or unavailable
    unavailable: dict[str, Verdict]  # trial -> why it cannot run here
    estimates: dict[str, float | None]  # trial -> seconds; 0 for a finished one
    goes_on: dict[str, Shorter]  # trial -> the shorter one that it goes on from
    why_not: dict[str, tuple[Shorter, str]]  # trial -> one that it looks as if it could go on from, and why it cannot
    notes: tuple[str, ...] = ()  # on one's own pictures
    search: Searched | None = None  # then more trials may follow from the results of these
    left_s: float | None = 0.0  # seconds of the trials that are not known yet; None: not known either

    @property
    def todo(self) -> list[Trial]:
        """The trials to run now. A proposal that failed has ended: the search has gone on from that."""
        return [trial for trial in self.trials if not _has_ended(trial, self.states)]

    def to_json(self) -> dict[str, Any]:
        """The output of `plan --json`."""
        return {
            "suite": self.suite.name,
            "trials": [self.row(trial) for trial in self.trials],
            "notes": list(self.notes),
            **self._search_json(),
        }

    def _search_json(self) -> dict[str, Any]:
        if self.search is None:
            return {}
        more = {"trials": self.search.more, "estimate_s": self.left_s}
        return {"search": {**self.search.to_json(), "to_come": more}}

    def row(self, trial: Trial) -> dict[str, Any]:
        named = {key: getattr(trial, key) for key in ("id", "impl", "params", "seed", "cpus", "gpus")}
        named |= {"phase": trial.phase} if trial.phase else {}
        shorter = self.goes_on.get(trial.id)
        origin = shorter and {"trial": shorter.trial.id, "epoch": shorter.epoch}
        if shorter and origin and shorter.journal:
            origin["run"] = str(shorter.journal.run_dir)
        return {
            **named,
            "state": self.states[trial.id],
            "estimate_s": self.estimates[trial.id],
            "at_most": trial.train.stop.images is not None,
            "goes_on_from": origin,
        }


def _has_ended(trial: Trial, states: Mapping[str, str]) -> bool:
    state = states[trial.id]
    return state in ("finished", "unavailable") or (trial.is_proposal and state == "failed")


def make_executor(request: RunRequest) -> tuple[Executor, str | None]:
    """The requested executor; `auto` is Ray if it is installed, else inline with a note about it."""
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
    from harness.executors.ray import RayExecutor

    return RayExecutor(request.ray_address), None


def read_suite(request: RunRequest) -> tuple[Suite, Path]:
    """The suite, and the folder of its run. Raises `UserError`."""
    suite = load_suite(request.suite, request.overrides, request.quick)
    return suite, request.out / (f"{suite.name}-quick" if request.quick else suite.name)


def make_plan(
    request: RunRequest, executor: Executor, given: tuple[Suite, Path] | None = None, *, is_ours: bool = False
) -> Plan:
    """Reads the suite, unless it is given, and what is known about its trials. `is_ours`: this process runs them.

    Raises `UserError` for a request that cannot be met.
    """
    suite, run_dir = given or read_suite(request)
    pythons = Interpreters(suite.grid["impl"], suite.environments, suite.path)
    facts = environment() | ({"environments": found} if (found := pythons.record()) else {})

    def fingerprint(impl: str) -> dict[str, Any]:
        return pythons.fingerprint(facts, impl)

    journal, search = Journal(run_dir), None
    try:
        if suite.search:
            require_fitting(suite.search, request.fresh, request.go_on_from)
            search = look(suite, executor.capacity().gpus, fingerprint, journal)
        trials = search.trials if search else suite.trials(executor.capacity().gpus, fingerprint)
        trials = pythons.assigned(trials)
    except UserError as error:
        raise UserError("\n".join(filter(None, (str(error), stale_gpus())))) from error
    executor.check(trials)
    there = {*journal.trial_ids()}
    results = {trial.id: summarise(trial, journal.events(trial.id) if trial.id in there else ()) for trial in trials}
    states: dict[str, str] = {id: result.status for id, result in results.items()}
    if not is_ours and journal.is_live():  # another driver is at work: what looks interrupted is still running
        states = {id: "running" if state == "interrupted" else state for id, state in states.items()}
    # the nodes of a cluster have their own environments
    unavailable = {} if request.ray_address else _unavailable(trials, states, facts)
    unavailable |= _contradictory(trials, states, journal)
    states |= dict.fromkeys(unavailable, "unavailable")
    known = list(finished_trials(request.out))
    untrained = [
        trial
        for trial in trials
        if not _has_ended(trial, states) and states[trial.id] != "running" and not results[trial.id].epochs_trained
    ]
    other = _other_run(request)
    goes_on, why_not = longer.find([] if request.fresh else untrained, journal, fingerprint, other)
    if other and untrained and not any(shorter.journal for shorter in goes_on.values()) and not why_not:
        raise UserError(
            f"--go-on-from {request.go_on_from}: it has no trial that is the same as one of these but for fewer epochs. "
            "All other settings must be equal; drop the option to train from the first epoch."
        )
    estimates = {
        trial.id: 0.0 if _has_ended(trial, states) else estimate_s(_rest(trial, goes_on.get(trial.id)), known)
        for trial in trials
    }
    told, left_s = notes(trials, journal), search.left_s(known) if search else 0.0
    return Plan(
        suite, run_dir, facts, trials, results, states, unavailable, estimates, goes_on, why_not, told, search, left_s
    )


def _other_run(request: RunRequest) -> Journal | None:
    """The run of --go-on-from. Raises `UserError` if it is none."""
    if request.go_on_from is None:
        return None
    if request.fresh:
        raise UserError("--fresh and --go-on-from exclude each other: drop one.")
    require_run(request.go_on_from)
    return Journal(request.go_on_from)


def _rest(trial: Trial, shorter: Shorter | None) -> Trial:
    """The trial with no more than the epochs that are left, as far as time is concerned."""
    if shorter is None:
        return trial
    left = max(1, trial.train.epochs - shorter.epoch)
    return trial.model_copy(update={"train": trial.train.model_copy(update={"epochs": left})})


def _unavailable(trials: Sequence[Trial], states: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Verdict]:
    """Trial -> why it cannot run on this machine, for those unfinished trials that cannot."""
    found: dict[str, Verdict] = {}
    devices = gpus(local_gpus())
    own = dict.fromkeys(trial.impl for trial in trials if trial.interpreter is None)  # others have been asked
    absent = {impl: registry.missing(registry.resolve(impl)) for impl in own}
    without = ",".join(impl for impl in dict.fromkeys(trial.impl for trial in trials) if not absent.get(impl))
    hint = f"to leave it out: -s grid.impl={without}" if without else ""
    for trial in trials:
        if states[trial.id] == "finished":
            continue
        if reason := absent.get(trial.impl):
            found[trial.id] = Verdict(reason, hint)
        elif verdict := refusal(trial, facts["memory_bytes"], devices, facts["cpu"]):
            found[trial.id] = verdict
    return found


def room_for(request: RunRequest, plan: Plan, executor: Executor) -> Room:
    """The room on the disk that the plan's unfinished trials need."""
    todo = plan.todo
    sizes = {trial.id: space(trial, figures=request.figures != "none", track=request.track) for trial in todo}
    together = executor.capacity().cpus // max(1, min((trial.cpus for trial in todo), default=1))
    return Room(plan.run_dir, sizes, 1 if executor.name == "inline" else together)


def _contradictory(trials: Sequence[Trial], states: Mapping[str, str], journal: Journal) -> dict[str, Verdict]:
    """Trial -> that its result.json says finished and its journal does not: whether to train it again is for people to say."""
    found: dict[str, Verdict] = {}
    for trial in trials:
        if states[trial.id] != "finished" and (more := journal.contradiction(trial.id)):
            path = journal.trial_dir(trial.id) / "result.json"
            hint = f"restore events.jsonl from a copy; or, to train it again, delete {path}"
            found[trial.id] = Verdict(f"{path} says {more}", hint)
    return found


def reasons(plan: Plan) -> list[str]:
    """One line for each reason that trials cannot run here: "torch, jax: tf32 needs ..."."""
    impls: dict[Verdict, list[str]] = {}
    for trial in plan.trials:
        if verdict := plan.unavailable.get(trial.id):
            impls.setdefault(verdict, []).append(trial.impl)
    return [
        "; ".join(filter(None, (f"{', '.join(dict.fromkeys(names))}: {verdict.cause}", verdict.hint)))
        for verdict, names in impls.items()
    ]


def anew(plan: Plan) -> list[str]:
    """A line for each reason why trials are trained anew although shorter ones are there."""
    lines: dict[str, list[str]] = {}
    for trial in plan.trials:
        if found := plan.why_not.get(trial.id):
            shorter, reason = found
            line = f"{run_name(trial)} trains anew, not on from {shorter}: {reason}"
            lines.setdefault(reason, []).append(line)
    return [f"{first}{f'; likewise {len(more)} more' if more else ''}" for first, *more in lines.values()]


def surrounding() -> list[str]:
    """What the user's shell asks for and the trials will not find."""
    return [line for line in (stale_gpus(), remark()) if line]


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench plan`."""
    parser.scheduled(command)


def main(args: argparse.Namespace) -> int:
    request = requested(args)
    executor, note = make_executor(request)
    try:
        plan = make_plan(request, executor)
        room = room_for(request, plan, executor)
    finally:
        executor.close()
    console = Console(stderr=args.json)
    if args.json:
        print_json(plan.to_json())
        return 0
    rows = [plan.row(trial) for trial in plan.trials]
    print_table(console, plan_table(rows))
    todo = plan.todo
    seconds = [each for trial in todo if (each := plan.estimates[trial.id]) is not None]
    most = "at most" if any(row["at_most"] for row in rows) else "about"
    unknown = len(seconds) < len(todo)
    total = "time unknown until one has run" if unknown else f"{most} {duration(sum(seconds))}, one after another"
    console.print(f"\n{len(todo)} of {len(rows)} trials to run{f': {total}' if todo else ''}.", highlight=False)
    if plan.search:
        console.print(Text(sentence(plan.search, plan.left_s)), soft_wrap=True)
    if todo and (free := free_bytes(plan.run_dir)) is not None:
        is_full = free < room.about()
        needed = f"Disk: about {megabytes(room.about(), up=True)} needed in {plan.run_dir}, {megabytes(free)} free."
        console.print(Text(needed, "yellow" if is_full else ""), soft_wrap=True)
    for line in found(plan.trials):
        console.print(Text(line), soft_wrap=True)
    for line in [note, *executor.notes(), *reasons(plan), *anew(plan), *surrounding(), *plan.notes]:
        if line:
            console.print(Text(line, "yellow"), soft_wrap=True)
    return 0


def requested(args: argparse.Namespace) -> RunRequest:
    """What the command line of `run` or `plan` asks for."""
    request = RunRequest(args.suite, args.overrides, args.quick, args.out, args.executor, args.ray_address)
    request = replace(request, fresh=args.fresh, go_on_from=args.go_on_from)
    if args.command == "plan":
        return request
    figures = "none" if args.no_figures else args.figures
    request = replace(request, mlflow_uri=args.mlflow_uri, track=not args.no_mlflow, figures=figures)
    request = replace(request, tensorboard=args.tensorboard, mlflow_required=args.mlflow_required)
    return replace(request, storage=args.storage, register="" if args.register is True else args.register)
