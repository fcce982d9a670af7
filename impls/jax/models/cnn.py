"""The paper's baseline CNNs (sections 4.1 and 6.1) as a value made from its weights, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax
from jax import Array
from jaxtyping import Float, Int, UInt8

from harness.spec import ModelSpec
from impls.jax.convolution import same_convolution
from impls.jax.overlay import present
from impls.jax.precision import Precision, linear


@dataclass(frozen=True)
class Cnn:
    """A network with weights `w`, under canonical names and in canonical layouts."""

    model: ModelSpec
    precision: Precision
    w: dict[str, Array]

    def __call__(
        self, images: Float[Array, "B y x c"], kept: UInt8[Array, "B U"] | None = None
    ) -> tuple[Float[Array, "B J"]]:
        """Pixels in 0..1 to logits; in training `kept` is 1 if dropout keeps a unit, else 0."""
        return (self.logits(self.features(images), kept),)

    def once(self) -> tuple[()]:
        """Empty: nothing is shared by the batches of an evaluation."""
        return ()

    def features(self, images: Float[Array, "B y x c"]) -> Float[Array, "B yxf"]:
        """ReLU convolutions, stride 1, SAME padding, each with max pooling, flattened: rows, columns, channels."""
        x = images
        for layer in self.model.cnn_convolutions:
            x = jax.nn.relu(same_convolution(x, self.w[f"{layer}.w"], self.precision) + self.w[f"{layer}.b"])
            if self.model.cnn_pool > 1:
                x = _max_pool(x, self.model.cnn_pool)
        return x.reshape(len(x), -1)

    def logits(self, features: Float[Array, "B yxf"], kept: UInt8[Array, "B U"] | None = None) -> Float[Array, "B J"]:
        """ReLU layers, dropout, a linear layer."""
        *hidden, last = self.model.cnn_dense
        x = features
        for layer in hidden:
            x = jax.nn.relu(self._dense(layer, x))
        if kept is not None:
            x = x * (kept.astype(x.dtype) / (1 - self.model.dropout))  # so that evaluation need not scale
        return self._dense(last, x)

    def _dense(self, layer: str, x: Float[Array, "B n"]) -> Float[Array, "B m"]:
        return linear(x, self.w[f"{layer}.w"], self.w[f"{layer}.b"], self.precision)


Network = Cnn


def scores(model: ModelSpec, logits: Float[Array, "B J"]) -> Float[Array, "B J"]:
    """The probabilities of the classes; for several digits, independent ones."""
    return jax.nn.softmax(logits, axis=1) if model.overlaid == 1 else jax.nn.sigmoid(logits)


def outputs(net: Cnn, images: Float[Array, "B y x c"]) -> tuple[Array | None, ...]:
    """The fields of `harness.spec.Outputs`."""
    (logits,) = net(images)
    return None, scores(net.model, logits), None, None


def losses(
    net: Cnn,
    logits: Float[Array, "B J"],
    digits: Float[Array, "B K y x c"],
    labels: Int[Array, "B K"],
    mask: Int[Array, "B K"],
) -> Float[Array, "1 B"]:
    """Each image's cross-entropy; `digits` and `mask`, meant for a decoder, are ignored."""
    if net.model.overlaid == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, 0])[None]
    return optax.sigmoid_binary_cross_entropy(logits, present(labels, logits)).sum(1)[None]


def stages(model: ModelSpec) -> dict[str, Callable[..., Array]]:
    """See `impls.architecture`."""

    def conv(net: Cnn, images: Array, labels: Array, *kept: Array) -> Float[Array, "B yxf"]:
        return net.features(images)

    def dense(net: Cnn, images: Array, labels: Array, *kept: Array) -> Float[Array, "B J"]:
        return net(images, *kept)[0]

    return {"conv": conv, "dense": dense}


def _max_pool(x: Float[Array, "B y x f"], side: int) -> Float[Array, "B h w f"]:
    """The maximum of each side x side window; incomplete windows at the end are dropped."""
    count, height, width, filters = x.shape
    inside = x[:, : height // side * side, : width // side * side]
    return inside.reshape(count, height // side, side, width // side, side, filters).max((2, 4))
