"""The canonical weight table, the initial weights, and hashes to prove that implementations got the same weights."""

from __future__ import annotations

import hashlib
import json
import math
import zlib

import numpy as np

from harness import models
from harness.models.base import WeightRow
from harness.spec import ModelSpec, Weights


def weight_table(model: ModelSpec) -> tuple[WeightRow, ...]:
    """The weights of `model`, in canonical order: see `ModelKind.weights` of its kind."""
    return models.of(model).weights(model)


def parameter_count(model: ModelSpec) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(row.shape) for row in weight_table(model))


def initial_weights(model: ModelSpec, seed: int) -> Weights:
    """Float32 weights drawn in NumPy (Philox): normal, redrawn outside two sigmas; biases constant.

    Every tensor has its own stream, keyed by seed and name, so models that share a tensor share its initial values.
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
