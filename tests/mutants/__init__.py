"""The faults of `harness.parity.faults.capsnet` in each implementation: framework -> fault -> edits of its source."""

from __future__ import annotations

from harness.parity.faults.capsnet import FAULTS
from harness.parity.faults.mutate import Edit
from tests.mutants import jax, tf, torch

EDITS: dict[str, dict[str, tuple[Edit, ...]]] = {
    "numpy": {fault.name: fault.edits for fault in FAULTS},
    "torch": torch.EDITS,
    "tf": tf.EDITS,
    "jax": jax.EDITS,
}

# framework -> fault -> why it cannot be written there. All of them can.
NOT_WRITTEN: dict[str, dict[str, str]] = {}
