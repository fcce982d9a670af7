"""Reads files of weights, of any framework, as a model's own tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from harness.errors import UserError, nearest
from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.source import said
from harness.sniff import what_is
from harness.weights.raw import load_widened
from harness.weights.whole import read_header


def read(path: Path, examined: Examined) -> dict[str, np.ndarray]:
    """Reads weights under the model's names or the bench's. Raises `UserError` if the file is unreadable or does not fit."""
    if not path.is_file():
        raise UserError(f'no file "{path}"')
    try:
        found = _arrays(path, examined)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as weights: it is {what_is(path)} ({said(error)})") from error
    shapes = {each.name: each.shape for each in examined.network.parameters()}
    if "conv1.w" in found and "conv1.w" not in shapes:
        found = examined.match.spread(found)
    missing = [name for name in shapes if name not in found]
    if missing:
        raise UserError(f'{path}: it has no "{missing[0]}"{nearest(missing[0], found)}')
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise UserError(f"{path}: {name} has the shape {found[name].shape}, the model's has {shape}")
    return {name: found[name] for name in shapes}


def _arrays(path: Path, examined: Examined) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        try:
            _, tensors = read_header(path)
        except ValueError as error:
            raise UserError(f"{path} cannot be read as weights: {error}") from error
        # NumPy has no such type, and float32 holds it exactly.
        if any(dtype == "bfloat16" for dtype, _ in tensors.values()):
            return load_widened(path)
        files: Any = safetensors
        return dict(files.load_file(path))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    found: Any = examined.network.read_weights(path)
    return found
