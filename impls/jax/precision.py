"""The precision of matrix products. `bf16` rounds their operands, in both directions, and nothing else.

For y = a b, the backward pass has the products g b^T and a^T g: a, b and the gradient g at y are the operands. They are
rounded here (nearest even) on every device, so the function is the same everywhere; a GPU's matrix units then take them
unchanged. For tf32 the matrix units round, and nothing is rounded here. Sums are float32 (float64 for fp64).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


@dataclass(frozen=True)
class Precision:
    """`Runtime.precision` on a device: "fp32", "fp64", "tf32" or "bf16". Every product tells XLA what it may do."""

    on_cpu: bool
    name: str

    @property
    def algorithm(self) -> lax.DotAlgorithmPreset | lax.Precision:
        """The setting for matrix products."""
        if self.on_cpu or self.name not in _ALGORITHMS:
            return lax.Precision.HIGHEST
        return _ALGORITHMS[self.name]

    @property
    def convolution(self) -> lax.Precision:
        """The setting for XLA's own convolutions: by default a GPU uses 10 mantissa bits, in which bfloat16 is exact."""
        return lax.Precision.DEFAULT if self.name in _ALGORITHMS else lax.Precision.HIGHEST


_ALGORITHMS = {
    "bf16": lax.DotAlgorithmPreset.BF16_BF16_F32,
    "tf32": lax.DotAlgorithmPreset.TF32_TF32_F32,
}


def rounded(x: Array) -> Array:
    """Rounds to the nearest bfloat16, keeping the type; XLA would treat a cast there and back as the identity."""
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def operand(x: Float[Array, "*n"], precision: Precision) -> Float[Array, "*n"]:
    """`x` as it goes into a product; rounding has the gradient of the identity."""
    return _rounded_forward(x) if precision.name == "bf16" else x


def result(y: Float[Array, "*n"], precision: Precision) -> Float[Array, "*n"]:
    """A product as it comes out: its gradient is an operand of the backward pass."""
    return _rounded_backward(y) if precision.name == "bf16" else y


def matmul(x: Float[Array, "*n a b"], w: Float[Array, "*n b c"], precision: Precision) -> Float[Array, "*n a c"]:
    """x @ w."""
    product = jnp.matmul(operand(x, precision), operand(w, precision), precision=precision.algorithm)
    return result(product, precision)


def linear(
    x: Float[Array, "B n"], weight: Float[Array, "n m"], bias: Float[Array, " m"], precision: Precision
) -> Float[Array, "B m"]:
    """x @ weight + bias; biases are not rounded, nor are their gradients."""
    return matmul(x, weight, precision) + bias


def configure(precision: str) -> None:
    """Process-wide: strict float32 on devices that default to less, unless `Precision` differs; float64 if requested."""
    if precision == "fp64":
        jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")


@jax.custom_vjp
def _rounded_forward(x: Array) -> Array:
    """Rounds the value; the gradient passes unchanged."""
    return rounded(x)


@jax.custom_vjp
def _rounded_backward(y: Array) -> Array:
    """Passes the value unchanged; rounds the gradient."""
    return y


_rounded_forward.defvjp(lambda x: (rounded(x), None), lambda _, grad: (grad,))
_rounded_backward.defvjp(lambda y: (y, None), lambda _, grad: (rounded(grad),))
