"""What the process of an implementation tells the demo: `harness.demo.process` to `harness.demo.frameworks`."""

from __future__ import annotations

from typing import Literal

from harness.events import Event, FailedEvent, InterruptedEvent, Kinds, WarningEvent
from harness.events.processes import RefusedEvent


class WarmEvent(Event):
    """The implementation has the weights, and has answered once."""

    kind: Literal["warm"] = "warm"
    library: str
    """What it computes with, and its version: "torch 2.9.1"."""


class AnswerEvent(Event):
    """The forward pass on one image."""

    kind: Literal["answer"] = "answer"
    number: int
    """Which request it answers."""
    seconds: float
    """How long the forward pass took."""
    outputs: dict[str, str]
    """The fields of `harness.spec.Outputs` that there are, for the one image: little-endian float64 in Base64."""


MESSAGES = Kinds(WarmEvent, AnswerEvent, WarningEvent, RefusedEvent, FailedEvent, InterruptedEvent)
