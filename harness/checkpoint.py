"""Weights and checkpoints on disk: safetensors, canonical names and layouts."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from harness.spec import Moments, Weights

_FIRST, _SECOND = "adam.first.", "adam.second."


def save_weights(path: Path, weights: Weights) -> None:
    """Writes the weights alone; any framework reads the file with its safetensors loader."""
    save_file(weights, path)


def load_weights(path: Path) -> Weights:
    return load_file(path)


def save_checkpoint(path: Path, weights: Weights, moments: Moments) -> None:
    """Writes weights and Adam's state: all that training needs to go on exactly where it was."""
    tensors = dict(weights)
    tensors |= {_FIRST + name: array for name, array in moments.first.items()}
    tensors |= {_SECOND + name: array for name, array in moments.second.items()}
    save_file(tensors, path, metadata={"step": str(moments.step)})


def load_checkpoint(path: Path) -> tuple[Weights, Moments]:
    """The inverse of `save_checkpoint`."""
    with safe_open(path, framework="numpy") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    parts: dict[str, Weights] = {"": {}, _FIRST: {}, _SECOND: {}}
    for name, array in tensors.items():
        prefix = next(p for p in (_FIRST, _SECOND, "") if name.startswith(p))
        parts[prefix][name.removeprefix(prefix)] = array
    return parts[""], Moments(step, parts[_FIRST], parts[_SECOND])
