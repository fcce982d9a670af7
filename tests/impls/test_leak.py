"""Routing with "none of the above": every framework has it as the specification has, and the ladder finds its faults."""

from __future__ import annotations

import numpy as np
import pytest

from harness.parity.diagnosis.diagnose import suspects
from harness.parity.faults.fault import Fault
from harness.parity.faults.leak import LEAK_FAULTS
from impls.numpy import layers as F
from tests.mutants.leak import EDITS
from tests.parity.test_diagnose import climbed
from tests.parity.test_mutants import DECAYING, PAPER, climb

LEAKING = PAPER.model_copy(update={"none_of_the_above": True})


def test_what_agrees_with_no_capsule_leaks() -> None:
    """As with one more capsule whose votes are all zero; its share shrinks as the agreement grows."""
    votes = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    another = np.concatenate([votes, np.zeros((2, 1, 5, 4))], axis=1)
    for (coupling, s, v), (wider, *_, other) in zip(F.route(votes, 3, leak=True), F.route(another, 3), strict=True):
        assert np.allclose(coupling, wider[:, :-1], rtol=1e-12)
        assert np.allclose(v, other[:, :-1], rtol=1e-12)
        assert s.shape == (2, 3, 4)
    assert np.allclose(F.softmax(np.zeros((1, 3, 2)), leak=True), 1 / 4)
    assert F.softmax(np.full((1, 3, 2), 800.0), leak=True).sum() == pytest.approx(2)
    assert F.softmax(np.full((1, 3, 2), -800.0), leak=True).sum() == 0


@pytest.mark.parametrize(("name", "level"), [("numpy", "L6"), ("torch", "L6"), ("tf", "L4"), ("jax", "L4")])
def test_every_framework_climbs_as_high_as_time_allows(name: str, level: str) -> None:
    report = climb(name, (), LEAKING, DECAYING, level, "fp32")
    assert report.ok, report.worst
    assert max(report.level_errors()) == level


@pytest.mark.parametrize("name", ["numpy", "torch"])  # the others too, when all mutants are climbed
@pytest.mark.parametrize("fault", LEAK_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(name: str, fault: Fault) -> None:
    report = climb(name, EDITS[name][fault.name], LEAKING, DECAYING, fault.level)
    assert report.failed_level == fault.level, report.worst


@pytest.mark.parametrize("fault", LEAK_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named(fault: Fault) -> None:
    assert fault.says in suspects(climbed(fault.edits, LEAKING, level="L4"))


def test_they_are_none_of_other_models() -> None:
    assert not any(fault.applies(PAPER) for fault in LEAK_FAULTS)
