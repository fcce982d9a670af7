"""Comparing implementations takes every branch of the model: by some probe, on some image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness import data
from harness.commands.common import suite_or_built_in
from harness.commands.parity import _COMPACT
from harness.parity import Ladder
from harness.parity.coverage import branches
from harness.spec import ModelSpec, OptimSpec, Runtime
from impls.numpy import NumpyImpl

DIGITS = data.load(suite_or_built_in(None, _COMPACT, []).data).train
SUITES = Path(__file__).parents[2] / "suites"


def ladder(model: ModelSpec) -> Ladder:
    images = np.resize(DIGITS.images, (300, *model.image)) if model.image != (28, 28, 1) else DIGITS.images
    runtime = Runtime(precision="fp64")
    impl = NumpyImpl(model, OptimSpec(), runtime)
    return Ladder(impl, model, OptimSpec(), runtime, images, DIGITS.labels[: len(images)], batch=128)


@pytest.mark.parametrize(
    ("suite", "overrides"),
    [
        (None, []),
        (None, ["model.profile=official"]),
        (None, ["model.kind=cnn"]),
        (None, ["model.routing=1"]),
        (None, ["model.none_of_the_above=true"]),
        ("quickstart", []),
        ("quickstart", ["model.kind=cnn"]),
        ("mnist", []),
        ("mnist", ["model.profile=official"]),
    ],
)
def test_no_branch_is_left_out(suite: str | None, overrides: list[str]) -> None:
    found = suite_or_built_in(SUITES / f"{suite}.yaml" if suite else None, _COMPACT, overrides)
    model = ModelSpec(**found.model.model_dump(), image=(28, 28, 1), classes=10)
    counts = branches(ladder(model).at)
    assert counts
    assert not [name for name, count in counts.items() if count == 0], counts


def test_no_branch_is_left_out_where_an_image_shows_two_digits() -> None:
    compact = suite_or_built_in(None, _COMPACT, []).model
    model = ModelSpec(**compact.model_dump(), image=(36, 36, 1), classes=10, overlaid=2)
    counts = branches(ladder(model).at)
    assert not [name for name, count in counts.items() if count == 0], counts


def test_a_branch_that_no_probe_takes_is_seen() -> None:
    """At the one probe that there was once, every capsule is longer than 0.9."""
    compact = suite_or_built_in(None, _COMPACT, []).model
    at = ladder(ModelSpec(**compact.model_dump(), image=(28, 28, 1), classes=10)).at
    for name in list(at.probes)[1:]:
        del at.probes[name]
    counts = branches(at)
    assert counts["present below m+"] == 0
    assert counts["present above m+"] > 0
