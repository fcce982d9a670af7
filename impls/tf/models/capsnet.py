"""The CapsNet of section 4 as a Keras model, and its losses."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int
from tensorflow import Tensor

from harness.spec import MARGIN_LAMBDA, MARGIN_MINUS, MARGIN_PLUS, RECONSTRUCTION_WEIGHT, ModelSpec, Runtime
from impls.tf.convolution import PrimaryConvolution
from impls.tf.layers import digit_capsules, digit_votes, lengths, scaled, squash
from impls.tf.overlay import one_hot, present, winners
from impls.tf.precision import linear, operand, result


class CapsNet(keras.Model):
    """Weights are set by `load`: Keras's own initial values are never used."""

    def __init__(self, model: ModelSpec, runtime: Runtime) -> None:
        dtype = np.dtype(runtime.dtype).name
        super().__init__(dtype=dtype)
        self.model, self.precision = model, runtime.precision
        self.conv1 = keras.layers.Conv2D(model.conv_channels, model.kernel, dtype=dtype)
        filters, direct = model.primary_types * model.primary_dim, runtime.device == "gpu"
        self.primary = PrimaryConvolution(model.conv_grid, filters, model.kernel, 2, self.precision, direct, dtype)
        self.digit = self.add_weight(
            shape=(model.primary_capsules, model.classes, model.primary_dim, model.digit_dim), name="digit"
        )
        self.digit_bias = None
        if model.digit_bias:
            self.digit_bias = self.add_weight(shape=(model.classes, model.digit_dim), name="digit_bias")
        self.conv1.build((None, *model.image))
        self.primary.build((None, *model.conv_grid, model.conv_channels))
        if model.decoder:
            self.dec1 = keras.layers.Dense(model.decoder_units[0], dtype=dtype)
            self.dec2 = keras.layers.Dense(model.decoder_units[1], dtype=dtype)
            self.dec3 = keras.layers.Dense(model.pixels, dtype=dtype)
            self.dec1.build((None, model.classes * model.digit_dim))
            self.dec2.build((None, model.decoder_units[0]))
            self.dec3.build((None, model.decoder_units[1]))
        self.built = True

    def canonical(self) -> dict[str, keras.Variable]:
        """The variables under canonical names: Keras's layouts are the canonical ones."""
        named = {"digit.w": self.digit}
        if self.digit_bias is not None:
            named["digit.b"] = self.digit_bias
        for name in ("conv1", "primary") + (("dec1", "dec2", "dec3") if self.model.decoder else ()):
            layer = getattr(self, name)
            named |= {f"{name}.w": layer.kernel, f"{name}.b": layer.bias}
        return named

    def call(
        self, images: Float[Tensor, "B y x c"], spectrum: Tensor | None = None
    ) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        """Pixels in 0..1 to output capsules and coupling coefficients: no ReLU after the primary convolution.

        `spectrum` is `primary.spectrum()`, given if the weights stay the same over many batches.
        """
        return self.digit_capsules(self.primary_capsules(images, spectrum))

    def once(self) -> tuple[Tensor | None]:
        """The arguments of `call` besides the images, which stay the same over the batches of an evaluation."""
        return (self.primary.spectrum(),)

    def features(self, images: Float[Tensor, "B y x c"]) -> Float[Tensor, "B h w f"]:
        """The first convolution with its ReLU."""
        images, kernel = (operand(x, self.precision) for x in (images, tf.convert_to_tensor(self.conv1.kernel)))
        product = result(tf.nn.conv2d(images, kernel, 1, "VALID"), self.precision)
        return tf.nn.relu(tf.nn.bias_add(product, self.conv1.bias))

    def primary_capsules(
        self, images: Float[Tensor, "B y x c"], spectrum: Tensor | None = None
    ) -> Float[Tensor, "B I d"]:
        conv1 = self.features(images)
        # scaling its input scales the convolution, but not its bias
        grid = self.primary(scaled(conv1, self.model.primary_scale), spectrum)
        # channel = type * dim + d, so capsule i = (row * width + column) * types + type
        return squash(tf.reshape(grid, (images.shape[0], self.model.primary_capsules, self.model.primary_dim)))

    def digit_capsules(self, u: Float[Tensor, "B I d"]) -> tuple[Float[Tensor, "B J e"], Float[Tensor, "B J I"]]:
        bias = None if self.digit_bias is None else tf.convert_to_tensor(self.digit_bias)
        w, leak = tf.convert_to_tensor(self.digit), self.model.none_of_the_above
        return digit_capsules(u, w, bias, self.model.routing, leak, self.precision)

    def decode(self, v: Float[Tensor, "B J e"], mask: Int[Tensor, "B K"]) -> Float[Tensor, "BK p"]:
        """Section 4.1: all but the capsule of class `mask` zeroed, two ReLU layers, a sigmoid layer.

        The K digits of an image are decoded one after the other, each only from its own capsule (section 6.2).
        """
        masked = v[:, None] * one_hot(mask, v)[..., None]
        hidden1 = tf.nn.relu(self._dense(self.dec1, tf.reshape(masked, (-1, v.shape[1] * v.shape[2]))))
        hidden2 = tf.nn.relu(self._dense(self.dec2, hidden1))
        return tf.sigmoid(self._dense(self.dec3, hidden2))

    def _dense(self, layer: keras.layers.Dense, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        return linear(x, tf.convert_to_tensor(layer.kernel), layer.bias, self.precision)


Network = CapsNet


def scores(model: ModelSpec, v: Float[Tensor, "B J e"]) -> Float[Tensor, "B J"]:
    """The lengths of the output capsules: the probabilities of the classes (section 2)."""
    return lengths(v)


def outputs(net: CapsNet, images: Float[Tensor, "B y x c"]) -> tuple[Tensor | None, ...]:
    """The fields of `harness.spec.Outputs`; the decoder sees the longest capsules."""
    model = net.model
    v, coupling = net(images)
    length, reconstruction = scores(model, v), None
    if model.decoder:
        found = net.decode(v, winners(length, model.overlaid))
        reconstruction = tf.reshape(found, (-1, *model.several, *model.image))
    return v, length, tf.transpose(coupling, (0, 2, 1)), reconstruction


def margin_loss(length: Float[Tensor, "B J"], present: Float[Tensor, "B J"]) -> Float[Tensor, " B"]:
    """Eq. 4, summed over the classes."""
    missed = tf.nn.relu(MARGIN_PLUS - length) ** 2
    imagined = tf.nn.relu(length - MARGIN_MINUS) ** 2
    return tf.reduce_sum(present * missed + MARGIN_LAMBDA * (1 - present) * imagined, 1)


def reconstruction_loss(
    reconstruction: Float[Tensor, "BK p"], digits: Float[Tensor, "B K y x c"]
) -> Float[Tensor, " B"]:
    """Section 4.1: the sum of squared pixel differences over all digits of an image, before scaling by 0.0005."""
    squares = (reconstruction - tf.reshape(digits, reconstruction.shape)) ** 2
    return tf.reduce_sum(tf.reshape(squares, (digits.shape[0], -1)), 1)


def losses(
    net: CapsNet,
    v: Float[Tensor, "B J e"],
    digits: Float[Tensor, "B K y x c"],
    labels: Int[Tensor, "B K"],
    mask: Int[Tensor, "B K"],
) -> Float[Tensor, "3 B"]:
    """Each image's total, margin and reconstruction loss; the decoder sees the capsules of the classes `mask`."""
    margin = scaled(margin_loss(lengths(v), present(labels, v)), net.model.margin_scale)
    if not net.model.decoder:
        return tf.stack([margin, margin, tf.zeros_like(margin)])
    reconstruction = reconstruction_loss(net.decode(v, mask), digits)
    return tf.stack([margin + RECONSTRUCTION_WEIGHT * reconstruction, margin, reconstruction])


def stages(model: ModelSpec) -> dict[str, Callable[..., Tensor]]:
    """See `impls.architecture`."""

    def conv1(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B h w f"]:
        return net.features(images)

    def primary(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B I d"]:
        return net.primary_capsules(images)

    def votes(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B J I e"]:
        return digit_votes(net.primary_capsules(images), tf.convert_to_tensor(net.digit), net.precision)

    def routing(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "B J e"]:
        return net(images)[0]

    def decoder(net: CapsNet, images: Tensor, labels: Tensor) -> Float[Tensor, "BK p"]:
        return net.decode(net(images)[0], labels)

    found: dict[str, Callable[..., Tensor]] = {"conv1": conv1, "primary": primary, "votes": votes, "routing": routing}
    return found | ({"decoder": decoder} if model.decoder else {})
