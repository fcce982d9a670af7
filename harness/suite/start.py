"""Where training starts, if not from random weights: `train.start_from`, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from harness.errors import UserError, nearest
from harness.journal.journal import Journal
from harness.journal.results import named_files
from harness.sniff import what_is
from harness.spec import ModelSpec
from harness.weights import digest, weight_table
from harness.weights.start import DTYPES, KEY, read_start
from harness.weights.whole import Damaged, misfits, not_finite, read_header, recorded, require_recorded


def weights_file(start_from: str) -> Path:
    """The file that `train.start_from` refers to: itself, or the last weights of a trial (its folder, or RUN/TRIAL).

    Raises `UserError` if there is none.
    """
    path = Path(start_from).expanduser()
    trials = path.parent / "trials"
    for folder in (path, trials / path.name):
        if (found := folder / "weights.safetensors").is_file():
            return found.absolute()
        if folder.is_dir():
            raise UserError(f'{KEY}: "{folder}" has no weights.safetensors; {_in_folder(folder)}')
    if path.is_file():
        return path.absolute()
    if path.exists() or path.is_symlink():
        raise UserError(f'{KEY}: "{start_from}" is {what_is(path)}; expected a safetensors file, or RUN/TRIAL')
    there = [each.parent.name for each in sorted(trials.glob("*/weights.safetensors"))]
    hint = nearest(path.name, there) if there else "; expected a safetensors file, or RUN/TRIAL of a finished trial"
    raise UserError(f'{KEY}: there is no "{start_from}"{hint}')


def _in_folder(folder: Path) -> str:
    """What is there instead of weights."""
    inner = folder if folder.name == "trials" else folder / "trials"
    if trials := [each.parent.name for each in sorted(inner.glob("*/weights.safetensors"))]:
        return (
            f"it is a run: give RUN/TRIAL, such as {inner.parent / trials[0]}. Its finished trials: {', '.join(trials)}"
        )
    others = sorted(folder.glob("*.safetensors"))
    if others and not (folder / "trial.json").exists():
        return f"give a file of it: {', '.join(map(str, others[:5]))}"
    return "a trial has it once it has finished"


def start_sha256(start_from: str | None, model: ModelSpec) -> str | None:
    """The digest of the weights to start from; None if training starts from random weights.

    Raises `UserError` if they cannot be read, are damaged, or are not those of `model`.
    """
    if start_from is None:
        return None
    path = weights_file(start_from)
    tensors, sha256 = _content(path, path.stat().st_mtime_ns)
    if wrong := misfits(tensors, {row.name: row.shape for row in weight_table(model)}, DTYPES):
        raise UserError(
            f"{KEY}: {path} holds the weights of another model: {'; '.join(wrong)}. "
            "Give the suite the same section model, and images of the same size"
        )
    return sha256


@lru_cache
def _content(path: Path, _changed_ns: int) -> tuple[Mapping[str, tuple[str, tuple[int, ...]]], str]:
    """Dtypes and shapes by name, and the digest. Cached, so that a file is read once for all trials of a grid."""
    _require_named(path)
    weights = read_start(path)
    if wrong := not_finite(weights):
        raise UserError(f"{KEY}: {path}: {'; '.join(wrong)}; give weights that are all numbers")
    return read_header(path)[1], digest(weights)


def _require_named(path: Path) -> None:
    """Raises `UserError` if the file is in a trial's folder but is not the file that an event of the trial names."""
    folder = path.parent
    try:
        events = Journal(folder.parent.parent).events(folder.name) if folder.parent.name == "trials" else []
    except UserError as error:
        raise UserError(f"{KEY}: {error}") from error
    if not events:
        return
    event = named_files(events).get(path.name)
    if event is None:
        raise UserError(
            f"{KEY}: no event of trial {folder.name} names {path}: the trial broke off before, or gave that epoch up. "
            "Run its suite again to finish it"
        )
    try:
        require_recorded(path, recorded(event, path.name))
    except Damaged as error:
        raise UserError(f"{KEY}: {error}") from error
