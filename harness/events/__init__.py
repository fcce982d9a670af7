"""Events: all that a process tells another, and all that the journal keeps. A model for each kind.

An event is a line of JSON with its "kind". `harness.events.trial` holds the kinds that the journal keeps, and is what this
package offers; `harness.events.processes` those that only pass between a worker and its supervisor. docs/run-directory.md lists
both.
"""

from harness.events.base import Event, Kinds, Malformed, UnknownEvent
from harness.events.trial import (
    FINAL,
    TRIAL,
    AttemptEvent,
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
    "FINAL", "TRIAL", "AttemptEvent", "EpochEvent", "Event", "FailedEvent", "FinalEvent", "InterruptedEvent", "Kinds",
    "Malformed", "ParityEvent", "ReadyEvent", "Record", "ResultEvent", "TrialEvent", "UnknownEvent", "WaitingEvent",
    "WarningEvent",
]  # fmt: skip
