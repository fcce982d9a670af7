"""Weights and checkpoints on disk: safetensors, canonical names and layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.numpy

from harness.spec import Moments, Weights

_load, _save = cast(Any, safetensors.numpy).load_file, cast(Any, safetensors.numpy).save_file  # typed in part only
_FIRST, _SECOND = "adam.first.", "adam.second."


def save_weights(path: Path, weights: Weights) -> None:
    """Writes the weights alone; any framework reads the file with its safetensors loader."""
    _save(weights, path)


def load_weights(path: Path) -> Weights:
    return _load(path)


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
