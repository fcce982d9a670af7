"""Measures in separate processes, in turns: the supervisor's side of `harness.worker.speed`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness import progress, registry
from harness.cost.peak import expected_bytes
from harness.events import Event, FailedEvent, WarningEvent
from harness.events.processes import (
    GAUGE,
    SPEED,
    GaugeReadyEvent,
    PartsEvent,
    RateEvent,
    RefusedEvent,
    RoundEvent,
    SpeedReadyEvent,
    TraceEvent,
)
from harness.machine.environment import available_memory_bytes
from harness.machine.leases import lease, local_cores, local_gpus
from harness.machine.rates import installed as installed_libraries
from harness.machine.whole_node import node_lease
from harness.spec.trial import Interpreter, Trial
from harness.supervisor.child import Child, started
from harness.supervisor.parity import Tell
from harness.supervisor.seat import Seat, forwarded_environment, forwarded_paths, interruptible, worker_environment

_MODULE = "harness.worker.speed"
_HOLDER = "capsbench speed"
E = TypeVar("E", bound=Event)
_MARGIN = 1.2  # safety factor for memory


@dataclass(frozen=True)
class Method:
    """The settings of a measurement."""

    rounds: int
    steps: int  # of each timed call
    matmul: int  # rows and columns
    gate: bool
    time_limit_s: float  # for one measurement, not counting its waits for the others
    logs: Path
    trace: Path | None = None
    pythons: Mapping[str, Interpreter] = field(default_factory=dict[str, Interpreter])  # of built-in implementations
    parts: bool = True  # of a step, too


@dataclass(frozen=True)
class Failure:
    """Why a measurement has no figures: a short verdict, its cause in one line, and what to do if that is known."""

    verdict: str
    cause: str
    hint: str | None = None


@dataclass
class Record:
    """Everything found out in one measurement, in that order."""

    name: str
    trial: Trial
    log_path: Path
    ready: dict[str, Any] = field(default_factory=dict[str, Any])
    rounds: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    parts: list[dict[str, float]] = field(default_factory=list[dict[str, float]])  # timed alone
    cuts: list[list[dict[str, Any]]] = field(default_factory=list[list[dict[str, Any]]])  # of the step, by turn
    beside: list[float] = field(default_factory=list[float])  # seconds of the whole step in these turns
    trace: str | None = None
    failure: Failure | None = None
    warnings: list[str] = field(default_factory=list[str])


@dataclass
class Session:
    """The results of one command: its measurements, the rates of libraries that none of them uses, and remarks on both."""

    records: list[Record]
    rates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    warnings: list[str] = field(default_factory=list[str])


def measure(records: Sequence[Record], method: Method, tell: Tell) -> Session:
    """Makes every measurement, all on the same cores, only one at a time; `tell` gets a line at every step.

    They take turns in every round, so that a drift of the machine does not look like a difference between them. If
    memory does not hold all processes, they are made in groups. Whatever happens, each gets a record. Raises
    `UserError` if there are not enough cores or GPUs, `KeyboardInterrupt` after Ctrl-C or SIGTERM; all processes have
    ended then.
    """
    session = Session(list(records))
    cpus, gpus = max(record.trial.cpus for record in records), max(record.trial.gpus for record in records)
    with interruptible() as stop, ExitStack() as held:
        held.enter_context(node_lease(False, waiting=tell, stop=stop))
        cores = held.enter_context(lease("core", local_cores(), cpus, waiting=tell, stop=stop, holder=_HOLDER))
        found = local_gpus() if gpus else ()
        seat = Seat(cores, held.enter_context(lease("gpu", found, gpus, waiting=tell, stop=stop, holder=_HOLDER)))
        bench = _Bench(method, seat, stop, tell, session)
        gauges = bench.start_gauges(held)
        waiting = list(records)
        while waiting:
            with ExitStack() as group:
                running = bench.start_group(waiting, group)
                bench.take_rounds(running, gauges)
    return session


class _Nothing(Event):
    """The answer of a worker told to end; none exists."""


class _Worker:
    """A running worker and its time limit."""

    def __init__(self, child: Child, patience_s: float, stop: threading.Event, warnings: list[str]) -> None:
        self._child, self._patience_s, self._limit_s, self._stop = child, patience_s, patience_s, stop
        self._warnings = warnings
        self.failure: Failure | None = None

    def end(self) -> None:
        """Tells it to end, and waits until it has."""
        self._child.say("end")
        self.hear(_Nothing)

    def ask(self, order: str, kind: type[E]) -> E | None:
        """Its answer; None if there is none: its process has then ended, and `failure` says why."""
        self._child.say(order)
        return self.hear(kind)

    def hear(self, kind: type[E]) -> E | None:
        """The next event of this kind."""
        last = time.monotonic()
        for event in self._child.events:
            if self._stop.is_set():
                raise KeyboardInterrupt
            now = time.monotonic()
            self._patience_s, last = self._patience_s - (now - last), now
            if event is None:
                if self._patience_s < 0:
                    return self._fail("time limit", f"the time limit of {self._limit_s:g} s ran out")
                continue
            if isinstance(event, kind):
                return event
            match event:
                case WarningEvent():
                    self._warnings.append(event.message)
                case RefusedEvent():
                    return self._fail("refused", event.message)
                case FailedEvent():
                    return self._fail(_verdict(event), event.cause, event.hint)
                case _:
                    pass
        self._child.end()
        return self._fail("process", f"its process {self._child.death()}")

    def _fail(self, verdict: str, cause: str, hint: str | None = None) -> None:
        self.failure = Failure(verdict, cause, hint)
        self._child.end()


class _Bench:
    """State shared by the measurements of one command."""

    def __init__(self, method: Method, seat: Seat, stop: threading.Event, tell: Tell, session: Session) -> None:
        self._method, self._seat, self._stop, self._tell, self._session = method, seat, stop, tell, session
        self._base = {**os.environ, **forwarded_environment()}
        self._needed = 0  # bytes of the largest worker so far

    def start_gauges(self, held: ExitStack) -> list[_Worker]:
        """Starts workers for the installed libraries that no measurement uses on the CPU."""
        on_cpu = [record.trial for record in self._session.records if not record.trial.gpus]
        if not on_cpu:
            return []
        measured = {trial.impl for trial in on_cpu}
        pythons = self._method.pythons
        others = [registry.resolve(name) for name in pythons]
        started = {
            entry.library: self._start(
                on_cpu[0].model_copy(update={"interpreter": pythons.get(entry.name)}),
                {"trial": None, "impl": entry.name},
                self._method.logs / f"matmul-{entry.library}.log",
                held,
                self._session.warnings,
            )
            for entry in dict.fromkeys((*installed_libraries(), *others))
            if entry.name not in measured
        }
        for library, worker in started.items():
            if worker.hear(GaugeReadyEvent) is None and worker.failure:
                self._session.warnings.append(
                    f"{library}: its matrix product could not be measured: {worker.failure.cause}"
                )
        return [worker for worker in started.values() if worker.failure is None]

    def start_group(self, waiting: list[Record], group: ExitStack) -> list[tuple[Record, _Worker]]:
        """Starts as many of `waiting` as memory holds, at least one; returns those that became ready."""
        running: list[tuple[Record, _Worker]] = []
        while waiting:
            record = waiting[0]
            available = available_memory_bytes()
            needed = _MARGIN * max(self._needed, expected_bytes(record.trial.model, record.trial.train.batch))
            if running and available is not None and available < needed:
                self._session.warnings.append(
                    f"{record.name} and those after it were measured after the others, not in turns with them: "
                    f"{available / 1e9:.1f} GB of memory were left, and a worker takes up to {needed / 1e9:.1f} GB"
                )
                break
            waiting.pop(0)
            if worker := self._prepare(record, group):
                running.append((record, worker))
        return running

    def _prepare(self, record: Record, group: ExitStack) -> _Worker | None:
        self._tell(f"{record.name}: started")
        trial, trace = record.trial, self._method.trace
        document = {
            "trial": trial.model_dump(mode="json"),
            "steps": self._method.steps,
            "gate": self._method.gate,
            "trace": str((trace / f"{record.name}.json.gz").absolute()) if trace else None,
        }
        if str(trial.runtime.precision) == "tf32" and not trial.gpus:
            record.failure = Failure("unsupported", "a CPU has no tf32: it is a format of NVIDIA GPUs", "take fp32")
        else:
            worker = self._start(trial, document, record.log_path, group, record.warnings)
            if ready := worker.hear(SpeedReadyEvent):
                record.ready = ready.to_json()
                self._needed = max(self._needed, ready.needed_bytes)
                self._tell(f"{record.name}: ready, compiled in {ready.compile_s:.1f} s")
                return worker
            record.failure = worker.failure
        self._tell(f"{record.name}: FAILED")
        return None

    def take_rounds(self, running: list[tuple[Record, _Worker]], gauges: Sequence[_Worker]) -> None:
        """All rounds of steps, then as many of the parts, then the traces. One that fails is dropped."""
        rounds = self._method.rounds
        for number in progress.track(range(1, rounds + 1), "rounds"):
            if running:
                self._tell(f"round {number} of {rounds}")
            for gauge in gauges if running else ():
                if gauge.failure is None and (rate := gauge.ask("rate", RateEvent)):
                    self._session.rates.append(rate.to_json())
            for record, worker in list(running):
                if answer := worker.ask("round", RoundEvent):
                    record.rounds.append(answer.to_json())
                else:
                    record.failure = worker.failure
                    self._tell(f"{record.name}: FAILED in round {number}")
                    running.remove((record, worker))
        if self._method.parts:
            self._take_parts(running)
        if self._method.trace:
            for record, worker in list(running):
                answer = self._ask_more(record, worker, "trace", TraceEvent, running)
                record.trace = answer.path if answer else None
                if record.trace is None and worker.failure is None:
                    record.warnings.append("no trace: the implementation has no trace()")
        for _, worker in running:
            worker.end()

    def _take_parts(self, running: list[tuple[Record, _Worker]]) -> None:
        """As many rounds again for the parts of a step, if an implementation provides them; half if one gives two passes."""
        telling = list(running)
        rounds = self._method.rounds
        with progress.task("parts of a step", -(-rounds // 2)) as turns:
            for number in range(1, rounds + 1):
                if not telling:
                    return
                self._tell(f"parts of a step, turn {number}")
                for record, worker in list(telling):
                    answer = self._ask_more(record, worker, "parts", PartsEvent, running)
                    if answer and answer.cuts is not None and answer.step_s is not None:
                        record.cuts.append(answer.cuts)
                        record.beside.append(answer.step_s)
                        if 2 * len(record.cuts) >= rounds:
                            telling.remove((record, worker))
                    elif answer and answer.parts is not None:
                        record.parts.append(answer.parts)
                        turns.total = rounds
                    else:
                        telling.remove((record, worker))
                turns.advance()

    def _ask_more(
        self, record: Record, worker: _Worker, order: str, kind: type[E], running: list[tuple[Record, _Worker]]
    ) -> E | None:
        """Further questions once it has been timed: a failure now costs it no figure."""
        if answer := worker.ask(order, kind):
            return answer
        running.remove((record, worker))
        cause = worker.failure.cause if worker.failure else "no answer"
        record.warnings.append(f"no {'breakdown' if order == 'parts' else order}: {cause}")
        return None

    def _start(
        self, trial: Trial, job: dict[str, Any], log_path: Path, until: ExitStack, warnings: list[str]
    ) -> _Worker:
        """Starts a worker with a trial's environment, on the cores and GPUs of this command."""
        seat, where = Seat(self._seat.cores[: trial.cpus], self._seat.gpus[: trial.gpus]), trial.interpreter
        document = {"matmul": self._method.matmul, "cores": list(seat.cores), "paths": forwarded_paths(where), **job}
        env = worker_environment(trial, seat, self._base)
        kinds = SPEED if document["trial"] else GAUGE
        child = until.enter_context(started(_MODULE, kinds, document, env, log_path, interpreter=where))
        return _Worker(child, self._method.time_limit_s, self._stop, warnings)


def _verdict(event: FailedEvent) -> str:
    """A word or two for a "failed" event."""
    if event.error == "ParityFailed":
        return "parity"
    return "out of memory" if (event.hint or "").startswith("not enough memory") else "failed"
