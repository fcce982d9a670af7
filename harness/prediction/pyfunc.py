"""A trained model as MLflow's pyfunc: canonical weights, computed by an implementation. MLflow calls `_load_pyfunc`.

A model's folder `data` holds weights.safetensors, whose header describes the model, and serving.json. This module
imports no MLflow, and the framework only where a model is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import models, registry
from harness.errors import UserError
from harness.machine.leases import available_cores
from harness.prediction.predict import BATCH, Predictor
from harness.prediction.trained import Trained, implementation, of_file
from harness.spec import ModelSpec
from harness.weights.files import save_weights

MODULE = __name__
WEIGHTS, SETTINGS = "weights.safetensors", "serving.json"
IMPL = "impl"
"""The key of `model_config` that chooses what computes, such as {"impl": "numpy"}."""


class Served:
    """What answers: images in, lengths, classes and reconstructions out."""

    def __init__(self, trained: Trained, impl: str) -> None:
        entry, _ = implementation(trained, impl)
        self.impl, self.model = entry.name, trained.model
        threads = available_cores()
        for name, value in registry.environment(entry.name, threads, trained.precision, False).items():
            if value is not None:
                os.environ.setdefault(name, value)
        self._predictor = Predictor(trained, entry, threads)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The answers for N images, (N, H, W, C) with values 0 to 255.

        Returns `lengths` (N, J), of a CNN `probabilities`; `class` (N), of a model of K overlaid digits (N, K), longest
        first; with a decoder `reconstruction` (N, H, W, C), or (N, K, H, W, C), with values 0 to 1.
        Raises `UserError` for images of another shape, and for values that are no grey levels.
        """
        images = _pixels(model_input, self.model)
        size = min(BATCH, max(1, len(images)))
        parts = [self._predictor(images[at : at + size], size) for at in range(0, max(1, len(images)), size)]
        scores, classes, decoded = zip(*parts, strict=True)
        score = "lengths" if models.of(self.model).has_capsules else "probabilities"
        found = {score: np.concatenate(scores).astype(np.float32), "class": np.concatenate(classes).astype(np.int64)}
        if decoded[0] is not None:
            found["reconstruction"] = np.concatenate(decoded).astype(np.float32)
        if self.model.overlaid == 1:
            found |= {key: found[key][:, 0] for key in ("class", "reconstruction") if key in found}
        return found


def pack(trained: Trained, impl: str, folder: Path) -> None:
    """Writes what `_load_pyfunc` reads to the folder, which must exist."""
    facts = {key: value for key, value in trained.facts.items() if key != "model"}
    save_weights(folder / WEIGHTS, trained.weights, {"model": trained.model.model_dump(mode="json"), **facts})
    settings = {"impl": impl, "precision": trained.precision, "trained_by": trained.impl}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Served:  # pyright: ignore[reportUnusedFunction]
    """What MLflow serves. Raises `UserError` if the implementation cannot be used here, or the weights are damaged."""
    folder = Path(data_path)
    settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text("utf-8"))
    trained = replace(of_file(folder / WEIGHTS), precision=settings["precision"])
    return Served(trained, str((model_config or {}).get(IMPL) or settings["impl"]))


def _pixels(given: Any, model: ModelSpec) -> np.ndarray:
    images = np.asarray(given)
    if images.shape[1:] != model.image:
        wanted = "x".join(map(str, ("N", *model.image)))
        raise UserError(f"expected images {wanted}, of values 0 to 255; found {'x'.join(map(str, images.shape))}")
    if images.dtype != np.uint8:
        if images.size and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 255):
            raise UserError("expected values 0 to 255 in images, which are grey levels; found others")
        images = np.rint(images).astype(np.uint8)
    return images
