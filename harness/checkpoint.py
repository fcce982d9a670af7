"""Weights, checkpoints and predictions on disk: safetensors; weights under canonical names and layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int

from harness.spec import Moments, Weights

_load, _save = cast(Any, safetensors.numpy).load_file, cast(Any, safetensors.numpy).save_file  # typed in part only
_FIRST, _SECOND = "adam.first.", "adam.second."


def save_weights(path: Path, weights: Weights) -> None:
    """Writes the weights alone; any framework reads the file with its safetensors loader."""
    _save(weights, path)


def load_weights(path: Path) -> Weights:
    return _load(path)


def save_predictions(path: Path, predicted: Int[np.ndarray, "N ..."], labels: Int[np.ndarray, "N ..."]) -> None:
    """Writes what the trained model said of the N test images, in the data set's order, beside their labels."""
    _save({"predicted": predicted.astype(np.int32), "labels": labels.astype(np.int32)}, path)


def load_predictions(path: Path) -> tuple[Int[np.ndarray, "N ..."], Int[np.ndarray, "N ..."]]:
    """The inverse of `save_predictions`."""
    arrays = _load(path)
    return arrays["predicted"], arrays["labels"]


def save_checkpoint(path: Path, weights: Weights, moments: Moments) -> None:
    """Writes weights and Adam's state: all that training needs to go on exactly where it was."""
    tensors = dict(weights)
    tensors |= {_FIRST + name: array for name, array in moments.first.items()}
    tensors |= {_SECOND + name: array for name, array in moments.second.items()}
    _save(tensors, path, metadata={"step": str(moments.step)})


def load_checkpoint(path: Path) -> tuple[Weights, Moments]:
    """The inverse of `save_checkpoint`."""
    with cast(Any, safetensors).safe_open(path, framework="numpy") as file:
        step = int(file.metadata()["step"])
    tensors = _load(path)
    parts: dict[str, Weights] = {"": {}, _FIRST: {}, _SECOND: {}}
    for name, array in tensors.items():
        prefix = next(p for p in (_FIRST, _SECOND, "") if name.startswith(p))
        parts[prefix][name.removeprefix(prefix)] = array
    return parts[""], Moments(step, parts[_FIRST], parts[_SECOND])
