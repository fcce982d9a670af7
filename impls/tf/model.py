"""The CapsNet of section 4 as a Keras model, and its losses."""

from __future__ import annotations

import keras
import tensorflow as tf
from jaxtyping import Float, Int

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec
from impls.tf.layers import lengths, route, scaled, squash, votes

Tensor = tf.Tensor


class DigitCaps(keras.layers.Layer):
    """Votes and routing-by-agreement; one matrix per pair of primary and output capsule, and the profile's bias."""

    def __init__(self, model: ModelSpec, **options: str) -> None:
        super().__init__(**options)
        self.model = model

    def build(self, _shape: tuple[int | None, ...]) -> None:
        model = self.model
        self.kernel = self.add_weight(
            shape=(model.primary_capsules, model.classes, model.primary_dim, model.digit_dim), name="kernel"
        )
        self.bias = self.add_weight(shape=(model.classes, model.digit_dim), name="bias") if model.digit_bias else None

    def call(self, u: Float[Tensor, "B I d"]) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        bias = None if self.bias is None else tf.convert_to_tensor(self.bias)
        return route(votes(u, tf.convert_to_tensor(self.kernel)), self.model.routing, bias)


class CapsNet(keras.Model):
    """Weights are set by `load`: Keras's own initial values are never used."""

    def __init__(self, model: ModelSpec, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.model = model
        primary = model.primary_types * model.primary_dim
        self.conv1 = keras.layers.Conv2D(model.conv_channels, model.kernel, activation="relu", dtype=dtype)
        self.primary = keras.layers.Conv2D(primary, model.kernel, strides=2, dtype=dtype)
        self.digit = DigitCaps(model, dtype=dtype)
        self.conv1.build((None, *model.image))
        self.primary.build((None, *model.conv_grid, model.conv_channels))
        self.digit.build((None, model.primary_capsules, model.primary_dim))
        if model.decoder:
            self.dec1 = keras.layers.Dense(model.decoder_units[0], activation="relu", dtype=dtype)
            self.dec2 = keras.layers.Dense(model.decoder_units[1], activation="relu", dtype=dtype)
            self.dec3 = keras.layers.Dense(model.pixels, activation="sigmoid", dtype=dtype)
            self.dec1.build((None, model.classes * model.digit_dim))
            self.dec2.build((None, model.decoder_units[0]))
            self.dec3.build((None, model.decoder_units[1]))
        self.built = True

    def call(self, images: Float[Tensor, "B y x c"]) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        """Pixels in 0..1 to output capsules and coupling coefficients: no ReLU after the primary convolution."""
        conv1 = self.conv1(images)
        # scaling its input scales the convolution, but not its bias
        grid = self.primary(scaled(conv1, self.model.primary_scale))
        # channel = type * dim + d, so capsule i = (row * width + column) * types + type
        primary = tf.reshape(grid, (images.shape[0], self.model.primary_capsules, self.model.primary_dim))
        return self.digit(squash(primary))

    def decode(self, v: Float[Tensor, "B J e"], mask: Int[Tensor, " B"]) -> Float[Tensor, "B p"]:
        """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer."""
        masked = tf.reshape(v * one_hot(mask, v)[..., None], (v.shape[0], -1))
        return self.dec3(self.dec2(self.dec1(masked)))

    def canonical(self) -> dict[str, keras.Variable]:
        """The variables under canonical names: Keras's layouts are the canonical ones."""
        named = {"digit.w": self.digit.kernel}
        if self.model.digit_bias:
            named["digit.b"] = self.digit.bias
        for name in ("conv1", "primary") + (("dec1", "dec2", "dec3") if self.model.decoder else ()):
            layer = getattr(self, name)
            named |= {f"{name}.w": layer.kernel, f"{name}.b": layer.bias}
        return named


def one_hot(classes: Int[Tensor, " B"], v: Float[Tensor, "B J e"]) -> Float[Tensor, "B J"]:
    """Masks for the capsules `v`, in their precision."""
    return tf.one_hot(classes, v.shape[1], dtype=v.dtype)


def margin_loss(length: Float[Tensor, "B J"], present: Float[Tensor, "B J"]) -> Float[Tensor, " B"]:
    """Eq. 4, summed over the classes."""
    missed = tf.nn.relu(MARGIN_PLUS - length) ** 2
    imagined = tf.nn.relu(length - MARGIN_MINUS) ** 2
    return tf.reduce_sum(present * missed + MARGIN_LAMBDA * (1 - present) * imagined, 1)


def reconstruction_loss(reconstruction: Float[Tensor, "B p"], images: Float[Tensor, "B y x c"]) -> Float[Tensor, " B"]:
    """Section 4.1: the sum of squared differences of an image's pixels, not yet scaled down by 0.0005."""
    return tf.reduce_sum((reconstruction - tf.reshape(images, reconstruction.shape)) ** 2, 1)


def losses(
    net: CapsNet,
    v: Float[Tensor, "B J e"],
    images: Float[Tensor, "B y x c"],
    labels: Int[Tensor, " B"],
    mask: Int[Tensor, " B"],
) -> Float[Tensor, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsule of class `mask`."""
    margin = scaled(margin_loss(lengths(v), one_hot(labels, v)), net.model.margin_scale)
    if not net.model.decoder:
        return tf.stack([margin, margin, tf.zeros_like(margin)])
    reconstruction = reconstruction_loss(net.decode(v, mask), images)
    return tf.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])
