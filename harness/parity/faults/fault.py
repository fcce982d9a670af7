"""What a known fault is: edits of the specification's source, and the models that it affects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness import models
from harness.parity.faults.mutate import Edit
from harness.spec import ModelSpec


def any_model(_model: ModelSpec) -> bool:
    return True


def has_capsules(model: ModelSpec) -> bool:
    return models.of(model).has_capsules


def has_decoder(model: ModelSpec) -> bool:
    return models.of(model).has_decoder(model)


def has_dropout(model: ModelSpec) -> bool:
    return model.dropped_units > 0


@dataclass(frozen=True)
class Fault:
    """One fault. `says` completes "looks like ..."; `level` is the lowest level of the ladder that it fails."""

    name: str
    says: str
    level: str
    edits: tuple[Edit, ...]  # of impls/numpy
    applies: Callable[[ModelSpec], bool] = any_model  # whether it makes a difference to a model at all


def faults_of(model: ModelSpec) -> tuple[Fault, ...]:
    """The known faults of the model's kind that affect the model."""
    return tuple(fault for fault in models.of(model).faults() if fault.applies(model))
