"""Is this CapsNet right? Comparisons with the executable specification, `impls.numpy`, in float64."""

from harness.parity.gate import TensorCheck, Verdict, gate, probe_weights, relative_error

__all__ = ["TensorCheck", "Verdict", "gate", "probe_weights", "relative_error"]
