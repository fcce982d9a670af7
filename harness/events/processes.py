"""The events of processes that run no trial: comparisons, measurements, examinations. None of them is kept."""

from __future__ import annotations

from typing import Any, Literal

from harness.events.base import Bytes, Event, Kinds, Text
from harness.events.trial import FailedEvent, InterruptedEvent, WarningEvent


class RefusedEvent(Event):
    """What was asked for cannot be done, and the user can mend it."""

    kind: Literal["refused"] = "refused"
    message: Text
    """What was wrong and what to do."""


# Comparisons


class CallingEvent(Event):
    """A method of the implementation is about to be called."""

    kind: Literal["calling"] = "calling"
    method: str
    """Its name."""
    level: str
    """The level of the ladder: "L1" to "L6"."""
    checks: list[dict[str, Any]]
    """What was compared since the last such event: fields of `harness.parity.Check`."""


class ReturnedEvent(Event):
    """The method has returned."""

    kind: Literal["returned"] = "returned"


class ReportEvent(Event):
    """The climb has ended, well or not."""

    kind: Literal["report"] = "report"
    checks: list[dict[str, Any]]
    """What was compared since the last event that told of it."""
    skipped: dict[str, str]
    """Level -> why it was left out."""
    images: int
    """How many different images were compared."""
    suspects_follow: bool
    """Whether a "suspects" event is to come."""


class SuspectsEvent(Event):
    """What a failure looks like."""

    kind: Literal["suspects"] = "suspects"
    suspects: list[str]
    """Faults that, all together, make the specification behave like the implementation."""
    conventions: list[str]
    """Conventions that it computes by, as `--accept` takes them."""
    unexplained: list[str]
    """What else is off."""
    checks: list[dict[str, Any]]
    """Of a second climb by these conventions, if they explain all; else empty."""


# Measurements


class SpeedReadyEvent(Event):
    """A measurement is built, compiled, compared and warm."""

    kind: Literal["ready"] = "ready"
    import_s: float
    """Seconds to import the framework and the implementation."""
    build_s: float
    """Seconds to build the model and to hand it weights and images."""
    compile_s: float
    """Seconds to compile."""
    warmup_s: float
    """Seconds of the first steps and evaluation."""
    peak_bytes: Bytes
    """The most memory that the process held for the implementation."""
    device_peak_bytes: Bytes | None
    """The most memory of the device; null: it does not tell."""
    needed_bytes: Bytes
    """The most memory that the process held, the gate's included."""
    flops_per_step: int
    """Operations of a training step, by the direct algorithm."""
    bytes_per_step: int
    """Bytes that a training step moves at least."""


class GaugeReadyEvent(Event):
    """A gauge, which measures a library's matrix product alone, is ready."""

    kind: Literal["ready"] = "ready"


class RateEvent(Event):
    """A matrix product has been measured."""

    kind: Literal["rate"] = "rate"
    library: str
    """Whose it is."""
    flops_per_s: float
    """Operations per second."""
    bytes_per_s: float | None = None
    """Bytes copied per second; on GPUs alone."""


class RoundEvent(Event):
    """A measurement has had its turn."""

    kind: Literal["round"] = "round"
    rate: dict[str, Any]
    """The machine at that moment: the fields of a "rate" event."""
    step_s: float
    """Seconds of a training step."""
    eval_s: float
    """Seconds of evaluating a batch."""
    joules_per_step: float | None = None
    """Energy of a training step; absent where the hardware does not count it."""
    observed: list[dict[str, Any]]
    """What else the machine did: fields of `harness.machine.noise.Observation`."""
    device_peak_bytes: Bytes | None
    """The most memory of the device so far; null: it does not tell."""


class PartsEvent(Event):
    """The parts of a training step have been measured."""

    kind: Literal["parts"] = "parts"
    parts: dict[str, float] | None = None
    """Part -> seconds, each timed alone; absent: the implementation does not tell them."""
    cuts: list[dict[str, Any]] | None = None
    """The fields of `harness.worker.parts.Timed` of each cut of the step; absent: it cannot be cut short."""
    step_s: float | None = None
    """Seconds of a whole training step in the same turn, measured as in a round; absent without `cuts`."""


class TraceEvent(Event):
    """A profile has been taken."""

    kind: Literal["trace"] = "trace"
    path: str | None = None
    """Where it was written; absent: the implementation cannot."""


# Examinations


class ExaminedEvent(Event):
    """A model without an adapter has been examined. Its further fields are what was found.

    They are those of `harness.worker.ordinary.examined`, or of `harness.parity.ordinary.pair.compared` for a pair.
    """

    kind: Literal["examined"] = "examined"

    def found(self) -> dict[str, Any]:
        """What was found, by name."""
        return dict(self.model_extra or {})


_ENDS = (RefusedEvent, FailedEvent, InterruptedEvent)

PARITY = Kinds(CallingEvent, ReturnedEvent, ReportEvent, SuspectsEvent, WarningEvent, *_ENDS)
"""What `harness.worker.parity` says."""
SPEED = Kinds(SpeedReadyEvent, RoundEvent, PartsEvent, TraceEvent, WarningEvent, *_ENDS)
"""What `harness.worker.speed` says of a measurement."""
GAUGE = Kinds(GaugeReadyEvent, RateEvent, WarningEvent, *_ENDS)
"""What `harness.worker.speed` says of a library's matrix product."""
EXAMINATION = Kinds(ExaminedEvent, WarningEvent, *_ENDS)
"""What `harness.worker.ordinary` says."""
