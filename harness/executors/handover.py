"""Events cross from the thread that Tune runs in to the main one, which can thus leave a Ray that no longer answers."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from harness.events import TrialEvent
from harness.executors.base import Emit


class Abandoned(BaseException):
    """Nobody takes events any more. No `Exception`: Tune would handle it."""


class Handover:
    """An `emit` for any thread, which returns, or raises, once `take` has called the real one in the thread that made this."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._owner = threading.get_ident()
        self._waiting: SimpleQueue[tuple[str, TrialEvent, Future[None]]] = SimpleQueue()
        self._is_over = False

    def __call__(self, trial_id: str, event: TrialEvent) -> None:
        if threading.get_ident() == self._owner:
            self._emit(trial_id, event)
            return
        if self._is_over:
            raise Abandoned
        done: Future[None] = Future()
        self._waiting.put((trial_id, event, done))
        done.result()

    def take(self, patience_s: float) -> None:
        """Emits the next event, if one comes within the time."""
        try:
            trial_id, event, done = self._waiting.get(timeout=patience_s)
        except Empty:
            return
        try:
            self._emit(trial_id, event)
        except BaseException as error:  # for the thread that waits: it knows what to end first
            done.set_exception(error)
        else:
            done.set_result(None)

    def abandon(self) -> None:
        """Takes no more events; who waits, or comes later, gets `Abandoned`."""
        self._is_over = True
        while not self._waiting.empty():
            self._waiting.get()[2].set_exception(Abandoned())
