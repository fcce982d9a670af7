"""Implementations climb the ladder in separate processes: the supervisor's side of `harness.worker.parity`."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import UserError
from harness.events import FailedEvent
from harness.events.processes import PARITY, CallingEvent, RefusedEvent, ReportEvent, ReturnedEvent, SuspectsEvent
from harness.machine.leases import lease, local_cores, local_gpus
from harness.machine.whole_node import node_lease
from harness.parity.check import LEVELS, Check, Report
from harness.spec.trial import Trial
from harness.supervisor.child import started
from harness.supervisor.seat import Seat, forwarded_environment, forwarded_paths, interruptible, worker_environment

PRECISIONS = ("fp64", "fp32")  # in which an implementation is proven
_POLL_S = 0.2
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Climb:
    """One implementation in one precision; `trial` has one core, and a GPU if requested."""

    trial: Trial
    level: str
    time_limit_s: float
    log_path: Path
    accept: tuple[str, ...] = ()  # conventions, as `harness.spec.conventions.accepted` takes them

    @property
    def who(self) -> str:
        return f"{self.trial.impl} {self.trial.runtime.precision}"


def run_climbs(climbs: Sequence[Climb], tell: Tell) -> list[Report]:
    """Runs all climbs, each on its own core, as many at once as there are cores; `tell` gets a line at start, wait and end.

    Reports come in the order of `climbs`. Whatever an implementation does, there is a report. Raises `UserError` for
    one that cannot be imported or lacks a method, `KeyboardInterrupt` after Ctrl-C or SIGTERM; in both cases all
    processes have ended.
    """
    base = {**os.environ, **forwarded_environment()}
    crew = Crew(base, tell)
    order = sorted(range(len(climbs)), key=lambda i: _rank(climbs[i]))
    with interruptible() as interrupted, ThreadPoolExecutor(at_once(climbs)) as pool:
        futures = {i: pool.submit(crew.climb, climbs[i]) for i in order}
        running = [futures[i] for i in range(len(climbs))]
        try:
            while (done := wait(running, _POLL_S, FIRST_EXCEPTION)).not_done:
                if interrupted.is_set() or any(future.exception() for future in done.done):
                    break
        finally:
            crew.stop.set()  # ends climbs that are still running, if any
        if interrupted.is_set():
            raise KeyboardInterrupt
    failures = [error for future in running if (error := future.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, KeyboardInterrupt)):
        raise error  # the refusal comes before the interruptions that it caused
    return [future.result() for future in running]


def at_once(climbs: Sequence[Climb]) -> int:
    """One climb per core or, if they need GPUs, one per GPU."""
    limits = [len(climbs), len(local_cores())]
    if any(climb.trial.gpus for climb in climbs):
        limits.append(len(local_gpus()))
    return max(1, min(limits))


def _rank(climb: Climb) -> tuple[int, bool]:
    """The longest first, so that no long climb is left at the end; the others in the order requested."""
    entry = registry.known(climb.trial.impl)
    slow = entry.slow_start if entry else 0
    return -slow, slow > 0 and climb.trial.runtime.precision != "fp32"


class Crew:
    """State shared by the climbs of one command."""

    def __init__(self, base: dict[str, str], tell: Tell) -> None:
        self._base, self._tell = base, tell
        self.stop = threading.Event()
        self._turn = threading.Lock()  # two of our threads leasing at once would mistake each other for another command

    def climb(self, climb: Climb) -> Report:
        with ExitStack() as held:
            seat = self._seat(climb, held)
            if self.stop.is_set():
                raise KeyboardInterrupt
            self._tell(f"{climb.who}: started")
            report = _supervise(climb, self._base, seat, self.stop)
        failed = report.failed_level
        self._tell(f"{climb.who}: {report.verdict}{f' at {failed}' if failed else ''}")
        return report

    def _seat(self, climb: Climb, held: ExitStack) -> Seat:
        """A core, and a GPU if needed, until `held` is closed."""

        def waiting(message: str) -> None:
            self._tell(f"{climb.who}: {message}")

        gpus = climb.trial.gpus
        with self._turn:
            held.enter_context(node_lease(False, waiting=waiting, stop=self.stop))
            cores = held.enter_context(lease("core", local_cores(), 1, waiting=waiting, stop=self.stop))
            found = local_gpus() if gpus else ()
            return Seat(cores, held.enter_context(lease("gpu", found, gpus, waiting=waiting, stop=self.stop)))


def _supervise(climb: Climb, base: dict[str, str], seat: Seat, stop: threading.Event) -> Report:
    """The climb's report; if it does not finish, the comparisons made so far and a failure at that point."""
    deadline = time.monotonic() + climb.time_limit_s
    level, calling, inside = LEVELS[0], "", False
    report = Report(
        climb.trial.impl, climb.trial.runtime.precision, climb.trial.model.variant, (), conventions=climb.accept
    )
    complete = False  # once true, only suspects can follow, and the report does not depend on these

    def ended(name: str, note: str) -> Report:
        return report if complete else with_checks(report, [asdict(Check(level, name, math.inf, 1.0, note=note))])

    document = {
        "trial": climb.trial.model_dump(mode="json"),
        "level": climb.level,
        "accept": list(climb.accept),
        "cores": list(seat.cores),
        "paths": forwarded_paths(climb.trial.interpreter),
    }
    env = worker_environment(climb.trial, seat, base)
    with started(
        "harness.worker.parity", PARITY, document, env, climb.log_path, interpreter=climb.trial.interpreter
    ) as child:
        for event in child.events:
            if stop.is_set():
                raise KeyboardInterrupt
            if event is None:
                if time.monotonic() > deadline:
                    where = _place(calling, inside)
                    return ended("time limit", f"the time limit of {climb.time_limit_s:g} s ran out {where}")
                continue
            match event:
                case CallingEvent():
                    level, calling, inside = event.level, event.method, True
                    report = with_checks(report, event.checks)
                case ReturnedEvent():
                    inside = False
                case ReportEvent():
                    report = replace(with_checks(report, event.checks), skipped=event.skipped, images=event.images)
                    complete = True
                    if not event.suspects_follow:
                        return report
                case SuspectsEvent():
                    return diagnosed(report, event)
                case RefusedEvent():
                    raise UserError(event.message)
                case FailedEvent():
                    return ended("exception", event.cause)
                case _:
                    pass
    return ended("process", f"its process {child.death()} {_place(calling, inside)}")


def diagnosed(report: Report, event: SuspectsEvent) -> Report:
    """The report with its diagnosis; if conventions explain everything, also with the checks made under them."""
    suspects, conventions, unexplained = map(tuple, (event.suspects, event.conventions, event.unexplained))
    again = with_checks(replace(report, checks=()), event.checks)
    if again.checks:
        unexplained = unexplained if again.ok else (*unexplained, *sorted({c.level for c in again.checks if not c.ok}))
        report = again
    return replace(report, suspects=suspects, conventions=conventions, unexplained=unexplained)


def with_checks(report: Report, rows: Sequence[dict[str, Any]]) -> Report:
    """The report with more checks, given as `dataclasses.asdict` and JSON represent them."""
    checks = [Check(**row) for row in rows]
    checks = [check if check.where is None else replace(check, where=tuple(check.where)) for check in checks]
    return replace(report, checks=(*report.checks, *checks))


def _place(calling: str, inside: bool) -> str:
    if not calling:
        return "before its first call"
    return f"in its {calling}" if inside else f"after its {calling}, outside of its methods"
