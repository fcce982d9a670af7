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
    """Every window's gradient added where it came from: rows first, then columns."""
    kernel, filters = w.shape[0], w.shape[3]
    windows = (grad @ w.reshape(-1, filters).T).reshape(*grad.shape[:3], kernel, kernel, -1)
    rows = _overlap_add([windows[:, :, :, i] for i in range(kernel)], shape[1], stride, axis=1)
    return _overlap_add([rows[:, :, :, j] for j in range(kernel)], shape[2], stride, axis=2)


def _overlap_add(parts: list[Array], size: int, stride: int, axis: int) -> Array:
    """out[n * stride + i] = sum of parts[i][n], along `axis`, which has `size` in the output.

    Positions are taken in phases, modulo the stride: within a phase all additions are of whole blocks, which XLA fuses
    into one pass; the phases are interleaved at the end.
    """
    first = parts[0]
    length = -(-size // stride)

    def phase(remainder: int) -> Array:
        total = jnp.zeros((*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype)
        for i in range(remainder, len(parts), stride):
            around = [(0, 0)] * first.ndim
            around[axis] = (i // stride, length - first.shape[axis] - i // stride)
            total = total + jnp.pad(parts[i], around)
        return total

    phases = jnp.stack([phase(remainder) for remainder in range(stride)], axis=axis + 1)
    merged = phases.reshape(*first.shape[:axis], length * stride, *first.shape[axis + 1 :])
    return lax.slice_in_dim(merged, 0, size, axis=axis)


_patch_convolution.defvjp(_forward, _backward)
