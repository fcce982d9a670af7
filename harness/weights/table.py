"""The canonical weight table, the initial weights, and the hashes that prove two implementations got the same ones."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from dataclasses import dataclass

import numpy as np

from harness.spec import ModelSpec, Weights


@dataclass(frozen=True)
class WeightRow:
    """One canonical tensor. Axis letters: y, x kernel; k, l, p channels in/out; I, J capsules; d, e dimensions."""

    name: str
    shape: tuple[int, ...]
    layout: str
    sigma: float  # of the truncated normal it starts from; 0 starts at `start`
    start: float = 0.0


def weight_table(model: ModelSpec) -> tuple[WeightRow, ...]:
    """The weights of `model`, in canonical order: 6,804,224 parameters for the paper's MNIST model, 8,215,568 with decoder.

    Profile `official` has 160 more, the output capsules' biases. Sigmas are the released code's (0.05 for conv1, 0.1
    elsewhere), as are the capsules' biases of 0.1 in that profile; the paper gives none. Its baseline CNNs have 35,445,522
    parameters on MNIST and 24,563,978 on MultiMNIST: see `_cnn_table`.
    """
    if model.kind == "cnn":
        return _cnn_table(model)
    channels = model.image[2]
    primary = model.primary_types * model.primary_dim  # channel = type * primary_dim + dim
    k = model.kernel
    capsule_bias = 0.1 if model.profile == "official" else 0.0
    rows = [
        WeightRow("conv1.w", (k, k, channels, model.conv_channels), "y x channel filter", 0.05),
        WeightRow("conv1.b", (model.conv_channels,), "filter", 0.0),
        WeightRow("primary.w", (k, k, model.conv_channels, primary), "y x filter (type dim)", 0.1),
        WeightRow("primary.b", (primary,), "(type dim)", 0.0, capsule_bias),
        WeightRow(
            "digit.w", (model.primary_capsules, model.classes, model.primary_dim, model.digit_dim), "I J d e", 0.1
        ),
    ]
    if model.digit_bias:
        rows.append(WeightRow("digit.b", (model.classes, model.digit_dim), "J e", 0.0, capsule_bias))
    if model.decoder:
        widths = (model.classes * model.digit_dim, *model.decoder_units, model.pixels)
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), start=1):
            rows.append(WeightRow(f"dec{layer}.w", (fan_in, fan_out), "in out", 0.1))
            rows.append(WeightRow(f"dec{layer}.b", (fan_out,), "out", 0.0))
    return tuple(rows)


_TRUNCATED_SD = 0.87962566  # standard deviation of a normal truncated at two sigmas


def _cnn_table(model: ModelSpec) -> tuple[WeightRow, ...]:
    """The convolutions, the ReLU layers, and the layer before the softmax or the sigmoids.

    The paper does not say how they start. Here: variance 2 / fan-in before a ReLU (He et al. 2015), 1 / fan-in in the last
    layer, biases zero.
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    channels = itertools.pairwise((model.image[2], *model.cnn_channels))
    for name, k, (fan_in, fan_out) in zip(model.cnn_convolutions, model.cnn_kernels, channels, strict=True):
        shapes[name] = (k, k, fan_in, fan_out), "y x channel filter"
    for name, widths in zip(model.cnn_dense, itertools.pairwise(model.cnn_widths), strict=True):
        shapes[name] = widths, "in out"
    rows: list[WeightRow] = []
    for name, (shape, layout) in shapes.items():
        variance = (1 if name == model.cnn_dense[-1] else 2) / math.prod(shape[:-1])
        rows.append(WeightRow(f"{name}.w", shape, layout, math.sqrt(variance) / _TRUNCATED_SD))
        rows.append(WeightRow(f"{name}.b", shape[-1:], layout.split()[-1], 0.0))
    return tuple(rows)


def parameter_count(model: ModelSpec) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(row.shape) for row in weight_table(model))


def initial_weights(model: ModelSpec, seed: int) -> Weights:
    """Float32 weights drawn in NumPy (Philox): normal, redrawn outside two sigmas; biases constant.

    Every tensor has its own stream, keyed by seed and name, so that two models that share a tensor share its start.
    """
    return {
        row.name: (_truncated_normal(seed, row) * row.sigma).astype(np.float32)
        if row.sigma
        else np.full(row.shape, row.start, np.float32)
        for row in weight_table(model)
    }


def _truncated_normal(seed: int, row: WeightRow) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(row.name.encode())]))
    values = generator.standard_normal(row.shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return values


def digest(arrays: Weights) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of the names: equal exactly if the weights are."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name].astype("<f4")
        sha.update(json.dumps([name, value.shape]).encode())
        sha.update(value.tobytes())
    return sha.hexdigest()
