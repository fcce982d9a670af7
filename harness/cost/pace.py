"""How long a trial may be silent: from its own epochs, or before it has any, from its estimate."""

from __future__ import annotations

from dataclasses import dataclass

from harness import data
from harness.spec.trial import Trial

_EVAL_COST = 1 / 3  # of an image, relative to training on it


@dataclass(frozen=True)
class Pace:
    """What is expected of a trial, in seconds; None: not known."""

    first_s: float | None = None  # from the start of its process to the end of its first epoch
    epoch_s: float | None = None  # the longest epoch of earlier attempts, with its validation
    test_epochs: float = 1.0  # what comes after the last epoch, relative to an epoch; at least 1


def pace(trial: Trial, estimate_s: float | None, longest_s: float | None = None) -> Pace:
    """The pace of `trial`, which should take `estimate_s` in all; `longest_s` is its longest epoch so far."""
    train, validation, test = data.sizes(trial.data)
    epoch = train + _EVAL_COST * validation
    evaluated = 2 * _EVAL_COST * test  # the weights of the last epoch, and of the best
    share = (epoch + evaluated) / (trial.train.epochs * epoch + evaluated)
    first_s = None if estimate_s is None else max(estimate_s * share, min(estimate_s, 60.0))
    return Pace(first_s, longest_s, max(1.0, evaluated / epoch))
