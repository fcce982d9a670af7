"""Convolutions, by device: XLA's own on a GPU; on a CPU, matrix products over patches with their own gradient rule.

On the CPU, XLA's input gradient of a strided 9x9 convolution takes about fifty times as long as the rest of the training step.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def convolution(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int, on_cpu: bool
) -> Float[Array, "B h w f"]:
    """Cross-correlation, VALID padding."""
    return _patch_convolution(x, w, stride) if on_cpu else _xla_convolution(x, w, stride)


def _xla_convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int) -> Float[Array, "B h w f"]:
    return lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _patch_convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int) -> Float[Array, "B h w f"]:
    kernel, filters = w.shape[0], w.shape[3]
    height, width = ((size - kernel) // stride + 1 for size in x.shape[1:3])
    last_row, last_column = stride * (height - 1) + 1, stride * (width - 1) + 1
    # columns first, then rows: 2 * kernel slices instead of kernel^2, for XLA to compile sooner
    columns = jnp.concatenate([x[:, :, j : j + last_column : stride] for j in range(kernel)], axis=3)
    windows = jnp.concatenate([columns[:, i : i + last_row : stride] for i in range(kernel)], axis=3)
    return windows @ w.reshape(-1, filters)


def _forward(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int
) -> tuple[Float[Array, "B h w f"], tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]]:
    return _patch_convolution(x, w, stride), (x, w)


def _backward(
    stride: int,
    saved: tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]],
    grad: Float[Array, "B h w f"],
) -> tuple[Float[Array, "B y x c"], Float[Array, "k k c f"]]:
    x, w = saved
    _, kernel_vjp = jax.vjp(lambda kernel: _xla_convolution(x, kernel, stride), w)  # XLA's is fast here
    return _input_gradient(x.shape, w, stride, grad), kernel_vjp(grad)[0]


def _input_gradient(
    shape: tuple[int, ...], w: Float[Array, "k k c f"], stride: int, grad: Float[Array, "B h w f"]
) -> Float[Array, "B y x c"]:
    """Every window's gradient added where it came from.

    Input pixels are taken in stride * stride phases (row and column modulo the stride): within a phase all additions are
    of whole blocks, which XLA fuses into one pass; the phases are interleaved at the end.
    """
    kernel, filters = w.shape[0], w.shape[3]
    batch, height, width, _ = grad.shape
    rows, columns = -(-shape[1] // stride), -(-shape[2] // stride)
    windows = (grad @ w.reshape(-1, filters).T).reshape(batch, height, width, kernel, kernel, -1)

    def phase(row: int, column: int) -> Float[Array, "B h w c"]:
        total = jnp.zeros((batch, rows, columns, shape[3]), grad.dtype)
        for i in range(row, kernel, stride):
            for j in range(column, kernel, stride):
                top, left = i // stride, j // stride
                around = ((0, 0), (top, rows - height - top), (left, columns - width - left), (0, 0))
                total = total + jnp.pad(windows[:, :, :, i, j], around)
        return total

    phases = jnp.stack(
        [jnp.stack([phase(row, column) for column in range(stride)], axis=3) for row in range(stride)], axis=2
    )
    return phases.reshape(batch, rows * stride, columns * stride, shape[3])[:, : shape[1], : shape[2]]


_patch_convolution.defvjp(_forward, _backward)
