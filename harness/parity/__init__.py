"""Is this CapsNet right? Comparisons with the executable specification, `impls.numpy`, in float64."""

from harness.parity.check import LEVELS, Check, Report, compare, relative_error
from harness.parity.ladder import Ladder
from harness.parity.probe import adam_update, image_count, probe_moments, probe_weights, probes

__all__ = [
    "LEVELS", "Check", "Ladder", "Report", "adam_update", "compare", "image_count", "probe_moments",
    "probe_weights", "probes", "relative_error",
]  # fmt: skip
