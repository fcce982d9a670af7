"""Which shorter trial a longer one goes on from: one that is the same but for the number of epochs.

What a trial trains in an epoch does not depend on how many epochs are to follow: plans and dropout masks are drawn epoch
by epoch, and no learning rate schedule (`harness.spec.optim.LrDecay`) depends on the end. So after the shorter trial's
last epoch, the longer one is where it would be had it trained them itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness import registry
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import kept_epochs
from harness.spec.trial import Trial
from harness.suite.identity import Sources, relevant, trial_id


@dataclass(frozen=True)
class Shorter:
    """The trial to go on from, and after which epoch."""

    trial: Trial
    epoch: int
    journal: Journal | None = None  # where it is, if not in the run that goes on
    next_best: Shorter | None = None  # another one, should this one's checkpoint be damaged

    def __str__(self) -> str:
        where = f" in {self.journal.run_dir}" if self.journal else ""
        return f"epoch {self.epoch} of {self.trial.id}{where}"


class Longer:
    """Looks for shorter trials in a run directory and, if given, in another one."""

    def __init__(
        self, journal: Journal, fingerprint: Callable[[str], Mapping[str, Any]], other: Journal | None = None
    ) -> None:
        self._fingerprint = fingerprint
        self._known: dict[str, list[tuple[Trial, Journal]]] = {}
        self._own, self._sources = journal, Sources()
        for its in (journal, *([other] if other else [])):
            for each in its.trial_ids():
                try:
                    trial = its.trial(each)
                except UserError:  # no longer readable, so nothing can go on from it
                    continue
                self._known.setdefault(_but_for_epochs(trial), []).append((trial, its))

    def shorter(self, trial: Trial) -> tuple[Shorter | None, tuple[Shorter, str] | None]:
        """The trial with most epochs that `trial` can go on from; or None and, if one looks as if it could, why it cannot."""
        alike = self._known.get(_but_for_epochs(trial), ()) if self._known else ()
        found: list[Shorter] = []
        unfit: list[tuple[Shorter, str]] = []
        for other, its in alike:
            if other.train.epochs >= trial.train.epochs:
                continue
            try:
                epochs = kept_epochs(its.events(other.id))
            except UserError:  # a damaged journal
                continue
            if not epochs:
                continue
            last = epochs[-1]
            shorter = Shorter(other, last.epoch, None if its is self._own else its)
            if self._id_with(trial, other.train.epochs) != other.id:
                unfit.append((shorter, "other code or another environment trained that"))
            elif not (its.trial_dir(other.id) / last.checkpoint).is_file():
                unfit.append((shorter, f"its checkpoint {last.checkpoint} is gone"))
            else:
                found.append(shorter)
        best: Shorter | None = None
        for each in sorted(found, key=lambda each: each.epoch):
            best = replace(each, next_best=best)
        return best, None if best else max(unfit, key=lambda each: each[0].epoch, default=None)

    def _id_with(self, trial: Trial, epochs: int) -> str:
        document = trial.model_dump(mode="json")
        document["train"]["epochs"] = epochs
        return trial_id(document, registry.resolve(trial.impl), self._fingerprint(trial.impl), self._sources)


def find(
    trials: Iterable[Trial],
    journal: Journal,
    fingerprint: Callable[[str], Mapping[str, Any]],
    other: Journal | None = None,
) -> tuple[dict[str, Shorter], dict[str, tuple[Shorter, str]]]:
    """For trials that have trained nothing yet: which shorter ones they go on from, and for others why they do not, by id."""
    goes_on: dict[str, Shorter] = {}
    anew: dict[str, tuple[Shorter, str]] = {}
    longer: Longer | None = None
    for trial in trials:
        longer = longer or Longer(journal, fingerprint, other)
        shorter, reason = longer.shorter(trial)
        if shorter:
            goes_on[trial.id] = shorter
        elif reason:
            anew[trial.id] = reason
    return goes_on, anew


def _but_for_epochs(trial: Trial) -> str:
    """All that counts of a trial but the number of epochs, as text."""
    content = relevant(trial.model_dump(mode="json"))
    content["train"] = {key: value for key, value in content["train"].items() if key != "epochs"}
    return json.dumps(content, sort_keys=True)
