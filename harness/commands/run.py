"""`capsbench run`: from a suite to results. Finished trials are kept, unfinished ones resumed; nothing is lost."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from harness import data
from harness.analysis.equivalence import Pair, caveat, compare, sentence
from harness.commands import parser
from harness.commands.output import print_json
from harness.commands.plan import Plan, RunRequest, anew, make_executor, make_plan, reasons, requested, surrounding
from harness.errors import Stopped, UserError, of_the_system
from harness.events import FINAL, InterruptedEvent, TrialEvent, WaitingEvent, WarningEvent
from harness.executors.base import Emit, Executor, Job
from harness.executors.warmth import arranged
from harness.journal.carry import carry_over
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.journal.resume import resume_point
from harness.spec.trial import Trial
from harness.suite.file import is_passing
from harness.suite.longer import Shorter
from harness.suite.start import weights_file
from harness.supervisor.seat import as_interrupts
from harness.views.figures.draw import draw_missing
from harness.views.mlflow.tracking import Tracker
from harness.views.mlflow.where import locate, redact
from harness.views.screen import Screen, own_console
from harness.views.tables import comparison, print_table, remarks
from harness.views.tensorboard import FOLDER, LiveFiles, require_writer

_FEW = 24
"""Trials up to which all get figures unless told otherwise: these take some seconds each."""


@dataclass(frozen=True)
class Outcome:
    """What `run` produces: results in the plan's order, and further notes for the user."""

    suite: str
    run_dir: Path
    mlflow_uri: str | None
    results: list[Result]
    interrupted: bool
    source: Path  # of the suite; what came through a pipe is read again from the run directory
    warnings: list[str] = field(default_factory=list[str])
    equivalence: list[Pair] = field(default_factory=list[Pair])  # empty if the plan has only one seed

    @property
    def exit_code(self) -> int:
        """0 if all is good, 1 if a trial, its parity or its audit failed, 130 if interrupted."""
        if self.interrupted:
            return 130
        return int(any(result.status != "finished" or result.flaw for result in self.results))

    def to_json(self) -> dict[str, Any]:
        """The output of `run --json`."""
        return {
            "suite": self.suite,
            "run_dir": str(self.run_dir),
            "mlflow_uri": self.mlflow_uri,
            "trials": [result.to_json() for result in self.results],
            "warnings": self.warnings,
            "equivalence": [pair.to_json() for pair in self.equivalence],
        }


def run(
    request: RunRequest,
    screen_of: Callable[[Mapping[str, float | None]], Screen],
    show: Callable[[Sequence[Result]], None] = lambda _: None,
) -> Outcome:
    """Runs what is not yet finished; `screen_of(estimates)` makes the screen. `show` gets the results before figures are drawn.

    Raises `UserError` before anything is started or written if the request cannot be met.
    """
    if request.track and (request.mlflow_uri or importlib.util.find_spec("mlflow")):
        locate(request.out, request.mlflow_uri)
    if request.tensorboard:
        require_writer()
    executor, note = make_executor(request)
    try:
        plan = make_plan(request, executor)
        todo = [trial for trial in plan.trials if plan.states[trial.id] not in ("finished", "unavailable")]
        if set(plan.states.values()) == {"unavailable"}:
            raise UserError("; ".join(reasons(plan)))
        for config in {trial.data.model_dump_json(): trial.data for trial in todo}.values():
            data.ensure(config, progress=True)
        with Journal(plan.run_dir).open() as journal:
            return _execute(request, plan, todo, executor, journal, screen_of(plan.estimates), note, show)
    finally:
        executor.close()


def _execute(
    request: RunRequest,
    plan: Plan,
    todo: Sequence[Trial],
    executor: Executor,
    journal: Journal,
    screen: Screen,
    note: str | None,
    show: Callable[[Sequence[Result]], None],
) -> Outcome:
    by_id = {trial.id: trial for trial in plan.trials}
    results = dict(plan.results)
    warnings = [*([note] if note else []), *anew(plan), *plan.notes]
    source = plan.run_dir / "suite.yaml" if is_passing(request.suite) else request.suite
    _write_plan(request, plan, source, journal)
    tracker = _tracker(request, journal, warnings)
    board = LiveFiles(journal, by_id) if request.tensorboard else None

    def tell(trial_id: str, event: TrialEvent) -> None:
        if tracker:
            tracker.notify(trial_id)
        if board:
            board.update(trial_id)
        screen.update(trial_id, event)

    def on_event(trial_id: str, event: TrialEvent) -> None:
        if isinstance(event, WaitingEvent):  # for a core or GPU: matters only now
            screen.note(event.message)
            return
        journal.append(trial_id, event)
        if isinstance(event, FINAL):
            results[trial_id] = summarise(by_id[trial_id], journal.events(trial_id))
            if not isinstance(event, InterruptedEvent):
                journal.write_result(trial_id, results[trial_id].to_json())
        tell(trial_id, event)

    def report() -> list[Result]:
        reported = [_reported(trial, plan, results) for trial in plan.trials]
        if not shown:
            shown.append(True)
            screen.end()
            show(reported)
        return reported

    shown: list[bool] = []
    interrupted = False
    screen.begin(plan.trials, cached={trial.id for trial in plan.trials if plan.states[trial.id] == "finished"})
    try:
        began = time.monotonic()
        if todo:
            if executor.name == "ray":
                screen.note("starting Ray")
            for trial in todo:
                if shorter := plan.goes_on.get(trial.id):
                    _go_on(journal, shorter, trial, tell, on_event)
            executor.run(arranged([_job(plan, journal, trial, on_event) for trial in todo]), on_event)
        report()
        # All cores are free again, so this disturbs no timed trial.
        warnings += _draw(request, journal, plan, results, time.monotonic() - began if todo else None, tracker, screen)
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:
        if not (cause := of_the_system(error)):
            raise
        where = f"{plan.run_dir}: " if error.filename is None else ""
        raise Stopped(f"{where}{cause}. What had finished is kept: after that, give the same command again") from error
    finally:
        screen.end()
        closing = tracker.close(5 if interrupted else 60) if tracker else None
        lacking = board.close() if board else None
    warnings += filter(None, (closing, lacking))
    reported = report()
    equivalence = compare(reported, plan.suite.parity.margin_pct)
    if equivalence and (coarse := caveat(plan.trials)):
        warnings.append(coarse)
    uri = redact(tracker.uri) if tracker else None
    return Outcome(plan.suite.name, plan.run_dir, uri, reported, interrupted, source, warnings, equivalence)


def _draw(
    request: RunRequest,
    journal: Journal,
    plan: Plan,
    results: Mapping[str, Result],
    trained_s: float | None,
    tracker: Tracker | None,
    screen: Screen,
) -> list[str]:
    """Draws the missing figures that are asked for, for no longer than the training took; warnings and notes on the rest."""
    finished = [trial for trial in plan.trials if results[trial.id].status == "finished"]
    wanted = request.figures or ("all" if len(finished) <= _FEW else "last")
    chosen = {
        "all": [trial.id for trial in finished],
        "last": [*{trial.impl: trial.id for trial in finished}.values()],
        "none": [],
    }[wanted]
    notes: list[str] = []
    if wanted == "last" and request.figures is None:
        rest = f"--figures all, or capsbench figures {shlex.quote(str(journal.run_dir))}, draws all"
        notes = [f"figures of {len(chosen)} of {len(finished)} trials, the last one of each implementation: {rest}"]
    with as_interrupts():
        told = draw_missing(journal, chosen, tracker.notify if tracker else lambda _: None, screen.note, trained_s)
    return [*notes, *told]


def _write_plan(request: RunRequest, plan: Plan, source: Path, journal: Journal) -> None:
    document = {
        "suite": plan.suite.name,
        "question": plan.suite.question,
        "source": str(source),
        "overrides": list(request.overrides),
        "quick": request.quick,
        "trials": [trial.model_dump(mode="json") for trial in plan.trials],
    }
    journal.write_plan(document, plan.suite.source)
    journal.write_environment(plan.environment)


def _tracker(request: RunRequest, journal: Journal, warnings: list[str]) -> Tracker | None:
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


def _go_on(journal: Journal, shorter: Shorter, trial: Trial, tell: Emit, emit: Emit) -> None:
    """Takes over the shorter trial's epochs and tells so.

    If that fails, emits a warning, and the next best one is taken; if there is none, the trial is trained anew.
    """
    try:
        tell(trial.id, carry_over(journal, trial, shorter.trial, shorter.journal))
    except (UserError, OSError) as error:
        message = f"does not go on from {shorter}: {error}"
        emit(trial.id, WarningEvent(message=message, time=time.time()).of(trial.id, journal.next_attempt(trial.id)))
        if shorter.next_best:
            _go_on(journal, shorter.next_best, trial, tell, emit)


def _job(plan: Plan, journal: Journal, trial: Trial, emit: Emit) -> Job:
    """The next attempt; emits a warning if it cannot resume where the last one ended."""
    attempt, point = journal.next_attempt(trial.id), resume_point(journal, trial)
    if point.warning:
        emit(trial.id, WarningEvent(message=point.warning, time=time.time()).of(trial.id, attempt))
    start = weights_file(trial.train.start_from) if trial.train.start_from else None
    return Job(trial, plan.run_dir, attempt, point.epoch, point.checkpoint or start, point.recorded)


def _reported(trial: Trial, plan: Plan, results: Mapping[str, Result]) -> Result:
    """The trial's result; a trial that could not be tried here counts as failed and says what is missing."""
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


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench run`."""
    parser.scheduled(command)
    parser.mlflow(command)
    command.add_argument(
        "--no-mlflow", action="store_true", help="keep the journal only; `capsbench sync` can follow later"
    )
    figures = command.add_mutually_exclusive_group()
    figures.add_argument(
        "--figures", choices=("all", "last", "none"),
        help="of which trials to draw figures at the end, for no longer than the training took: all, the last one of each "
        f"implementation, or none; default: all of up to {_FEW} trials, else last; `capsbench figures` can follow later",
    )  # fmt: skip
    figures.add_argument("--no-figures", action="store_true", help="the same as --figures none")
    command.add_argument(
        "--tensorboard", action="store_true",
        help="keep event files for TensorBoard up to date in RUN/tensorboard; `capsbench sync --tensorboard` can follow later",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    console = own_console(args.json)
    if not args.no_mlflow and importlib.util.find_spec("mlflow") and (line := locate(args.out, args.mlflow_uri).line):
        console.print(Text(line), soft_wrap=True)
    outcome = run(
        requested(args),
        lambda estimates: Screen(console, estimates),
        lambda results: print_table(console, comparison(results)),
    )
    lines = [Text(sentence(pair)) for pair in outcome.equivalence]
    lines += [*remarks(outcome.results, outcome.run_dir), *(Text(warning, "yellow") for warning in outcome.warnings)]
    lines += [Text(line, "yellow") for line in surrounding()]
    for line in [Text(), *lines] if lines else []:
        console.print(line, soft_wrap=True)
    console.print(Text(f"\nJournal, logs and weights: {outcome.run_dir}"), soft_wrap=True)
    if outcome.interrupted:
        given = [str(outcome.source) if each == str(args.suite) else each for each in sys.argv[1:]]
        again = shlex.join(["capsbench", *given])
        console.print(Text(f"Interrupted; nothing finished is lost. To go on: {again}", "yellow"), soft_wrap=True)
    elif outcome.mlflow_uri:
        where = "" if args.out == Path("runs") else f" --out {shlex.quote(str(args.out))}"
        where += f" --mlflow-uri {shlex.quote(redact(args.mlflow_uri))}" if args.mlflow_uri else ""
        console.print(Text(f"Compare in the browser: capsbench ui{where}"), soft_wrap=True)
    if args.tensorboard:
        told = f"Watch in TensorBoard: tensorboard --logdir {shlex.quote(str(outcome.run_dir / FOLDER))}"
        console.print(Text(told), soft_wrap=True)
    if len({result.seed for result in outcome.results}) > 1 and not outcome.interrupted:
        told = f"Intervals over seeds, differences, published figures: capsbench report {shlex.quote(str(outcome.run_dir))}"
        console.print(Text(told), soft_wrap=True)
    if args.json:
        print_json(outcome.to_json())
    return outcome.exit_code
