"""Convolutions, by device: XLA's own on a GPU; on a CPU, matrix products over windows or over frequencies.

On a CPU, XLA's input gradient of a strided 9x9 convolution takes about fifty times as long as the rest of the training step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from impls.jax.precision import Precision, operand, result
from impls.spectral import Spectral, spectral

_SMALL_WINDOW = 128
"""Up to this window size, windows are materialised: faster than a product for each element of the kernel."""


@dataclass(frozen=True)
class PrimaryConvolution:
    """VALID convolution, (B, y, x, c) to (B, h, w, f), in a fraction of the time on a CPU: see `impls.spectral`."""

    image: tuple[int, int]
    weight: Float[Array, "k k c f"]
    bias: Float[Array, " f"]
    stride: int
    precision: Precision

    def spectrum(self) -> Float[Array, "R phases*c f"] | None:
        """The kernel's spectrum, valid while the kernel does not change; None if none is used."""
        if not self.precision.on_cpu:
            return None
        transforms = spectral(self.image, self.weight.shape[0], self.stride)
        return _kernel_spectrum(operand(self.weight, self.precision), transforms)

    def __call__(
        self, x: Float[Array, "B y x c"], spectrum: Float[Array, "R phases*c f"] | None = None
    ) -> Float[Array, "B h w f"]:
        return convolution(x, self.weight, self.stride, self.precision, spectrum) + self.bias


def convolution(
    x: Float[Array, "B y x c"],
    w: Float[Array, "k k c f"],
    stride: int,
    precision: Precision,
    spectrum: Float[Array, "R phases*c f"] | None = None,
) -> Float[Array, "B h w f"]:
    """Cross-correlation, VALID padding. With stride 1 there are few channels, so the frequency domain has no advantage.

    `spectrum` is the kernel's, given if it stays the same over many batches.
    """
    if not precision.on_cpu:
        product = partial(_xla_convolution, stride=stride, precision=precision.convolution)
    elif stride == 1:
        product = _window_convolution
    else:
        product = partial(_spectral_convolution, stride=stride, spectrum=spectrum)
    return result(product(operand(x, precision), operand(w, precision)), precision)


def same_convolution(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], precision: Precision
) -> Float[Array, "B y x f"]:
    """Cross-correlation with stride 1 and SAME padding: zeros around; an even kernel has one more after than before."""
    if not precision.on_cpu:
        product = partial(_xla_same, precision=precision.convolution)
    else:
        product = _same_windows if w[..., 0].size <= _SMALL_WINDOW else _direct
    return result(product(operand(x, precision), operand(w, precision)), precision)


def _around(kernel: int) -> tuple[int, int]:
    """The numbers of zeros in SAME padding, before and after."""
    return (kernel - 1) // 2, kernel // 2


def _same_windows(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"]) -> Float[Array, "B y x f"]:
    around = _around(w.shape[0])
    return _window_convolution(jnp.pad(x, ((0, 0), around, around, (0, 0))), w)


def _xla_same(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], precision: lax.Precision) -> Array:
    layouts = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layouts, precision=precision)


@jax.custom_vjp
def _direct(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"]) -> Float[Array, "B y x f"]:
    """XLA's own convolution, with equally fast gradients: XLA's own gradient rules give convolutions that it runs slowly."""
    return _xla_same(x, w, lax.Precision.HIGHEST)


def _direct_vjp(saved: tuple[Array, Array], grad: Float[Array, "B y x f"]) -> tuple[Array, Array]:
    """The input's gradient is a convolution with the flipped kernel, the kernel's a matrix product for each element."""
    x, w = saved
    kernel, (height, width) = w.shape[0], x.shape[1:3]
    around = _around(kernel)
    opposite = around[1], around[0]
    turned = w[::-1, ::-1].transpose(0, 1, 3, 2)
    grad_x = lax.conv_general_dilated(
        grad,
        turned,
        (1, 1),
        (opposite, opposite),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    flat = grad.reshape(-1, w.shape[3])
    taps = [padded[:, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    grad_w = jnp.stack([tap.reshape(-1, w.shape[2]).T @ flat for tap in taps])
    return grad_x, grad_w.reshape(w.shape)


_direct.defvjp(lambda x, w: (_direct(x, w), (x, w)), _direct_vjp)


def _xla_convolution(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int, precision: lax.Precision
) -> Float[Array, "B h w f"]:
    layouts = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=layouts, precision=precision)


def _window_convolution(x: Float[Array, "B y x c"], w: Float[Array, "k k c f"]) -> Float[Array, "B h w f"]:
    """Stride 1: every window of the image, flattened, times the kernel."""
    kernel, filters = w.shape[0], w.shape[3]
    height, width = (size - kernel + 1 for size in x.shape[1:3])
    # columns first, then rows: 2 * kernel slices instead of kernel^2, which XLA compiles faster
    columns = jnp.concatenate([x[:, :, j : j + width] for j in range(kernel)], axis=3)
    windows = jnp.concatenate([columns[:, i : i + height] for i in range(kernel)], axis=3)
    return windows @ w.reshape(-1, filters)


def _spectral_convolution(
    x: Float[Array, "B y x c"], w: Float[Array, "k k c f"], stride: int, spectrum: Array | None
) -> Float[Array, "B h w f"]:
    """Computes sums over windows as products at every frequency: see `impls.spectral`. The gradient is the transpose."""
    transforms = spectral((x.shape[1], x.shape[2]), w.shape[0], stride)
    image = _transformed(transforms.analysis, _phases(x, transforms.grid, stride))
    kernel = _kernel_spectrum(w, transforms) if spectrum is None else spectrum
    y = _transformed(transforms.synthesis, image.reshape(*kernel.shape[:1], len(x), -1) @ kernel)
    return y.reshape(*transforms.outputs, *y.shape[1:]).transpose(2, 0, 1, 3)


def _kernel_spectrum(w: Float[Array, "k k c f"], transforms: Spectral) -> Float[Array, "R phases*c f"]:
    kernel = _transformed(transforms.kernel_analysis, _phases(w[None], transforms.taps, transforms.stride))
    return kernel.reshape(len(kernel), -1, w.shape[3])


def _phases(x: Float[Array, "B y x *c"], grid: tuple[int, int], stride: int) -> Float[Array, "grid B s s *c"]:
    """Every stride-th row and column, for each starting place; cropped or zero-padded to stride * grid."""
    rows, columns = (stride * size for size in grid)
    x = x[:, :rows, :columns]
    around = [(0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2])] + [(0, 0)] * (x.ndim - 3)
    split = jnp.pad(x, around).reshape(len(x), grid[0], stride, grid[1], stride, *x.shape[3:])
    return jnp.moveaxis(split, (1, 3), (0, 1)).reshape(grid[0] * grid[1], len(x), stride, stride, *x.shape[3:])


def _transformed(matrix: Float[np.ndarray, "m n"], x: Float[Array, "n ..."]) -> Float[Array, "m ..."]:
    """Multiplies the first axis by a constant matrix."""
    return (jnp.asarray(matrix, x.dtype) @ x.reshape(len(x), -1)).reshape(len(matrix), *x.shape[1:])
