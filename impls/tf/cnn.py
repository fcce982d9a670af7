"""The paper's baseline CNN (section 4.1) as a Keras model, and its loss."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int, UInt8

from harness.spec import ModelSpec, Runtime
from impls.tf.precision import linear, operand, result

Tensor = tf.Tensor

CONVOLUTIONS, DENSE = ("conv1", "conv2", "conv3"), ("fc1", "fc2", "fc3")


class Cnn(keras.Model):
    """Weights are set by `load`: Keras's own initial values are never used."""

    def __init__(self, model: ModelSpec, runtime: Runtime) -> None:
        dtype = np.dtype(runtime.dtype).name
        super().__init__(dtype=dtype)
        self.model, self.precision = model, runtime.precision
        height, width, channels = model.image
        first, second, third = model.cnn_channels
        self.conv1 = keras.layers.Conv2D(first, model.cnn_kernel, padding="same", dtype=dtype)
        self.conv2 = keras.layers.Conv2D(second, model.cnn_kernel, padding="same", dtype=dtype)
        self.conv3 = keras.layers.Conv2D(third, model.cnn_kernel, padding="same", dtype=dtype)
        self.fc1 = keras.layers.Dense(model.cnn_units[0], dtype=dtype)
        self.fc2 = keras.layers.Dense(model.cnn_units[1], dtype=dtype)
        self.fc3 = keras.layers.Dense(model.classes, dtype=dtype)
        self.conv1.build((None, height, width, channels))
        self.conv2.build((None, height, width, first))
        self.conv3.build((None, height, width, second))
        self.fc1.build((None, height * width * third))
        self.fc2.build((None, model.cnn_units[0]))
        self.fc3.build((None, model.cnn_units[1]))
        self.built = True

    def call(
        self, images: Float[Tensor, "B y x c"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> tuple[Float[Tensor, "B J"]]:
        """Pixels in 0..1 to logits; in training `kept` is 1 where dropout keeps a unit of fc2, and 0 where not."""
        return (self.logits(self.features(images), kept),)

    def once(self) -> tuple[()]:
        """Nothing that stays the same over the batches of an evaluation needs to be computed first."""
        return ()

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B yxf"]:
        """Three ReLU convolutions, stride 1, SAME padding, flattened: rows, columns, channels."""
        x = images
        for layer in (self.conv1, self.conv2, self.conv3):
            weight = operand(tf.convert_to_tensor(layer.kernel), self.precision)
            product = tf.nn.conv2d(operand(x, self.precision), weight, 1, "SAME")
            x = tf.nn.relu(tf.nn.bias_add(result(product, self.precision), layer.bias))
        return tf.reshape(x, (x.shape[0], -1))

    def logits(
        self, features: Float[Tensor, "B yxf"], kept: UInt8[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B J"]:
        """Two ReLU layers, dropout, a linear layer."""
        hidden1 = tf.nn.relu(self._dense(self.fc1, features))
        hidden2 = tf.nn.relu(self._dense(self.fc2, hidden1))
        if kept is not None:
            hidden2 = hidden2 * (tf.cast(kept, hidden2.dtype) / (1 - self.model.dropout))  # evaluation need not scale
        return self._dense(self.fc3, hidden2)

    def _dense(self, layer: keras.layers.Dense, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, tf.convert_to_tensor(layer.kernel), layer.bias, self.precision)

    def canonical(self) -> dict[str, keras.Variable]:
        """The variables under canonical names: Keras's layouts are the canonical ones."""
        named: dict[str, keras.Variable] = {}
        for name in (*CONVOLUTIONS, *DENSE):
            layer = getattr(self, name)
            named |= {f"{name}.w": layer.kernel, f"{name}.b": layer.bias}
        return named


Network = Cnn


def scores(logits: Float[Tensor, "B J"]) -> Float[Tensor, "B J"]:
    """The probabilities of the classes."""
    return tf.nn.softmax(logits, axis=1)


def outputs(net: Cnn, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (logits,) = net(images)
    return None, scores(logits), None, None


def losses(
    net: Cnn,
    logits: Float[Tensor, "B J"],
    images: Float[Tensor, "B y x c"],
    labels: Int[Tensor, " B"],
    mask: Int[Tensor, " B"],
) -> Float[Tensor, "1 B"]:
    """Each image's cross-entropy; there is no decoder that `images` and `mask` could mean anything to."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)[None]
