"""Weights, checkpoints and predictions as safetensors files: weights under canonical names, with facts in the header.

Files are written whole or not at all. Reading here checks nothing; `harness.weights.whole` checks a file first.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors
import safetensors.numpy

from harness.errors import of_the_disk
from harness.spec import Moments, Weights
from harness.weights.progress import Best, Ledger, Progress

if TYPE_CHECKING:
    from jaxtyping import Int

_load, _save = cast(Any, safetensors.numpy).load_file, cast(Any, safetensors.numpy).save_file  # only partly typed
FIRST, SECOND, BEST = "adam.first.", "adam.second.", "best."  # prefixes of names in a checkpoint
_FACTS = "capsbench"  # one JSON entry in the header: the order of several entries would vary


def save_weights(path: Path, weights: Weights, facts: Mapping[str, Any] | None = None) -> None:
    """Writes only the weights; any framework reads the file with its safetensors loader.

    `facts` (JSON) go to the header, where `read_facts` finds them: the weights' trial, its model, the epoch.
    """
    _write(path, weights, {_FACTS: json.dumps(dict(facts or {}))})


def load_weights(path: Path) -> Weights:
    return _load(path)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in the header; empty for a file that is not the bench's own."""
    with cast(Any, safetensors).safe_open(path, framework="numpy") as file:
        header: dict[str, str] = file.metadata() or {}
    return json.loads(header.get(_FACTS, "{}"))


def save_predictions(path: Path, predicted: Int[np.ndarray, "N ..."], labels: Int[np.ndarray, "N ..."]) -> None:
    """Writes the trained model's predictions for the N test images, in the data set's order, and their labels."""
    _write(path, {"predicted": predicted.astype(np.int32), "labels": labels.astype(np.int32)})


def load_predictions(path: Path) -> tuple[Int[np.ndarray, "N ..."], Int[np.ndarray, "N ..."]]:
    """The inverse of `save_predictions`."""
    arrays = _load(path)
    return arrays["predicted"], arrays["labels"]


def save_checkpoint(path: Path, weights: Weights, moments: Moments, progress: Progress | None = None) -> None:
    """Writes weights, Adam's state and the training's progress: everything needed to resume exactly.

    The best epoch's weights are included, unless they are these.
    """
    progress = progress or Progress()
    best = progress.best
    tensors = flat(weights, moments)
    if best and best.epoch != progress.epoch:
        tensors |= {BEST + name: array for name, array in best.weights.items()}
    save_weights(path, tensors, {"step": moments.step, **progress.facts()})


def flat(weights: Weights, moments: Moments) -> Weights:
    """Weights and Adam's state as a checkpoint names them."""
    first = {FIRST + name: array for name, array in moments.first.items()}
    second = {SECOND + name: array for name, array in moments.second.items()}
    return {**weights, **first, **second}


def load_checkpoint(path: Path) -> tuple[Weights, Moments]:
    """Weights and Adam's state, as passed to `save_checkpoint`."""
    parts = _parts(path)
    return parts[""], Moments(read_facts(path)["step"], parts[FIRST], parts[SECOND])


def load_progress(path: Path) -> Progress:
    """The training's progress, as passed to `save_checkpoint`."""
    facts, parts = read_facts(path), _parts(path)
    best = Best(**facts["best"], weights=parts[BEST] or parts[""]) if facts["best"] else None
    return Progress(facts["epoch"], facts["val_err_pct"], best, facts["is_over"], Ledger(**facts["audit"]))


def _write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes atomically: a process that dies midway leaves no file with that name, or the previous one.

    Raises `OSError`, which names the file, on a disk that is full or fails; then nothing new is left.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        # The library writes raw memory, which for a transposed view would be a different array.
        _save({name: np.asarray(array, order="C") for name, array in tensors.items()}, partial, metadata=metadata)
        partial.replace(path)
    except Exception as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if disk := of_the_disk(error):
            raise OSError(disk.errno, disk.strerror, str(path)) from error
        raise


def _parts(path: Path) -> dict[str, Weights]:
    """The tensors by the prefix of their names, which is removed."""
    parts: dict[str, Weights] = {"": {}, FIRST: {}, SECOND: {}, BEST: {}}
    for name, array in _load(path).items():
        prefix = next(p for p in (FIRST, SECOND, BEST, "") if name.startswith(p))
        parts[prefix][name.removeprefix(prefix)] = array
    return parts
