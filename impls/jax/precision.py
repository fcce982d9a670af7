"""Matrix products whose operands are rounded first: `Runtime.precision` for the convolutions, the votes and the decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


@dataclass(frozen=True)
class Products:
    """How products are computed, on which device: "fp32", "fp64", "tf32" or "bf16", accumulated in float32 (fp64: 64).

    Of bf16, operands and the gradients of results are rounded here (nearest even), whatever the device: the same function
    everywhere. A GPU's matrix units then take them as they are; so do they round for tf32, where nothing is rounded here.
    """

    on_cpu: bool
    precision: str

    def __call__(self, product: Callable[[Array, Array], Array], x: Array, w: Array) -> Array:
        """product(x, w), which is linear in both, on rounded operands, in the forward pass and in the backward pass."""
        result = product(self.operand(x), self.operand(w))
        return _rounded_gradient(result) if self.precision == "bf16" else result

    def operand(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """As a product takes it."""
        return _rounded(x) if self.precision == "bf16" else x

    def matmul(self, x: Float[Array, "*n a b"], w: Float[Array, "*n b c"]) -> Float[Array, "*n a c"]:
        return self(partial(jnp.matmul, precision=self._algorithm), x, w)

    @property
    def _algorithm(self) -> lax.DotAlgorithmPreset | lax.Precision:
        """Of matrix products."""
        if self.on_cpu or self.precision not in _ALGORITHMS:
            return lax.Precision.HIGHEST
        return _ALGORITHMS[self.precision]

    @property
    def convolution(self) -> lax.Precision:
        """Of XLA's own convolutions: by default a GPU takes 10 bits of mantissa, in which bfloat16 is exact."""
        return lax.Precision.DEFAULT if self.precision in _ALGORITHMS else lax.Precision.HIGHEST


_ALGORITHMS = {
    "bf16": lax.DotAlgorithmPreset.BF16_BF16_F32,
    "tf32": lax.DotAlgorithmPreset.TF32_TF32_F32,
}


def _bfloat16(x: Array) -> Array:
    """Rounded, but still of its type; XLA takes a cast there and back for an identity."""
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@jax.custom_vjp
def _rounded(x: Array) -> Array:
    """Rounds the value; the gradient passes as it is."""
    return _bfloat16(x)


@jax.custom_vjp
def _rounded_gradient(y: Array) -> Array:
    """Passes the value as it is; rounds the gradient."""
    return y


_rounded.defvjp(lambda x: (_bfloat16(x), None), lambda _, grad: (grad,))
_rounded_gradient.defvjp(lambda y: (y, None), lambda _, grad: (_bfloat16(grad),))
