"""The paper's baseline CNNs (sections 4.1 and 6.1) as a Keras model, and its loss."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int, UInt8
from tensorflow import Tensor

from harness.spec import ModelSpec, Runtime
from impls.tf.overlay import present
from impls.tf.precision import linear, operand, result


class Cnn(keras.Model):
    """Weights are set by `load`: Keras's own initial values are never used."""

    def __init__(self, model: ModelSpec, runtime: Runtime) -> None:
        dtype = np.dtype(runtime.dtype).name
        super().__init__(dtype=dtype)
        self.model, self.precision = model, runtime.precision
        channels = itertools.pairwise((model.image[2], *model.cnn_channels))
        layers = zip(model.cnn_convolutions, model.cnn_grids[:-1], model.cnn_kernels, channels, strict=True)
        for name, grid, kernel, (fan_in, fan_out) in layers:
            layer = keras.layers.Conv2D(fan_out, kernel, padding="same", dtype=dtype)
            layer.build((None, *grid, fan_in))
            setattr(self, name, layer)
        for name, (fan_in, fan_out) in zip(model.cnn_dense, itertools.pairwise(model.cnn_widths), strict=True):
            layer = keras.layers.Dense(fan_out, dtype=dtype)
            layer.build((None, fan_in))
            setattr(self, name, layer)
        self.built = True

    def canonical(self) -> dict[str, keras.Variable]:
        """The variables under canonical names: Keras's layouts are the canonical ones."""
        named: dict[str, keras.Variable] = {}
        for name in (*self.model.cnn_convolutions, *self.model.cnn_dense):
            layer = getattr(self, name)
            named |= {f"{name}.w": layer.kernel, f"{name}.b": layer.bias}
        return named

    def call(
        self, images: Float[Tensor, "B y x c"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> tuple[Float[Tensor, "B J"]]:
        """Pixels in 0..1 to logits; in training `kept` is 1 if dropout keeps a unit, else 0."""
        return (self.logits(self.features(images), kept),)

    def once(self) -> tuple[()]:
        """Empty: nothing is shared by the batches of an evaluation."""
        return ()

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B yxf"]:
        """ReLU convolutions, stride 1, SAME padding, each with max pooling, flattened: rows, columns, channels."""
        x = images
        for layer in self._named(self.model.cnn_convolutions):
            weight = operand(tf.convert_to_tensor(layer.kernel), self.precision)
            product = tf.nn.conv2d(operand(x, self.precision), weight, 1, "SAME")
            x = tf.nn.relu(tf.nn.bias_add(result(product, self.precision), layer.bias))
            if self.model.cnn_pool > 1:
                x = tf.nn.max_pool2d(x, self.model.cnn_pool, self.model.cnn_pool, "VALID")
        return tf.reshape(x, (x.shape[0], -1))

    def logits(
        self, features: Float[Tensor, "B yxf"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B J"]:
        """ReLU layers, dropout, a linear layer."""
        *hidden, last = self._named(self.model.cnn_dense)
        x = features
        for layer in hidden:
            x = tf.nn.relu(self._dense(layer, x))
        if kept is not None:
            x = x * (tf.cast(kept, x.dtype) / (1 - self.model.dropout))  # so that evaluation need not scale
        return self._dense(last, x)

    def _named(self, names: Sequence[str]) -> list[Any]:
        return [getattr(self, name) for name in names]

    def _dense(self, layer: keras.layers.Dense, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, tf.convert_to_tensor(layer.kernel), layer.bias, self.precision)


Network = Cnn


def scores(model: ModelSpec, logits: Float[Tensor, "B J"]) -> Float[Tensor, "B J"]:
    """The probabilities of the classes; for several digits, independent ones."""
    return tf.nn.softmax(logits, axis=1) if model.overlaid == 1 else tf.sigmoid(logits)


def outputs(net: Cnn, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (logits,) = net(images)
    return None, scores(net.model, logits), None, None


def losses(
    net: Cnn,
    logits: Float[Tensor, "B J"],
    digits: Float[Tensor, "B K y x c"],
    labels: Int[Tensor, "B K"],
    mask: Int[Tensor, "B K"],
) -> Float[Tensor, "1 B"]:
    """Each image's cross-entropy; `digits` and `mask`, meant for a decoder, are ignored."""
    if net.model.overlaid == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, 0], logits)[None]
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(present(labels, logits), logits), 1)[None]


def stages(model: ModelSpec) -> dict[str, Callable[..., Tensor]]:
    """See `impls.architecture`."""

    def conv(net: Cnn, images: Tensor, labels: Tensor, *kept: Tensor) -> Float[Tensor, "B yxf"]:
        return net.features(images)

    def dense(net: Cnn, images: Tensor, labels: Tensor, *kept: Tensor) -> Float[Tensor, "B J"]:
        return net(images, *kept)[0]

    return {"conv": conv, "dense": dense}
