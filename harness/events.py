"""Events: what a worker tells of a trial, and what the journal keeps."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]
FINAL = ("result", "failed", "interrupted")  # kinds of event: every attempt that began ends with one of these

FILES = ("checkpoint", "weights", "best_weights", "predictions")
"""Fields of an event that name a file of the trial's folder, written before the event."""
