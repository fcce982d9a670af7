"""Squash and capsule lengths, and their derivatives, with a different epsilon than the specification's, in any place.

Each function and its slope depend only on n = s.s; `layers` does the rest.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Float

from harness.spec import Epsilon

Array = Any


def squash_scale(n: Float[Array, "*n 1"], epsilon: Epsilon) -> tuple[Float[Array, "*n 1"], Float[Array, "*n 1"]]:
    """f and f' of squash(s) = s f(n): n / (1 + n) / root, with epsilon in its place. f' is zero where n is zero."""
    xp, e = array_namespace(n), epsilon.value
    if epsilon.place == "square":  # m / (1 + m) / sqrt(m), which divides nothing by zero
        m = n + e
        root = xp.sqrt(m)
        return root / (1 + m), xp.where(m > 0, 0.5 * (1 - m) / _safe(root) / (1 + m) / (1 + m), 0 * m)
    if epsilon.place == "inside":
        root = xp.sqrt(n + e)
        half = 0.5 / root  # the root's slope
    else:
        bare = xp.sqrt(n)
        half = 0.5 / _safe(bare)
        if epsilon.place == "product":  # n / ((1 + n) sqrt(n) + e)
            whole = (1 + n) * bare + e
            return n / whole, xp.where(n > 0, 1 / whole - n / whole * (bare + (1 + n) * half) / whole, 1 / whole)
        root = bare + e
    scale = n / (1 + n) / root
    return scale, 1 / (1 + n) / (1 + n) / root - scale / root * half


def length(n: Float[Array, "*n"], epsilon: Epsilon) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """sqrt(n) with epsilon in its place, and twice its slope, which is zero if the radicand is zero."""
    xp = array_namespace(n)
    root = xp.sqrt(n + epsilon.value if epsilon.place == "inside" else n)
    added = epsilon.value if epsilon.place == "outside" else 0.0
    return root + added, xp.where(root > 0, 1 / _safe(root), 0 * root)


def _safe(root: Array) -> Array:
    """`root` with zeros replaced by one, for division."""
    return array_namespace(root).where(root > 0, root, 0 * root + 1)
