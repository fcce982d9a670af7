"""Differentiable layers of a CapsNet's variants: NumPy, and what `autograd` traces of it.

Axis letters as in the specification: B images, I primary capsules of d dimensions, J output capsules of e dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy
from autograd import numpy as _traced  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from autograd.extend import defvjp, primitive  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from harness.spec.conventions import Epsilon

Array = Any
np: Any = _traced


def _windows(x: Array, kernel: int, stride: int) -> Array:
    """(B, y, x, c) -> (B, h, w, c, k, k)"""
    return numpy.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def _convolve(x: Array, w: Array, stride: int) -> Array:
    """Cross-correlation, VALID padding: (B, y, x, c) and (k, k, c, f) -> (B, h, w, f)."""
    return numpy.tensordot(_windows(x, w.shape[0], stride), w, ((4, 5, 3), (0, 1, 2)))


def _input_vjp(_answer: Array, x: Array, w: Array, stride: int) -> Any:
    def pulled(grad: Array) -> Array:
        kernel, (rows, columns) = w.shape[0], grad.shape[1:3]
        spread, total = numpy.tensordot(grad, w, ((3,), (3,))), numpy.zeros(x.shape)  # (B, h, w, k, k, c)
        for i in range(kernel):
            for j in range(kernel):
                total[:, i : i + rows * stride : stride, j : j + columns * stride : stride] += spread[:, :, :, i, j]
        return total

    return pulled


def _kernel_vjp(_answer: Array, x: Array, w: Array, stride: int) -> Any:
    def pulled(grad: Array) -> Array:
        return numpy.tensordot(_windows(x, w.shape[0], stride), grad, ((0, 1, 2), (0, 1, 2))).transpose(1, 2, 0, 3)

    return pulled


convolution: Any = primitive(_convolve)  # pyright: ignore[reportUnknownVariableType]
defvjp(convolution, _input_vjp, _kernel_vjp, None)  # pyright: ignore[reportUnknownMemberType]


def relu(x: Array) -> Array:
    """No gradient where x is zero, as in every framework."""
    return np.where(x > 0, x, 0.0)


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(x: Array, axis: int) -> Array:
    exponential = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return exponential / np.sum(exponential, axis=axis, keepdims=True)


def root(n: Array) -> Array:
    """The square root, with gradient zero where n is zero."""
    return np.where(n > 0, np.sqrt(np.where(n > 0, n, 1.0)), 0.0)


def squash(s: Array, formula: str, axis: str, epsilon: Epsilon) -> Array:
    """Eq. 1 or a variant of it; `s` is (B, capsules, dimensions), and the norm is over `axis`."""
    if formula == "none":
        return s
    over = {"dimensions": -1, "capsules": 1, "images": 0}
    n = s * s if axis == "single" else np.sum(s * s, axis=over[axis], keepdims=True)
    return s * _scale(n, formula, epsilon)


def _scale(n: Array, formula: str, epsilon: Epsilon) -> Array:
    """The factor of s, from n = s.s."""
    e, place = epsilon.value, epsilon.place
    if place == "square":
        n = n + e
        if formula in ("paper", "half"):  # nothing is divided by |s|
            return root(n) / ((1 if formula == "paper" else 0.5) + n)
    bare = np.sqrt(n + e) if place == "inside" else root(n)
    above, below = {
        "paper": (n, 1 + n),
        "half": (n, 0.5 + n),  # as in an example of Keras
        "unit": (1.0, 1.0),
        "norm": (bare, 1 + bare),  # |s| for |s|^2
        "factor": (n * bare, 1 + n),  # s is not divided by its length
        "exponential": (1 - np.exp(-bare), 1.0),  # Efficient-CapsNet
    }[formula]
    if place == "product":
        return above / (below * bare + e)
    return above / below / (bare + e if place == "outside" else bare)


def length(v: Array, epsilon: Epsilon) -> Array:
    """(..., e) -> (...)"""
    n = np.sum(v * v, axis=-1)
    if epsilon.place == "inside":
        return np.sqrt(n + epsilon.value)
    return root(n) + (epsilon.value if epsilon.place == "outside" else 0.0)
