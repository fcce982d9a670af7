"""Events: all that a process tells another, and all that the journal keeps. A model for each kind.

An event is a line of JSON with its "kind". `trial` holds the kinds that the journal keeps, `processes` those that only pass
between a worker and its supervisor. docs/run-directory.md lists both.
"""

from harness.events.base import Event, Kinds, Malformed, UnknownEvent
from harness.events.processes import (
    EXAMINATION,
    GAUGE,
    PARITY,
    SPEED,
    CallingEvent,
    ExaminedEvent,
    GaugeReadyEvent,
    PartsEvent,
    RateEvent,
    RefusedEvent,
    ReportEvent,
    ReturnedEvent,
    RoundEvent,
    SpeedReadyEvent,
    SuspectsEvent,
    TraceEvent,
)
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
    "EXAMINATION", "FINAL", "GAUGE", "PARITY", "SPEED", "TRIAL", "AttemptEvent", "CallingEvent", "EpochEvent", "Event",
    "ExaminedEvent", "FailedEvent", "FinalEvent", "GaugeReadyEvent", "InterruptedEvent", "Kinds", "Malformed",
    "ParityEvent", "PartsEvent", "RateEvent", "ReadyEvent", "Record", "RefusedEvent", "ReportEvent", "ResultEvent",
    "ReturnedEvent", "RoundEvent", "SpeedReadyEvent", "SuspectsEvent", "TraceEvent", "TrialEvent", "UnknownEvent",
    "WaitingEvent", "WarningEvent",
]  # fmt: skip
