"""A trained CapsNet (Sabour, Frosst, Hinton, NIPS 2017) in Keras alone; config.json and model.weights.h5 lie beside this file.

    from model import load

    net = load()
    lengths, capsules = net(pixels)  # pixels / 255 as float32 (B, H, W, C) -> (B, classes), (B, classes, dimensions)
    predicted = tf.argmax(lengths, 1)  # or top_k; images with K digits ("overlaid") have K, one column at a time
    images = net.reconstruct(capsules, predicted)  # (B, H, W, C), of a model with a decoder

It is an ordinary Keras model: train it on. The folder saved_model needs no code at all:
`program = tf.saved_model.load("saved_model")`, and then `program.serve(pixels)`; its variables live as long as `program`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

EPSILON = 1e-9  # under every root: gradients are finite at zero


class CapsNet(keras.Model):
    """`model` is the section "model" of config.json."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        height, width, channels = model["image"]
        kernel, self.dim, types = model["kernel"], model["primary_dim"], model["primary_types"]
        hidden = [side - kernel + 1 for side in (height, width)]
        rows, columns = ((side - kernel) // 2 + 1 for side in hidden)
        self.image, self.routing = (height, width, channels), model["routing"]
        self.leak = model["none_of_the_above"]
        official = model["profile"] == "official"  # the authors' code where it differs from the paper
        self.scale = 1 / types if official else 1.0
        self.conv1 = keras.layers.Conv2D(model["conv_channels"], kernel, activation="relu")
        self.conv1.build((None, height, width, channels))
        self.primary = keras.layers.Conv2D(types * self.dim, kernel, strides=2)
        self.primary.build((None, *hidden, model["conv_channels"]))
        self.capsules, classes, digit_dim = rows * columns * types, model["classes"], model["digit_dim"]
        self.digit = self.add_weight(shape=(self.capsules, classes, self.dim, digit_dim), name="digit")
        self.digit_bias = self.add_weight(shape=(classes, digit_dim), name="digit_bias") if official else None
        if model["decoder"]:
            first, second = model["decoder_units"]
            self.dec1 = keras.layers.Dense(first, activation="relu")
            self.dec2 = keras.layers.Dense(second, activation="relu")
            self.dec3 = keras.layers.Dense(height * width * channels, activation="sigmoid")
            self.dec1.build((None, classes * digit_dim))
            self.dec2.build((None, first))
            self.dec3.build((None, second))
        self.built = True

    def call(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Pixels in 0..1, (B, H, W, C), to the lengths of the class capsules, (B, J), and the capsules, (B, J, e)."""
        grid = self.primary(self.conv1(pixels) * self.scale)
        # channel = type * dim + d, capsule = (row * columns + column) * types + type
        u = squash(tf.reshape(grid, (-1, self.capsules, self.dim)))
        capsules = self.route(tf.einsum("bid,ijde->bije", u, tf.convert_to_tensor(self.digit)))
        return lengths(capsules), capsules

    def route(self, votes: tf.Tensor) -> tf.Tensor:
        """Procedure 1 of the paper: votes (B, I, J, e) to capsules (B, J, e).

        With `leak`, a category that is none of them, with logit 0, takes a share (section 7).
        """
        logits = tf.zeros_like(votes[..., 0])
        for iteration in range(self.routing):
            shares = tf.nn.softmax(tf.pad(logits, [[0, 0], [0, 0], [0, 1]]) if self.leak else logits, 2)
            s = tf.einsum("bij,bije->bje", shares[..., :-1] if self.leak else shares, votes)
            v = squash(s if self.digit_bias is None else s + self.digit_bias)
            if iteration + 1 < self.routing:
                logits = logits + tf.einsum("bije,bje->bij", votes, v)
        return v  # pyright: ignore[reportPossiblyUnboundVariable]

    def reconstruct(self, capsules: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """The decoder's output for the capsule of each image's class: pixels in 0..1, (B, H, W, C)."""
        mask = tf.one_hot(classes, capsules.shape[1], dtype=capsules.dtype)
        masked = tf.reshape(capsules * mask[..., None], (-1, capsules.shape[1] * capsules.shape[2]))
        return tf.reshape(self.dec3(self.dec2(self.dec1(masked))), (-1, *self.image))


def squash(s: tf.Tensor) -> tf.Tensor:
    """Eq. 1 of the paper."""
    square = tf.reduce_sum(s * s, -1, keepdims=True)
    return s * (square / (1 + square) / tf.sqrt(square + EPSILON))


def lengths(capsules: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(capsules * capsules, -1) + EPSILON)


def load(folder: str | Path = Path(__file__).parent) -> CapsNet:
    """The trained model."""
    net = CapsNet(json.loads((Path(folder) / "config.json").read_text())["model"])
    net.load_weights(Path(folder) / "model.weights.h5")
    return net
