"""The precision of matrix products. `bf16` rounds their operands, in both directions, and nothing else.

For y = a b, the backward pass has the products g b^T and a^T g: a, b and the gradient g at y are the operands. Rounded
values stay float32, so a CPU without bfloat16 arithmetic computes the same function, though no faster. A GPU's tensor
cores multiply such values exactly in TF32, which includes all bfloat16 numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow import Tensor


def rounded(x: Tensor) -> Tensor:
    """Rounds to the nearest bfloat16, keeping the type."""
    return tf.cast(tf.cast(x, tf.bfloat16), x.dtype)


def operand(x: Tensor, precision: str) -> Tensor:
    """Rounds `x` for a product; the gradient passes unchanged."""
    return _rounded_forward(x) if precision == "bf16" else x


def result(y: Tensor, precision: str) -> Tensor:
    """A product `y`, whose gradient, an operand of the backward products, is rounded."""
    return _rounded_backward(y) if precision == "bf16" else y


def linear(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """x @ weight + bias."""
    product = tf.matmul(operand(x, precision), operand(weight, precision))
    return tf.nn.bias_add(result(product, precision), bias)


def configure(precision: str) -> None:
    """Process-wide: what precision a GPU may use for float32 products.

    Operands already rounded to bfloat16 lose nothing more in the hardware's TF32.
    """
    tf.config.experimental.enable_tensor_float_32_execution(precision in ("tf32", "bf16"))


@tf.custom_gradient
def _rounded_forward(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return rounded(x), lambda grad: grad


@tf.custom_gradient
def _rounded_backward(y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return tf.identity(y), rounded
