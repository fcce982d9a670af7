"""Weights, checkpoints and predictions on disk: safetensors; weights under canonical names, with facts in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int

from harness.progress import Best, Ledger, Progress
from harness.spec import Moments, Weights

_load, _save = cast(Any, safetensors.numpy).load_file, cast(Any, safetensors.numpy).save_file  # typed in part only
_FIRST, _SECOND, _BEST = "adam.first.", "adam.second.", "best."
_FACTS = "capsbench"  # one entry of the header, as JSON: several would be written in an order that changes


def save_weights(path: Path, weights: Weights, facts: Mapping[str, Any] | None = None) -> None:
    """Writes the weights alone; any framework reads the file with its safetensors loader.

    `facts` (JSON) go to the header, where `read_facts` finds them: which trial they are of, its model, the epoch.
    """
    _save(weights, path, metadata={_FACTS: json.dumps(dict(facts or {}))})


def load_weights(path: Path) -> Weights:
    return _load(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What the header tells of the weights; empty for a file that is not the bench's own."""
    with cast(Any, safetensors).safe_open(path, framework="numpy") as file:
        header: dict[str, str] = file.metadata() or {}
    return json.loads(header.get(_FACTS, "{}"))


def save_predictions(path: Path, predicted: Int[np.ndarray, "N ..."], labels: Int[np.ndarray, "N ..."]) -> None:
    """Writes what the trained model said of the N test images, in the data set's order, beside their labels."""
    _save({"predicted": predicted.astype(np.int32), "labels": labels.astype(np.int32)}, path)


def load_predictions(path: Path) -> tuple[Int[np.ndarray, "N ..."], Int[np.ndarray, "N ..."]]:
    """The inverse of `save_predictions`."""
    arrays = _load(path)
    return arrays["predicted"], arrays["labels"]


def save_checkpoint(path: Path, weights: Weights, moments: Moments, progress: Progress | None = None) -> None:
    """Writes weights, Adam's state and the training's progress: all that it needs to go on exactly where it was.

    The best epoch's weights are among it, unless they are these.
    """
    progress = progress or Progress()
    best = progress.best
    tensors = dict(weights)
    tensors |= {_FIRST + name: array for name, array in moments.first.items()}
    tensors |= {_SECOND + name: array for name, array in moments.second.items()}
    if best and best.epoch != progress.epoch:
        tensors |= {_BEST + name: array for name, array in best.weights.items()}
    save_weights(path, tensors, {"step": moments.step, **progress.facts()})


def load_checkpoint(path: Path) -> tuple[Weights, Moments]:
    """Weights and Adam's state, as `save_checkpoint` was given them."""
    parts = _parts(path)
    return parts[""], Moments(read_facts(path)["step"], parts[_FIRST], parts[_SECOND])


def load_progress(path: Path) -> Progress:
    """The training's progress, as `save_checkpoint` was given it."""
    facts, parts = read_facts(path), _parts(path)
    best = Best(**facts["best"], weights=parts[_BEST] or parts[""]) if facts["best"] else None
    return Progress(facts["epoch"], facts["val_err_pct"], best, facts["is_over"], Ledger(**facts["audit"]))


def _parts(path: Path) -> dict[str, Weights]:
    """The tensors by the prefix of their names, without it."""
    parts: dict[str, Weights] = {"": {}, _FIRST: {}, _SECOND: {}, _BEST: {}}
    for name, array in _load(path).items():
        prefix = next(p for p in (_FIRST, _SECOND, _BEST, "") if name.startswith(p))
        parts[prefix][name.removeprefix(prefix)] = array
    return parts
