"""Which shorter trial a longer one goes on from: one that is the same but for the number of epochs.

What a trial trains in an epoch does not depend on how many epochs are to follow: plans and dropout masks are drawn epoch
by epoch, and no learning rate schedule (`harness.spec.optim.LrDecay`) depends on the end. So after the shorter trial's
last epoch, the longer one is where it would be had it trained them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import registry
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import kept_epochs
from harness.spec.trial import Trial
from harness.suite.identity import relevant, trial_id


@dataclass(frozen=True)
class Shorter:
    """The trial to go on from, and after which epoch."""

    trial: Trial
    epoch: int

    def __str__(self) -> str:
        return f"goes on from epoch {self.epoch} of {self.trial.id}"


class Longer:
    """Looks for shorter trials in one run directory."""

    def __init__(self, journal: Journal, fingerprint: Callable[[str], Mapping[str, Any]]) -> None:
        self._journal, self._fingerprint = journal, fingerprint
        self._known: list[tuple[Trial, dict[str, Any]]] = []
        for each in journal.trial_ids():
            try:
                trial = journal.trial(each)
            except UserError:  # no longer readable, so nothing can go on from it
                continue
            self._known.append((trial, _but_for_epochs(trial)))

    def shorter(self, trial: Trial) -> tuple[Shorter | None, str | None]:
        """The trial with most epochs that `trial` can go on from; or None and why not, if one looks as if it could."""
        content = _but_for_epochs(trial)
        alike = [other for other, its in self._known if its == content and other.train.epochs < trial.train.epochs]
        found: list[Shorter] = []
        reasons: list[str] = []
        for other in alike:
            try:
                epochs = kept_epochs(self._journal.events(other.id))
            except UserError:  # a damaged journal
                continue
            if not epochs:
                continue
            last = epochs[-1]
            path = self._journal.trial_dir(other.id) / last.checkpoint
            begins = f"trains anew, not on from epoch {last.epoch} of {other.id}: "
            if self._id_with(trial, other.train.epochs) != other.id:
                reasons.append(f"{begins}other code or another environment trained that")
            elif not path.is_file():
                reasons.append(f"{begins}its checkpoint {path} is gone")
            else:
                found.append(Shorter(other, last.epoch))
        best = max(found, key=lambda each: each.epoch, default=None)
        return best, None if best or not reasons else reasons[-1]

    def _id_with(self, trial: Trial, epochs: int) -> str:
        document = trial.model_dump(mode="json")
        document["train"]["epochs"] = epochs
        return trial_id(document, registry.resolve(trial.impl), self._fingerprint(trial.impl))


def find(
    trials: Iterable[Trial], journal: Journal, fingerprint: Callable[[str], Mapping[str, Any]]
) -> tuple[dict[str, Shorter], dict[str, str]]:
    """For trials that have trained nothing yet: which shorter ones they go on from, and for others why they do not, by id."""
    goes_on: dict[str, Shorter] = {}
    anew: dict[str, str] = {}
    longer: Longer | None = None
    for trial in trials:
        longer = longer or Longer(journal, fingerprint)
        shorter, reason = longer.shorter(trial)
        if shorter:
            goes_on[trial.id] = shorter
        elif reason:
            anew[trial.id] = reason
    return goes_on, anew


def _but_for_epochs(trial: Trial) -> dict[str, Any]:
    content = relevant(trial.model_dump(mode="json"))
    content["train"] = {key: value for key, value in content["train"].items() if key != "epochs"}
    return content
