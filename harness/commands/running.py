"""The course of `capsbench run`: from a plan to results. Finished trials are kept, unfinished ones resumed; nothing is lost."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import data
from harness.analysis.equivalence import Pair, caveat, compare
from harness.analysis.search import Search, of_journal
from harness.commands import registering, storing
from harness.commands.beside import begin_tracking, draw, reached
from harness.commands.plan import (
    Plan,
    RunRequest,
    anew,
    make_executor,
    make_plan,
    read_suite,
    reasons,
    room_for,
)
from harness.commands.stopping import ended_by, stops
from harness.cost.pace import pace
from harness.errors import UserError, of_the_system
from harness.events import FINAL, FailedEvent, InterruptedEvent, TrialEvent, WaitingEvent, WarningEvent
from harness.executors.base import Emit, Executor, Job, Lost
from harness.executors.warmth import arranged
from harness.journal.carry import carry_over
from harness.journal.journal import Journal
from harness.journal.origin import origin
from harness.journal.results import Result, kept_epochs, summarise
from harness.journal.resume import resume_point
from harness.journal.room import Room, sweep
from harness.spec.trial import Trial
from harness.storage.mirror import Mirror
from harness.suite.file import is_passing
from harness.suite.longer import Shorter
from harness.suite.start import weights_file
from harness.supervisor.seat import as_interrupts
from harness.views.mlflow.where import locate, redact
from harness.views.screen import Screen
from harness.views.tensorboard import LiveFiles, require_writer


@dataclass(frozen=True)
class Outcome:
    """What `run` produces: results in the plan's order, and further notes for the user."""

    suite: str
    run_dir: Path
    mlflow_uri: str | None
    results: list[Result]
    interrupted: bool
    source: Path  # of the suite; what came through a pipe is read again from the run directory
    stopped: str | None = None  # why it could not go on, such as a full disk
    warnings: list[str] = field(default_factory=list[str])
    equivalence: list[Pair] = field(default_factory=list[Pair])  # empty if the plan has only one seed
    search: Search | None = None
    is_lacking: bool = False  # MLflow was required, and results are missing in it
    storage: str | None = None  # where the run is kept, too

    @property
    def exit_code(self) -> int:
        """0: all is good; 1: a trial, its parity or audit, or a required MLflow failed, or it had to stop; 130: interrupted."""
        if self.interrupted:
            return 130
        judged = [each for each in self.results if (each.phase, each.status) != ("proposal", "failed")]
        failed = any(result.status != "finished" or result.flaw for result in judged)
        failed = failed or bool(self.search and self.search.lost)  # a proposal that failed is an answer, too
        return int(bool(self.stopped) or self.is_lacking or failed)

    def to_json(self) -> dict[str, Any]:
        """The output of `run --json`."""
        return {
            "suite": self.suite,
            "run_dir": str(self.run_dir),
            "mlflow_uri": self.mlflow_uri,
            "storage": self.storage,
            "trials": [result.to_json() for result in self.results],
            "stopped": self.stopped,
            "warnings": self.warnings,
            "equivalence": [pair.to_json() for pair in self.equivalence],
            **({"search": self.search.to_json()} if self.search else {}),
        }


def run(
    request: RunRequest,
    screen_of: Callable[[Mapping[str, float | None]], Screen],
    show: Callable[[Sequence[Result]], None] = lambda _: None,
) -> Outcome:
    """Runs what is not yet finished; `screen_of(estimates)` makes the screen. `show` gets the results before figures are drawn.

    Raises `UserError` before anything is started or written if the request cannot be met.
    """
    trouble = reached(request)
    if request.tensorboard:
        require_writer()
    executor, note = make_executor(request)
    mirror: Mirror | None = None
    try:
        given = read_suite(request)
        if request.register is not None:
            registering.require(request.register, given[0].name, locate(request.out, request.mlflow_uri), request.out)
        mirror = storing.opened(request.storage, given[1])
        plan = make_plan(request, executor, given)
        todo = plan.todo
        if set(plan.states.values()) == {"unavailable"}:
            raise UserError("; ".join(reasons(plan)))
        room = room_for(request, plan, executor)
        doubt = room.require()
        screen = screen_of(plan.estimates)
        for config in {trial.data.model_dump_json(): trial.data for trial in todo}.values():
            data.ensure(config, progress=True)
        with Journal(plan.run_dir).open() as journal:
            if trouble:
                later = locate(request.out, request.mlflow_uri).sync(plan.run_dir)
                screen.say(
                    f"{trouble} The run begins; its results wait in {plan.run_dir}. If MLflow is not back by the end: {later}"
                )
            notes = [each for each in (note, doubt, *executor.notes()) if each]

            def following() -> Plan:
                return make_plan(request, executor, given, is_ours=True)

            return _execute(request, plan, following, executor, journal, screen, room, notes, mirror, show)
    finally:
        executor.close()
        if mirror:
            mirror.close(0)


def _execute(
    request: RunRequest,
    plan: Plan,
    following: Callable[[], Plan],
    executor: Executor,
    journal: Journal,
    screen: Screen,
    room: Room,
    notes: Sequence[str],
    mirror: Mirror | None,
    show: Callable[[Sequence[Result]], None],
) -> Outcome:
    """`following` makes the plan that a search has once all trials of the one before have ended."""
    todo = plan.todo
    by_id = {trial.id: trial for trial in plan.trials}
    results = dict(plan.results)
    warnings = [*notes, *anew(plan), *plan.notes]
    source = plan.run_dir / "suite.yaml" if is_passing(request.suite) else request.suite
    sweep(plan.run_dir, [trial.id for trial in todo])
    with stops(room):
        _write_plan(request, plan, source, journal)
        for id, result in plan.results.items():  # it follows from the journal
            if plan.states[id] == "finished" and not journal.is_result_sound(id):
                journal.write_result(id, result.to_json())
    tracker = begin_tracking(request, journal, screen, warnings)
    board = LiveFiles(journal, by_id) if request.tensorboard else None
    if mirror:
        storing.begin(mirror, journal, screen.note)

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
        refused: OSError | None = None
        if isinstance(event, FailedEvent) and room.is_ours(event):  # no fault of the trial, and the next one's end too
            number = int(getattr(errno, event.error))
            refused = OSError(number, os.strerror(number), event.path or str(plan.run_dir))
            lost = InterruptedEvent(cause=event.cause, error=event.error, time=event.time)
            event = lost.of(trial_id, event.attempt)
        journal.append(trial_id, event)
        if isinstance(event, FINAL):
            results[trial_id] = summarise(by_id[trial_id], journal.events(trial_id))
            if not isinstance(event, InterruptedEvent):
                journal.write_result(trial_id, results[trial_id].to_json())
                room.ended(trial_id)
        if mirror:
            storing.changed(mirror, trial_id, event)
        tell(trial_id, event)
        if refused:
            raise refused
        if doubt := room.after(trial_id, event):
            screen.note(doubt)
            warnings.append(doubt)

    def report() -> list[Result]:
        reported = [_reported(trial, plan, results) for trial in plan.trials]
        if not shown:
            shown.append(True)
            screen.end()
            show(reported)
        return reported

    shown: list[bool] = []
    interrupted, stopped = False, None
    screen.begin(plan.trials, cached={trial.id for trial in plan.trials if plan.states[trial.id] == "finished"})
    if plan.search:
        screen.expect(plan.search.more, plan.left_s)
    try:
        began, has_run = time.monotonic(), bool(todo)
        if todo and executor.name == "ray":
            screen.note("starting Ray")
        while todo:
            for line in executor.notes():
                screen.note(line)
            for trial in todo:
                if shorter := plan.goes_on.get(trial.id):
                    _go_on(journal, shorter, trial, tell, on_event)
            executor.run(arranged([_job(plan, journal, trial, on_event) for trial in todo]), on_event)
            if plan.search is None:
                break
            with as_interrupts():
                later = following()
                fresh = {trial.id: trial for trial in later.trials if trial.id not in by_id}
                by_id |= fresh
                results |= {id: later.results[id] for id in fresh}
                plan, todo = later, [trial for trial in later.todo if trial.id in fresh]
                _write_plan(request, plan, source, journal)
                room.add(room_for(request, plan, executor))
                screen.add([*fresh.values()], plan.estimates, {id for id in fresh if plan.states[id] == "finished"})
                screen.expect(plan.search.more if plan.search else 0, plan.left_s)
                if mirror:
                    storing.planned(mirror, journal)
        report()
        # All cores are free again, so this disturbs no timed trial.
        trained_s = time.monotonic() - began if has_run else None
        warnings += draw(request, journal, plan, results, trained_s, tracker)
    except KeyboardInterrupt:
        interrupted = True
    except Lost as error:
        stopped = str(error)
    except OSError as error:
        if not of_the_system(error):
            raise
        sweep(plan.run_dir, [trial.id for trial in todo])
        stopped = room.told(error)
        results |= ended_by(stopped, error, todo, results, journal)
    finally:
        unsent = storing.finish(mirror, interrupted, screen.note) if mirror else None
        screen.end()
        closing = tracker.close(5 if interrupted or stopped else 60) if tracker else None
        unwritten = board.close() if board else None
    warnings += filter(None, (closing, tracker and tracker.remark, unwritten, unsent))
    reported = report()
    equivalence = compare(reported, plan.suite.parity.margin_pct)
    if equivalence and (coarse := caveat(plan.trials)):
        warnings.append(coarse)
    uri = redact(tracker.uri) if tracker else None
    lacking = request.mlflow_required and closing is not None
    stored = str(mirror.place) if mirror else None
    return Outcome(
        plan.suite.name,
        plan.run_dir,
        uri,
        reported,
        interrupted,
        source,
        stopped,
        warnings,
        equivalence,
        of_journal(journal),
        lacking,
        stored,
    )


def _write_plan(request: RunRequest, plan: Plan, source: Path, journal: Journal) -> None:
    document = {
        "suite": plan.suite.name,
        "question": plan.suite.question,
        "source": str(source),
        "overrides": list(request.overrides),
        "quick": request.quick,
        "trials": [trial.model_dump(mode="json") for trial in plan.trials],
        "search": plan.search.to_json() if plan.search else None,  # not that of an earlier plan
    }
    journal.write_plan(document, plan.suite.source)
    journal.write_environment(plan.environment | origin(request.suite, request.ray_address))


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
    longest_s = max((e.epoch_s + e.eval_s for e in kept_epochs(journal.events(trial.id))), default=None)
    expected = pace(trial, plan.estimates[trial.id], longest_s)
    return Job(trial, plan.run_dir, attempt, point.epoch, point.checkpoint or start, point.recorded, expected)


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
