"""A trained CNN, a baseline for CapsNets, in Keras alone; config.json and model.weights.h5 lie beside this file.

    from model import load

    net = load()
    probabilities, logits = net(pixels)  # pixels / 255 as float32 (B, H, W, C) -> (B, classes) both
    predicted = tf.argmax(probabilities, 1)  # or top_k, where config.json says that images show K digits: "overlaid"

It is an ordinary Keras model: train it on. The folder saved_model needs no code at all:
`program = tf.saved_model.load("saved_model")`, and then `program.serve(pixels)`; its variables live as long as `program`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


class Cnn(keras.Model):
    """`model` is the section "model" of config.json."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        height, width, channels = model["image"]
        filters, kernel, self.pool = model["cnn_channels"], model["cnn_kernel"], model["cnn_pool"]
        kernels = [kernel] * len(filters) if isinstance(kernel, int) else kernel
        rows, columns = (side // self.pool ** len(filters) for side in (height, width))
        self.flat = rows * columns * filters[-1]
        self.conv: list[keras.layers.Conv2D] = []
        self.fc: list[keras.layers.Dense] = []
        for (fan_in, fan_out), kernel in zip(pairwise([channels, *filters]), kernels, strict=True):
            self.conv.append(keras.layers.Conv2D(fan_out, kernel, padding="same"))
            self.conv[-1].build((None, None, None, fan_in))
        for fan_in, fan_out in pairwise([self.flat, *model["cnn_units"], model["classes"]]):
            self.fc.append(keras.layers.Dense(fan_out))
            self.fc[-1].build((None, fan_in))
        self.dropout, self.overlaid = model["dropout"], model["overlaid"]
        self.built = True

    def call(self, pixels: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Pixels in 0..1, (B, H, W, C), to the probabilities of the classes and their logits, (B, J)."""
        x = pixels
        for layer in self.conv:
            x = tf.nn.relu(layer(x))
            if self.pool > 1:
                x = tf.nn.max_pool2d(x, self.pool, self.pool, "VALID")
        x = tf.reshape(x, (-1, self.flat))  # rows, columns, channels
        *hidden, last = self.fc
        for layer in hidden:
            x = tf.nn.relu(layer(x))
        logits = last(tf.nn.dropout(x, self.dropout) if training else x)
        # if an image shows several digits, each class has an independent probability
        return tf.nn.softmax(logits) if self.overlaid == 1 else tf.sigmoid(logits), logits


def load(folder: str | Path = Path(__file__).parent) -> Cnn:
    """The trained model."""
    net = Cnn(json.loads((Path(folder) / "config.json").read_text())["model"])
    net.load_weights(Path(folder) / "model.weights.h5")
    return net
