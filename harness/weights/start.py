"""Starting weights from a file: `train.start_from`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import UserError, note
from harness.sniff import remedy, what_is
from harness.spec import Weights
from harness.spec.trial import Trial
from harness.weights.files import FIRST
from harness.weights.raw import load_widened
from harness.weights.table import digest
from harness.weights.whole import read_header

KEY = "train.start_from"
DTYPES = ("float32", "float64", "bfloat16", "float16")
_NAMES = "with the names and shapes of capsbench.weight_table(model)"
_CONVERTED = {
    "a PyTorch file": (
        f'convert it: safetensors.torch.save_file(torch.load("...", weights_only=True), "weights.safetensors"), {_NAMES}'
    ),
    "an HDF5 file": f'load it into its model and write safetensors.numpy.save_file({{...}}, "weights.safetensors"), {_NAMES}',
    "a Keras model": f'load it with keras and write safetensors.numpy.save_file({{...}}, "weights.safetensors"), {_NAMES}',
    "a NumPy archive": (
        f'convert it: safetensors.numpy.save_file(dict(numpy.load("...")), "weights.safetensors"), {_NAMES}'
    ),
    "a Python pickle": "reading it could run any program: have it written as a safetensors file instead",
}
_EXPORTED = "PyTorch", "HDF5", "Keras", "archive (.npz)"  # what `capsbench export` writes, too


def starting_weights(trial: Trial, path: Path | None) -> Weights:
    """The weights in `path`. Raises `UserError` if they are not those that the trial was planned with."""
    weights = read_start(path) if path else {}
    if digest(weights) != trial.start_sha256:
        raise UserError(f"{KEY}: {path} has changed since the trial was planned; run the suite again")
    return weights


def read_start(path: Path) -> Weights:
    """The weights as float32, in which training starts: float64 is rounded; float16 and bfloat16 fit exactly, with a note.

    Raises `UserError` for other dtypes and files.
    """
    try:
        _, tensors = read_header(path)
    except ValueError as error:
        raise UserError(f"{KEY}: {path}: {error}{_advice(path)}") from error
    if other := [f"{name} is {dtype}" for name, (dtype, _) in tensors.items() if dtype not in DTYPES]:
        coarse = any(dtype.startswith(("F8", "F6", "F4", "float8")) for dtype, _ in tensors.values())
        raise UserError(
            f"{KEY}: {path}: {'; '.join(other[:3])}; weights to start from are {', '.join(DTYPES[:-1])} or {DTYPES[-1]}. "
            + ("Numbers of 8 bits or fewer are quantised: start from the weights that they were made of" if coarse else
               "Convert them, if that is what you want")
        )  # fmt: skip
    if any(name.startswith(FIRST) for name in tensors):
        raise UserError(
            f"{KEY}: {path} is a checkpoint, with the state of the optimiser; give weights.safetensors beside it. To train "
            "that trial for longer, raise train.epochs instead"
        )
    if half := sorted({dtype for dtype, _ in tensors.values()} & {"bfloat16", "float16"}):
        note(f"{KEY}: {path} holds {' and '.join(half)} numbers. Training starts from exactly these, in float32")
    return {name: array.astype(np.float32) for name, array in load_widened(path).items()}


def _advice(path: Path) -> str:
    """What to do about a file that is no safetensors file; empty if its content does not tell."""
    found = what_is(path)
    advice = remedy(found) or next((told for kind, told in _CONVERTED.items() if found.startswith(kind)), None)
    if advice and any(each in found for each in _EXPORTED):
        advice += ". If `capsbench export` made it, give its trial instead: RUN/TRIAL"
    return f"; {advice}" if advice else ""
