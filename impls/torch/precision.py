"""The precision of matrix products. `bf16` rounds their operands, in both directions, and nothing else.

For y = a b, the backward pass has the products g b^T and a^T g: a, b and the gradient g at y are the operands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rounded(x: Tensor) -> Tensor:
    """Rounds to the nearest bfloat16, keeping the type."""
    return x.bfloat16().to(x.dtype)


class _Operand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Result(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return rounded(grad)


def operand(x: Tensor, precision: str) -> Tensor:
    """`x` as it goes into a product; rounding has the gradient of the identity."""
    return _Operand.apply(x) if precision == "bf16" else x


def result(y: Tensor, precision: str) -> Tensor:
    """A product as it comes out: its gradient is an operand of the backward pass."""
    return _Result.apply(y) if precision == "bf16" else y


def linear(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """`F.linear`; biases and their gradients are not rounded."""
    if precision != "bf16":
        return F.linear(x, weight, bias)
    return result(F.linear(operand(x, precision), operand(weight, precision)), precision) + bias


def configure(precision: str) -> None:
    """Process-wide: what precision the hardware may use for float32 products. Routing uses no such products (`layers`).

    Operands already rounded to bfloat16 lose nothing more in the hardware's bfloat16 or TF32.
    """
    reduced = "ieee" if precision in ("fp32", "fp64") else "tf32"
    torch.backends.cuda.matmul.fp32_precision = reduced
    # convolutions; must be set under this name, or `torch.export` cannot read it
    torch.backends.cudnn.allow_tf32 = reduced == "tf32"
    # only for convolutions: on a CPU, routing uses matrix products
    torch.backends.mkldnn.conv.fp32_precision = (  # pyright: ignore[reportAttributeAccessIssue]
        "bf16" if precision == "bf16" else "ieee"
    )
