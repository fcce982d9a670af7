"""Checks that files are intact: by their SHA-256, and by comparing their content with what the trial must leave.

The worker's events carry size and SHA-256 of every file that they name (`with_fingerprints`). Such files are read only
through this module. Runs from before events had a SHA-256 are checked by content alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import safetensors
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from harness.errors import UserError
from harness.events import EpochEvent, Record, ResultEvent, TrialEvent
from harness.sniff import UNKNOWN, remedy, what_is, with_remedy
from harness.spec import ModelSpec, Moments, Weights, is_right
from harness.spec.trial import Trial
from harness.weights import files as checkpoint
from harness.weights.files import BEST, FIRST, SECOND
from harness.weights.progress import Progress
from harness.weights.raw import flaw
from harness.weights.table import weight_table

if TYPE_CHECKING:
    from jaxtyping import Int

Shape = tuple[int, ...]
E = TypeVar("E", bound=TrialEvent)


class Damaged(UserError):
    """A file is not as written, or not what its trial must leave: which file, what was found, what to do."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path} is damaged: {found}. Restore it from a copy, or move {path.parent} elsewhere and run the suite "
            "again to repeat the trial"
        )
        self.path, self.found = path, found


def fingerprint(path: Path) -> Record:
    """The file's size and SHA-256: 0.1 s for a checkpoint of the paper's model (99 MB). Raises `OSError`."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


def with_fingerprints(event: E, folder: Path) -> E:
    """The event with `files`, name -> `Record`, if it names any; they are in `folder`."""
    files = {name: dict(fingerprint(folder / name)) for name in event.names().values()}
    return event.model_copy(update={"files": files}) if files else event


def recorded(event: EpochEvent | ResultEvent, name: str) -> Record | None:
    """The event's record of the file; None if the event predates such records."""
    return (event.files or {}).get(name)


def read_weights(path: Path, trial: Trial, record: Record | None) -> Weights:
    """The weights that `trial` left in a file. Raises `Damaged`."""
    facts, tensors = _header(path, record)
    if (owner := facts.get("trial", trial.id)) != trial.id:
        raise Damaged(path, f"it holds the weights of trial {owner}, not of {trial.id}")
    _require(path, misfits(tensors, _expected(trial.model), _dtype(trial)))
    weights = checkpoint.load_weights(path)
    _require(path, not_finite(weights))
    return weights


def read_checkpoint(path: Path, trial: Trial, record: Record | None, epoch: int) -> tuple[Weights, Moments, Progress]:
    """The content of a checkpoint of `trial` after `epoch`. Raises `Damaged`."""
    facts, tensors = _header(path, record)
    try:
        best = _Facts.model_validate(facts, strict=True).best
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Damaged(path, f"its header says {where} is {first['input']!r}: {first['msg']}") from error
    if facts["epoch"] != epoch:
        raise Damaged(path, f"it is of epoch {facts['epoch']}, not of {epoch}")
    prefixes = ("", FIRST, SECOND, *([BEST] if best and best.epoch != epoch else []))
    _require(path, misfits(tensors, _expected(trial.model, *prefixes), _dtype(trial)))
    weights, moments = checkpoint.load_checkpoint(path)
    progress = checkpoint.load_progress(path)
    kept = progress.best.weights if progress.best else {}
    _require(path, not_finite(checkpoint.flat(weights, moments)))
    _require(path, not_finite({BEST + name: array for name, array in kept.items()}))
    _require(path, [f"{SECOND}{name} has values below zero" for name, a in moments.second.items() if (a < 0).any()])
    return weights, moments, progress


def read_predictions(
    path: Path, trial: Trial, result: ResultEvent
) -> tuple[Int[np.ndarray, " N *K"], Int[np.ndarray, " N *K"]]:
    """The trained model's predictions for the N test images, and their labels; `result` is the event that names the file.

    Raises `Damaged`, also if the predictions do not give the event's test error.
    """
    _, tensors = _header(path, recorded(result, path.name))
    shape = (result.test_images, *trial.model.several)
    dtypes = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    _require(path, misfits(tensors, {"predicted": shape, "labels": shape}, dtypes))
    predicted, labels = checkpoint.load_predictions(path)
    classes = trial.model.classes
    outside = [
        f"{name} has values outside the {classes} classes, from {array.min()} to {array.max()}"
        for name, array in (("predicted", predicted), ("labels", labels))
        if array.size and not 0 <= array.min() <= array.max() < classes
    ]
    _require(path, outside)
    error_pct = 100 * float((~is_right(predicted, labels)).mean())
    told = result.test_err_pct
    if told is not None and abs(error_pct - told) > 1e-9:
        raise Damaged(path, f"its test error is {error_pct:g}%, that of the trial {told:g}%")
    return predicted, labels


def misfits(
    tensors: Mapping[str, tuple[str, Shape]], expected: Mapping[str, Shape], dtypes: Sequence[str]
) -> list[str]:
    """What is wrong with tensors (name -> dtype and shape), one sentence each, against the `expected` shapes and dtypes."""
    wrong = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    wrong += [f"{name} does not belong there" for name in tensors.keys() - expected.keys()]
    for name, (dtype, shape) in tensors.items():
        if name in expected and shape != expected[name]:
            wrong.append(f"{name} is {_by(shape)}, expected {_by(expected[name])}")
        elif name in expected and dtype not in dtypes:
            wrong.append(f"{name} is {dtype}, expected {' or '.join(dtypes)}")
    return sorted(wrong)


def not_finite(arrays: Weights) -> list[str]:
    """A sentence for each array with values that are not finite."""
    counts = {name: array.size - int(np.isfinite(array).sum()) for name, array in arrays.items()}
    return [
        f"{name} has {count:,} of {arrays[name].size:,} values that are not finite numbers"
        for name, count in counts.items()
        if count
    ]


def not_of(trial: Trial, state: Weights) -> list[str]:
    """A sentence for each way in which a trained state, named as by `checkpoint.flat`, does not fit the trial's model."""
    tensors = {name: (array.dtype.name, array.shape) for name, array in state.items()}
    return misfits(tensors, _expected(trial.model, "", FIRST, SECOND), _dtype(trial))


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, Shape]]]:
    """The facts in a safetensors file's header, and its tensors: name -> dtype, as NumPy names it, and shape.

    Raises `ValueError` with an explanation if it is not an intact safetensors file, or cannot be read.
    """
    try:
        with cast(Any, safetensors).safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: (_numpy_name(each.get_dtype()), tuple(each.get_shape())) for name, each in slices.items()}
        facts: Any = checkpoint.read_facts(path)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is no readable safetensors file: {flaw(path) or error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"its header holds no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError("its header holds no facts")
    return cast(dict[str, Any], facts), tensors


def require_recorded(path: Path, record: Record | None) -> None:
    """Raises `Damaged` if the file does not match the event's record."""
    try:
        found = fingerprint(path)
    except OSError as error:
        raise Damaged(path, f"it cannot be read: {error.strerror or error}") from error
    if record and found["bytes"] != record["bytes"]:
        what = what_is(path)
        instead = "" if what in ("a safetensors file", UNKNOWN) else f"; it is {with_remedy(what)}"
        raise Damaged(path, f"it has {found['bytes']:,} bytes, {record['bytes']:,} were written{instead}")
    if record and found["sha256"] != record["sha256"]:
        began, begins = record["sha256"][:12], found["sha256"][:12]
        raise Damaged(path, f"its SHA-256 begins with {begins}, that of what was written with {began}")


class _Best(BaseModel):
    epoch: NonNegativeInt
    val_err_pct: float
    val_loss: float


class _Facts(BaseModel):
    """The header of a checkpoint."""

    model_config = ConfigDict(extra="ignore")
    step: NonNegativeInt
    epoch: NonNegativeInt
    val_err_pct: float | None
    best: _Best | None
    is_over: bool


def _header(path: Path, record: Record | None) -> tuple[dict[str, Any], dict[str, tuple[str, Shape]]]:
    """As `read_header`, after checking the file against its record. Raises `Damaged`."""
    require_recorded(path, record)
    try:
        return read_header(path)
    except ValueError as error:
        raise Damaged(path, f"{error}{_advice(what_is(path))}") from error


def _advice(what: str) -> str:
    told = remedy(what)
    return f" ({told})" if told else ""


def _require(path: Path, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Damaged(path, "; ".join(wrong[:3]) + more)


def _expected(model: ModelSpec, *prefixes: str) -> dict[str, Shape]:
    return {prefix + row.name: row.shape for prefix in prefixes or ("",) for row in weight_table(model)}


def _dtype(trial: Trial) -> tuple[str, ...]:
    return (np.dtype(trial.runtime_spec().dtype).name,)


def _numpy_name(dtype: str) -> str:
    """ "float32" for "F32"."""
    kinds = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint", "C": "complex"}
    kind = dtype.rstrip("0123456789")
    return f"{kinds[kind]}{dtype.removeprefix(kind)}" if kind in kinds else dtype


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"
