"""What of a crate is confirmed, what could not be checked and why, and what is false."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness import data, progress, registry
from harness.data.base import Split
from harness.errors import UserError
from harness.events import ResultEvent
from harness.journal import retested as kept
from harness.journal.journal import Journal
from harness.journal.results import named_files, summarise
from harness.publishing import crate, recompute
from harness.spec.trial import Trial
from harness.weights.whole import read_predictions, read_weights, recorded

State = Literal["confirmed", "not checked", "false"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One statement about the crate."""

    what: str
    state: State
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "state": self.state, "detail": self.detail}


@dataclass(frozen=True)
class Asked:
    """How much is recomputed from the weights."""

    impls: Sequence[str]
    """Implementations whose name is not that of the specification see all test images."""
    images: int | None = None
    """At most so many; None: all."""
    sample: int = 200
    """Test images for the specification, which is slow."""


def files(given: Path, folder: Path) -> Iterator[Row]:
    """Every file has the size and SHA-256 that the metadata states, and there is no other."""
    named, false = crate.listed(folder)
    missing = [name for name in named if not (folder / name).is_file()]
    changed: list[str] = []
    with progress.task("hashing files", sum(size for size, _ in named.values()), "B") as hashed:
        for name, (size, sha256) in named.items():
            path = folder / name
            if name not in missing and (path.stat().st_size != size or crate.sha256(path) != sha256):
                changed.append(name)
            hashed.advance(size)
    if given.is_file() and not crate.is_as_packed(given, folder):
        false.append(f"{given.name} is not as it was packed; if you packed it yourself, unpack it and give the folder")
    yield from (Row("files", "false", line) for line in false)
    yield from (Row("files", "false", f"{name} is missing") for name in missing)
    yield from (Row("files", "false", f"{name} was changed: another SHA-256") for name in changed)
    if not (false or missing or changed):
        yield Row("files", "confirmed", f"{len(named)} files, SHA-256 of each")


def missing(folder: Path) -> list[str]:
    """Files that the metadata names and the folder lacks."""
    return [name for name in crate.listed(folder)[0] if not (folder / name).is_file()]


class Run:
    """The run in a crate. Raises `UserError` if it cannot be read at all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, Journal(folder)
        self.trials = [self.journal.trial(id) for id in self.journal.trial_ids()]
        self.events = {trial.id: self.journal.events(trial.id) for trial in self.trials}
        self.results = {trial.id: summarise(trial, self.events[trial.id]) for trial in self.trials}
        # A search's proposals have predicted nothing.
        tested = [trial for trial in self.trials if not trial.is_proposal]
        self.finished = [trial for trial in tested if self.results[trial.id].status == "finished"]

    def named(self, trial: Trial, field: str) -> tuple[Path, ResultEvent] | None:
        """The file that the trial's result names in this field, if it is there."""
        for name, event in named_files(self.events[trial.id]).items():
            path = self.journal.trial_dir(trial.id) / name
            if isinstance(event, ResultEvent) and getattr(event, field) == name and path.is_file():
                return path, event
        return None


def results(run: Run) -> Iterator[Row]:
    """`result.json` says what follows from the events."""
    wrong = 0
    for trial in progress.track(run.trials, "recomputing figures"):
        stated, found = run.journal.result(trial.id), run.results[trial.id].to_json()
        if stated is None and found["status"] == "pending":
            continue
        differing = [key for key in found if stated is None or (key in stated and stated[key] != found[key])]
        wrong += bool(differing)
        if differing:
            said = ", ".join(f"{key} {(stated or {}).get(key)}, by the events {found[key]}" for key in differing[:3])
            yield Row("results", "false", f"{trial.id}: {said}")
    if not wrong:
        yield Row("results", "confirmed", f"figures of {len(run.trials)} trials follow from their events")


def errors(run: Run) -> Iterator[Row]:
    """The test errors, from the predictions."""
    counted = images = 0
    for trial in progress.track(run.finished, "reading predictions"):
        if not (found := run.named(trial, "predictions")):
            yield Row("test error", "not checked", f"{trial.id}: the crate has no predictions of it")
            continue
        try:
            labels = read_predictions(found[0], trial, found[1])[1]
        except UserError as error:
            yield Row("test error", "false", _inside(error, run.folder))
            continue
        counted, images = counted + 1, len(labels)
    if counted:
        yield Row(
            "test error", "confirmed", f"of {counted} trials, recomputed from predictions of {images:,} images each"
        )


def retested(run: Run) -> Iterator[Row]:
    """The test errors of single epochs, if the run has any that were computed after its training."""
    found = sum(len(kept.known(run.journal, trial.id, run.events[trial.id])) for trial in run.finished)
    if found:
        told = f"test errors of {found} epochs in {kept.NAME}; `capsbench retest RUN --again` computes them anew"
        yield Row("epochs", "not checked", told)


def labels(run: Run, tests: Callable[[Trial], Split]) -> Iterator[Row]:
    """The labels beside the predictions are those of the data set."""
    good: dict[str, int] = {}
    reasons: dict[str, None] = {}
    for trial in run.finished:
        found = run.named(trial, "predictions")
        if not found:
            continue
        try:
            own = tests(trial).labels
            stored = read_predictions(found[0], trial, found[1])[1]
        except UserError as error:
            reasons[_inside(error, run.folder)] = None
            continue
        if np.array_equal(own, stored):
            good[trial.data.test_from or trial.data.name] = len(own)
        else:
            yield Row("labels", "false", f"{trial.id}: not those of the test images of {trial.data.name}")
    yield from (Row("labels", "not checked", reason) for reason in reasons)
    yield from (
        Row("labels", "confirmed", f"those of the {count:,} test images of {name}") for name, count in good.items()
    )


def weights(run: Run, tests: Callable[[Trial], Split], asked: Asked) -> Iterator[Row]:
    """What the weights say of the test images, by each implementation: the stored predictions."""
    confirmed: dict[str, list[str]] = {}
    reasons: dict[str, list[str]] = {}
    with progress.task("recomputing predictions") as asking:
        asking.expect(dict.fromkeys(asked.impls, len(run.finished)))
        for trial, impl in itertools.product(run.finished, asked.impls):
            asking.title = f"predictions of {trial.id} in {impl}"
            try:
                stored = _spoken(run, trial)
                split = tests(trial)
                count = min(len(split), asked.sample if impl == registry.SPECIFICATION else asked.images or len(split))
                said = recompute.answers(run.folder, trial, split, impl, count)
            except UserError as error:
                reasons.setdefault(_inside(error, run.folder), []).append(trial.id)
                continue
            finally:
                asking.advance(kind=impl)
            differing, ties = said.against(stored[:count])
            if differing:
                told = f"{trial.id} in {impl}: {differing} of {count:,} images are predicted otherwise"
                yield Row("weights", "false", told)
            else:
                confirmed.setdefault(impl, []).append(f"{count:,}" + (f" ({ties} near ties)" if ties else ""))
    for impl, counts in confirmed.items():
        same = " or ".join(dict.fromkeys(counts))
        yield Row(
            "weights", "confirmed", f"of {len(counts)} trials, in {impl}: they predict {same} test images as stored"
        )
    for reason, ids in reasons.items():
        of = list(dict.fromkeys(ids))
        yield Row("weights", "not checked", f"{', '.join(of[:3])}{' ...' * (len(of) > 3)}: {reason}")


def _spoken(run: Run, trial: Trial) -> np.ndarray:
    """The stored predictions of a trial whose weights can be asked again. Raises `UserError` if they cannot."""
    found, told = run.named(trial, "weights"), run.named(trial, "predictions")
    if not found or not told:
        raise UserError(f"the crate has no {'weights' if not found else 'predictions'} of it")
    if flaw := run.results[trial.id].flaw:
        raise UserError(f"{flaw}: the same weights mean something else elsewhere")
    read_weights(found[0], trial, recorded(found[1], found[0].name))
    return read_predictions(told[0], trial, told[1])[0]


def test_images() -> Callable[[Trial], Split]:
    """The test images of a trial, from this machine's data folder; read once per data set. Never downloads."""
    known: dict[str, Split | UserError] = {}

    def get(trial: Trial) -> Split:
        config = trial.data.model_copy(update={"dir": None})
        key = config.model_dump_json()
        if key not in known:
            try:
                known[key] = data.load(config).test
            except UserError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, UserError):
            raise found
        return found

    return get


def _inside(error: UserError, folder: Path) -> str:
    """The message, with paths as they are in the crate."""
    return str(error).replace(f"{folder}/", "").partition("\n")[0]
