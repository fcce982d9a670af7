"""The primary convolution: in the frequency domain on a CPU, TensorFlow's own on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf
from jaxtyping import Float
from tensorflow import Tensor

from impls.spectral import spectral
from impls.tf.precision import operand, result


class PrimaryConvolution(keras.layers.Conv2D):
    """Keras's layer, VALID and without activation, in a third of the time on a CPU: see `impls.spectral`."""

    def __init__(
        self, image: tuple[int, int], filters: int, kernel: int, stride: int, precision: str, direct: bool, dtype: str
    ) -> None:
        super().__init__(filters, kernel, strides=stride, dtype=dtype)
        self.precision, self.is_direct = precision, direct
        self.plan = spectral(image, kernel, stride)
        self.analysis, self.kernel_analysis, self.synthesis = (
            matrix.astype(dtype) for matrix in (self.plan.analysis, self.plan.kernel_analysis, self.plan.synthesis)
        )

    def spectrum(self) -> Float[Tensor, "R phases*c f"] | None:
        """The kernel's spectrum, valid while the kernel does not change; None if none is used."""
        return None if self.is_direct else self._kernel_spectrum(operand(self.kernel.value, self.precision))

    def call(
        self, x: Float[Tensor, "B y x c"], spectrum: Float[Tensor, "R phases*c f"] | None = None
    ) -> Float[Tensor, "B h w f"]:
        x, weight = operand(x, self.precision), operand(tf.convert_to_tensor(self.kernel), self.precision)
        return tf.nn.bias_add(result(self._convolution(x, weight, spectrum), self.precision), self.bias)

    def _convolution(
        self, x: Float[Tensor, "B y x c"], weight: Float[Tensor, "k k c f"], spectrum: Tensor | None
    ) -> Float[Tensor, "B h w f"]:
        """Keeps the image's spectrum for the backward pass; the kernel's, twice as large, is recomputed."""
        if self.is_direct:
            return tf.nn.conv2d(x, weight, self.plan.stride, "VALID")

        @tf.custom_gradient
        def product(
            x: Float[Tensor, "B y x c"], weight: Float[Tensor, "k k c f"]
        ) -> tuple[Float[Tensor, "B h w f"], Callable[[Tensor], tuple[Tensor, Tensor]]]:
            kernel = self._kernel_spectrum(weight) if spectrum is None else spectrum
            image = tf.matmul(self.analysis, _phases(x, self.plan.grid, self.plan.stride))
            image = tf.reshape(image, (len(self.analysis), x.shape[0], -1))
            y = tf.matmul(self.synthesis, _flat(tf.matmul(image, kernel)))
            y = tf.transpose(tf.reshape(y, (*self.plan.outputs, x.shape[0], -1)), (2, 0, 1, 3))
            return y, lambda grad: self._convolution_vjp(x.shape, image, weight, grad)

        return product(x, weight)

    def _convolution_vjp(
        self,
        shape: tuple[int, ...],
        image: Float[Tensor, "R B phases*c"],
        weight: Float[Tensor, "k k c f"],
        grad: Float[Tensor, "B h w f"],
    ) -> tuple[Float[Tensor, "B y x c"], Float[Tensor, "k k c f"]]:
        """Gradients for the images and for the kernel. Only half of each kernel-sized spectrum exists at a time."""
        grad = tf.reshape(tf.transpose(grad, (1, 2, 0, 3)), (len(self.synthesis), -1))
        grad = tf.reshape(tf.matmul(self.synthesis, grad, transpose_a=True), (*image.shape[:2], -1))
        grad_x, grad_w = 0.0, 0.0
        half = len(self.analysis) // 2
        for rows in (slice(half), slice(half, None)):
            spectrum = tf.matmul(image[rows], grad[rows], transpose_a=True)
            grad_w += tf.matmul(self.kernel_analysis[rows], _flat(spectrum), transpose_a=True)
            with tf.control_dependencies([grad_w]):
                kernel = self._kernel_spectrum(tf.identity(weight), rows)
            spectrum = tf.matmul(grad[rows], kernel, transpose_b=True)
            grad_x += tf.matmul(self.analysis[rows], _flat(spectrum), transpose_a=True)
            with tf.control_dependencies([grad_x]):
                image, grad = tf.identity(image), tf.identity(grad)
        grad_w = _phases_vjp(grad_w, _as_image(weight).shape, self.plan.taps, self.plan.stride)
        return _phases_vjp(grad_x, shape, self.plan.grid, self.plan.stride), tf.reshape(grad_w, weight.shape)

    def _kernel_spectrum(
        self, weight: Float[Tensor, "k k c f"], rows: slice = slice(None)
    ) -> Float[Tensor, "rows phases*c f"]:
        analysis = self.kernel_analysis[rows]
        kernel = tf.matmul(analysis, _phases(_as_image(weight), self.plan.taps, self.plan.stride))
        return tf.reshape(kernel, (len(analysis), -1, weight.shape[3]))


def _as_image(weight: Float[Tensor, "k k c f"]) -> Float[Tensor, "1 k k cf"]:
    return tf.reshape(weight, (1, *weight.shape[:2], -1))


def _flat(x: Float[Tensor, "R m n"]) -> Float[Tensor, "R mn"]:
    return tf.reshape(x, (x.shape[0], -1))


def _phases(x: Float[Tensor, "B y x c"], grid: tuple[int, int], stride: int) -> Float[Tensor, "grid B*phases*c"]:
    """The image cropped or zero-padded to whole phases; a row for each place on the grid."""
    x = _resized(x, grid[0] * stride, grid[1] * stride)
    x = tf.reshape(x, (x.shape[0], grid[0], stride, grid[1], stride, x.shape[3]))
    return tf.reshape(tf.transpose(x, (1, 3, 0, 2, 4, 5)), (grid[0] * grid[1], -1))


def _phases_vjp(
    grad: Float[Tensor, "grid B*phases*c"], shape: tuple[int, ...], grid: tuple[int, int], stride: int
) -> Float[Tensor, "B y x c"]:
    """Returns every element's gradient to the element's place."""
    x = tf.transpose(tf.reshape(grad, (*grid, shape[0], stride, stride, shape[3])), (2, 0, 3, 1, 4, 5))
    return _resized(tf.reshape(x, (shape[0], grid[0] * stride, grid[1] * stride, shape[3])), shape[1], shape[2])


def _resized(x: Float[Tensor, "B y x c"], rows: int, columns: int) -> Float[Tensor, "B rows columns c"]:
    """The image cropped or zero-padded at the end of each axis."""
    if x.shape[1] > rows or x.shape[2] > columns:
        x = x[:, :rows, :columns]
    if x.shape[1] < rows or x.shape[2] < columns:
        x = tf.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2]), (0, 0)))
    return x
