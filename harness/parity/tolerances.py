"""How far from the specification still counts as equal: the one table, by precision and kind of quantity.

Measured by `benchmarks/parity_errors.py` over both profiles, three image sizes, 1 to 10 routing iterations, compact and
full-size models, in all three frameworks on a CPU; docs/parity.md has its output.
"""

from __future__ import annotations

# Float64 proves the algorithm: only rounding is left, amplified by routing and by Adam's division. Largest errors
# found: forward 2e-14, loss 4e-16, gradients and moments 1e-12, updates 2e-13, losses of training 9e-14.
FLOAT64 = {
    "forward": 1e-9, "loss": 1e-9, "grad": 1e-8, "moment": 1e-8, "update": 1e-8, "trajectory": 1e-8, "exact": 1e-7,
}  # fmt: skip

# Float32: this many times the float32 specification's own distance from float64, plus a floor, since that distance is a
# single sample of a random error. Floors are at least five times what was needed.
TWIN = 3.0
FLOOR32 = {
    "forward": 3e-5, "loss": 2e-6, "grad": 2e-4, "moment": 5e-4, "update": 2e-6, "trajectory": 2e-4, "exact": 1e-7,
}  # fmt: skip

# Operands with fewer digits: two computations that agree to float32 may sometimes round an operand to different
# neighbours, a 256th apart. Floors are about five times what that needed with bf16. An implementation that does not
# round at all fails at L3 or L4, in some models narrowly. TF32, which only GPUs have, has not been measured: it has the
# same tolerances.
FLOOR_OPERANDS = {
    "forward": 1.5e-2, "loss": 1.5e-4, "grad": 1.5e-2, "moment": 1.5e-2, "update": 1e-5, "trajectory": 4e-3, "exact": 1e-7,
}  # fmt: skip

# "exact" is for what is copied or counted: weights are handed over in float32.


def bound(kind: str, precision: str, twin_error: float = 0.0) -> float:
    """The largest accepted relative error; `twin_error` is the float32 specification's."""
    if precision == "fp64":
        return FLOAT64[kind]
    floor = FLOOR32 if precision == "fp32" else FLOOR_OPERANDS
    return TWIN * twin_error + floor[kind]


def spared(kind: str, precision: str) -> float:
    """The fraction of a gradient's or a moment's elements that is ignored if operands are rounded.

    An operand rounded to the other neighbour can switch a ReLU: all the gradients of that unit change.
    """
    return 0.01 if precision in ("bf16", "tf32") and kind in ("grad", "moment") else 0.0
