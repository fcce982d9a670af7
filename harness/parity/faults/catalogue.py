"""All known faults together: those that a diagnosis compares with, and those beside them that the ladder has to catch."""

from __future__ import annotations

from harness.parity.faults.detail import DETAIL_FAULTS
from harness.parity.faults.evaluation import EVALUATION_FAULTS
from harness.parity.faults.optimiser import OPTIMISER_FAULTS
from harness.parity.faults.plan import PLAN_FAULTS

MORE_FAULTS = (*DETAIL_FAULTS, *EVALUATION_FAULTS, *OPTIMISER_FAULTS, *PLAN_FAULTS)
"""Beside `FAULTS`, `CNN_FAULTS` and `OVERLAY_FAULTS`. Without edits: one that the specification has no place for."""
