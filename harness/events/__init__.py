"""Events: all that one process tells another, and all that the journal keeps. There is a model for each kind.

An event is a line of JSON with its "kind". `harness.events.trial` has the kinds that the journal keeps, which this
package exports; `harness.events.processes` has those that only pass between a worker and its supervisor.
docs/run-directory.md lists both.
"""

from harness.events.base import Event, Kinds, Malformed, UnknownEvent
from harness.events.trial import (
    FINAL,
    TRIAL,
    AttemptEvent,
    ContinuedEvent,
    EpochEvent,
    FailedEvent,
    FinalEvent,
    InterruptedEvent,
    ParityEvent,
    ReadyEvent,
    Record,
    ResultEvent,
    TrialEvent,
    WaitingEvent,
    WarningEvent,
)

__all__ = [
    "FINAL", "TRIAL", "AttemptEvent", "ContinuedEvent", "EpochEvent", "Event", "FailedEvent", "FinalEvent",
    "InterruptedEvent", "Kinds", "Malformed", "ParityEvent", "ReadyEvent", "Record", "ResultEvent", "TrialEvent",
    "UnknownEvent", "WaitingEvent", "WarningEvent",
]  # fmt: skip
