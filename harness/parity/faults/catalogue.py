"""All known faults: those that a diagnosis compares with, and further ones that the ladder must catch."""

from __future__ import annotations

from harness.parity.faults.detail import DETAIL_FAULTS
from harness.parity.faults.evaluation import EVALUATION_FAULTS
from harness.parity.faults.optimiser import OPTIMISER_FAULTS
from harness.parity.faults.plan import PLAN_FAULTS

MORE_FAULTS = (*DETAIL_FAULTS, *EVALUATION_FAULTS, *OPTIMISER_FAULTS, *PLAN_FAULTS)
"""In addition to `FAULTS`, `CNN_FAULTS` and `OVERLAY_FAULTS`. A fault without edits has no place in the specification."""
