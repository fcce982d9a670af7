"""Every implementation in a process of its own, kept warm: the demo's end. `harness.demo.process` is the other one."""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import models, registry
from harness.demo.messages import MESSAGES, AnswerEvent, WarmEvent
from harness.environments.interpreters import elsewhere
from harness.errors import UserError
from harness.events import FailedEvent
from harness.events.processes import RefusedEvent
from harness.machine.leases import local_cores
from harness.machine.surroundings import child_environment, in_another_python
from harness.prediction.trained import Trained
from harness.spec.trial import Interpreter
from harness.supervisor.child import Child, started
from harness.supervisor.seat import forwarded_environment, forwarded_paths
from harness.weights.files import save_weights

_MODULE = "harness.demo.process"
_STARTS = 3  # of a process that dies: one that is killed for memory would be killed again
_PATIENCE_S = 30.0
_SHORTAGE = "ended while it answered"


@dataclass(frozen=True)
class Contestant:
    """An implementation that can compute here, in its own Python if that is another one."""

    entry: registry.Entry
    precision: str
    interpreter: Interpreter | None = None

    @property
    def is_reference(self) -> bool:
        """Whether it is the specification in float64, which all others are compared with."""
        return self.entry.name == registry.SPECIFICATION


def contestants(trained: Trained, wanted: Sequence[str] = ()) -> tuple[list[Contestant], dict[str, str]]:
    """The specification, then the frameworks (or those `wanted`); and name -> why another one cannot compute here.

    Without `wanted`, those that can: the built-in ones, and what trained. Raises `UserError` for a wanted one that cannot.
    """
    own = [trained.impl] if trained.impl and registry.known(trained.impl) else []
    names = dict.fromkeys(wanted or (*registry.FRAMEWORKS, *own))
    names.pop(registry.SPECIFICATION, None)
    found, problems = [Contestant(registry.resolve(registry.SPECIFICATION), "fp64")], dict[str, str]()
    for name in names:
        try:
            entry = registry.resolve(name)
            where = elsewhere(name, trained.interpreter if name == trained.impl else None)
            lacking = models.lacking(trained.model.kind, entry.base)
            if reason := lacking or (registry.missing(entry) if where is None else None):
                raise UserError(reason)
            found.append(Contestant(entry, "fp64" if trained.precision == "fp64" else "fp32", where))
        except UserError as error:
            if wanted:
                raise UserError(f"--impl {name}: {str(error).removeprefix(f'{name}: ')}") from error
            problems[name] = str(error)
    return found, problems


class Framework:
    """One process, started again if it dies. `state` is "starting", "ready" or "failed", and `said` why it failed."""

    def __init__(self, contestant: Contestant, document: dict[str, Any], log: Path) -> None:
        self.contestant, self.name = contestant, contestant.entry.name
        self.state, self.said, self.library = "starting", "", ""
        own = {"impl": self.name, "precision": contestant.precision, "cores": list(local_cores())}
        self._document = {**document, **own, "paths": forwarded_paths(contestant.interpreter)}
        self._log, self._stop = log, threading.Event()
        self._child: Child | None = None
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self._asked: dict[int, Future[AnswerEvent]] = {}
        self._thread = threading.Thread(target=self._keep, name=f"demo-{self.name}", daemon=True)
        self._thread.start()

    def ask(self, layers: Sequence[bytes]) -> Future[AnswerEvent]:
        """The answer to one image; `UserError` where there is none."""
        asked: Future[AnswerEvent] = Future()
        with self._lock:
            if self._child is None or self.state != "ready":
                asked.set_exception(UserError(self.said or "it is starting"))
                return asked
            number = next(self._numbers)
            self._asked[number] = asked
            encoded = [base64.b64encode(layer).decode() for layer in layers]
            self._child.say(json.dumps({"number": number, "layers": encoded}))
        return asked

    def end(self) -> None:
        """Tells it to end; `join` waits for that."""
        self._stop.set()

    def join(self) -> None:
        self._thread.join()

    def _keep(self) -> None:
        for _ in range(_STARTS):
            self.said, is_warm = "", False
            try:
                env = _environment(self.contestant)
                with started(
                    _MODULE, MESSAGES, self._document, env, self._log, interpreter=self.contestant.interpreter
                ) as child:
                    is_warm = self._follow(child)
                    child.end()
                self.said = self.said or f"its process {child.death()}; its log is {self._log}"
            except UserError as error:
                self.said = str(error)
            except Exception as error:  # a thread that ended in silence would be waited for
                self.said = f"{type(error).__name__}: {error}"
            self._drop()
            if self._stop.is_set() or not is_warm:
                break
            self.state = "starting"
        self.state = "failed"

    def _follow(self, child: Child) -> bool:
        """Passes on what it says until it ends; whether it ever was ready."""
        is_warm = False
        for event in child.events:
            if self._stop.is_set():
                break
            match event:
                case WarmEvent():
                    with self._lock:
                        self._child, self.library, self.state, is_warm = child, event.library, "ready", True
                case AnswerEvent():
                    with self._lock:
                        asked = self._asked.pop(event.number, None)
                    if asked:
                        asked.set_result(event)
                case RefusedEvent():
                    self.said = event.message
                case FailedEvent():
                    self.said = event.cause + (f"; {event.hint}" if event.hint else "")
                case _:
                    pass
        return is_warm

    def _drop(self) -> None:
        with self._lock:
            self._child = None
            asked, self._asked = list(self._asked.values()), {}
        for each in asked:
            each.set_exception(UserError(self.said or _SHORTAGE))


class Frameworks:
    """All of them, at once."""

    def __init__(self, each: Iterable[Framework]) -> None:
        self.each = list(each)

    def state(self) -> list[dict[str, Any]]:
        """JSON-able: of each, its name, precision, state, what it computes with, and what is wrong with it."""
        return [
            {"name": one.name, "precision": one.contestant.precision, "is_reference": one.contestant.is_reference,
             "state": one.state, "library": one.library, "said": one.said if one.state == "failed" else ""}
            for one in self.each
        ]  # fmt: skip

    def ask(self, layers: Sequence[bytes]) -> list[dict[str, Any]]:
        """As `state`, with "ms" and "outputs" of those that answered. They compute side by side."""
        asked = [(one, one.ask(layers)) for one in self.each]
        deadline = time.monotonic() + _PATIENCE_S
        answers: dict[str, dict[str, Any]] = {}
        for one, future in asked:
            with suppress(UserError, TimeoutError):
                answer = future.result(max(0.0, deadline - time.monotonic()))
                answers[one.name] = {"ms": 1000 * answer.seconds, "outputs": answer.outputs}
        return [{**state, **answers.get(state["name"], {})} for state in self.state()]


@contextmanager
def running(trained: Trained, each: Sequence[Contestant], folder: Path) -> Generator[Frameworks]:
    """A process for each, with the weights of `trained`, until the block ends. Logs and weights go to `folder`."""
    weights = folder / "weights.safetensors"
    save_weights(weights, trained.weights)
    document = {"model": trained.model.model_dump(mode="json"), "weights": str(weights)}
    processes = [
        Framework(one, document, folder / f"{number}-{one.entry.short_name or 'log'}.log")
        for number, one in enumerate(each)
    ]
    try:
        yield Frameworks(processes)
    finally:
        for one in processes:
            one.end()
        for one in processes:
            one.join()


def _environment(contestant: Contestant) -> dict[str, str]:
    """Of a process on one thread, without a GPU, complete before its Python starts."""
    env = child_environment({**os.environ, **forwarded_environment()})
    for name, value in registry.environment(contestant.entry.name, 1, contestant.precision, False).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env |= {**threads, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    return in_another_python(env) if contestant.interpreter else env
