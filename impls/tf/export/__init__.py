"""Trained weights as Keras and TensorFlow files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from harness.spec import ModelSpec, Weights
from impls.tf.export import capsnet, cnn

STANDALONE = {"capsnet": capsnet, "cnn": cnn}
"""Kind of model -> the module exported as its model.py."""


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    """Writes model.weights.h5 (Keras) and saved_model (TensorFlow, any batch size); returns their names.

    config.json is already in the folder.
    """
    config = json.loads((folder / "config.json").read_text())["model"]
    net, layers = _FILLED[model.kind](config, model, weights)
    for name, layer in layers.items():  # Keras's layouts are the canonical ones
        layer.kernel.assign(weights[f"{name}.w"])
        layer.bias.assign(weights[f"{name}.b"])
    net.save_weights(folder / "model.weights.h5")
    pixels = tf.TensorSpec((None, *model.image), tf.float32)
    net.export(str(folder / "saved_model"), format="tf_saved_model", input_signature=[pixels], verbose=False)
    return ["model.weights.h5", "saved_model"]


def _cnn(config: dict[str, Any], model: ModelSpec, _weights: Weights) -> tuple[Any, dict[str, Any]]:
    """The network of model.py, and its layers by name."""
    net = cnn.Cnn(config)
    return net, dict(zip((*model.cnn_convolutions, *model.cnn_dense), (*net.conv, *net.fc), strict=True))


def _capsnet(config: dict[str, Any], model: ModelSpec, weights: Weights) -> tuple[Any, dict[str, Any]]:
    """As `_cnn`; the output capsules, which are not a Keras layer, already have their weights."""
    net = capsnet.CapsNet(config)
    net.digit.assign(weights["digit.w"])
    if net.digit_bias is not None:
        net.digit_bias.assign(weights["digit.b"])
    names = ("conv1", "primary") + (("dec1", "dec2", "dec3") if model.decoder else ())
    return net, {name: getattr(net, name) for name in names}


_FILLED = {"capsnet": _capsnet, "cnn": _cnn}
