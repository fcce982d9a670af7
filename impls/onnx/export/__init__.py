"""Trained weights as an ONNX model, for ONNX Runtime and whatever else reads the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from harness.spec import ModelSpec, Weights
from impls.onnx.export import capsnet, cnn, recipe
from impls.onnx.export.graph import Graph

STANDALONE = {"capsnet": recipe, "cnn": recipe}
"""Kind of model -> the module exported as its model.py."""
_NETWORKS: dict[str, Callable[[Graph, ModelSpec, Weights], list[onnx.ValueInfoProto]]] = {
    "capsnet": capsnet.network,
    "cnn": cnn.network,
}


def export(model: ModelSpec, weights: Weights, folder: Path) -> list[str]:
    """Writes model.onnx (any batch size, float32); returns its name. config.json, already in the folder, goes into it too.

    The graph is written out operation by operation: no framework is needed, and its names are the model's.
    """
    graph = Graph()
    outputs = _NETWORKS[model.kind](graph, model, weights)
    config = json.loads((folder / "config.json").read_text())
    onnx.save_model(graph.model(model, outputs, {key: json.dumps(value) for key, value in config.items()}),
                    folder / "model.onnx")  # fmt: skip
    return ["model.onnx"]


def scores(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of the exported file: pixels in 0..1, (B, H, W, C), to lengths or probabilities, (B, J)."""
    found = recipe.load(folder)(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32))
    return found["lengths"] if "lengths" in found else found["probabilities"]
