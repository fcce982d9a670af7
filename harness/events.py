"""Events: what a worker tells of a trial, and what the journal keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Event = dict[str, Any]
FINAL = ("result", "failed", "interrupted")  # kinds of event: every attempt that began ends with one of these

FILES = ("checkpoint", "weights", "best_weights", "predictions")
"""Fields of an event that name a file of the trial's folder, written before the event."""

Record = Mapping[str, Any]
"""What an event says of a file that it names: {"sha256": its SHA-256 in hexadecimal, "bytes": its size}."""
