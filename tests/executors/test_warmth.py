"""Which trials a warm worker serves, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.executors.base import Job
from harness.executors.warmth import MANY, arranged
from harness.spec.trial import ParityConfig, RuntimeConfig
from tests.helpers.executor_helpers import tiny_trial


def jobs(impl: str, count: int, **changes: Any) -> list[Job]:
    trials = [tiny_trial(seed=seed).model_copy(update={"impl": impl, **changes}) for seed in range(count)]
    return [Job(trial.model_copy(update={"id": f"{impl}-{trial.seed}"}), Path("run")) for trial in trials]


LARGE = tiny_trial().train.model_copy(update={"epochs": 10**7})
GATED = {"parity": ParityConfig()}


@pytest.mark.parametrize(
    ("changes", "is_warm"),
    [
        ({}, True),
        (GATED, True),
        ({"train": LARGE}, True),  # not timed: no gate
        (GATED | {"train": LARGE}, False),
        ({"gpus": 1}, False),
        ({"runtime": RuntimeConfig(warm=False)}, False),
        (GATED | {"train": LARGE, "runtime": RuntimeConfig(warm=True)}, True),
        ({"gpus": 1, "runtime": RuntimeConfig(warm=True)}, False),
    ],
)
def test_which_are_warm(changes: dict[str, Any], is_warm: bool) -> None:
    assert {job.warm for job in arranged(jobs("numpy", MANY, **changes))} == {is_warm}


def test_few_get_a_process_each_unless_asked() -> None:
    assert not any(job.warm for job in arranged(jobs("numpy", MANY - 1)))
    assert all(job.warm for job in arranged(jobs("numpy", 1, runtime=RuntimeConfig(warm=True))))


def test_code_from_elsewhere_only_if_asked() -> None:
    name = tiny_trial().impl
    assert not any(job.warm for job in arranged(jobs(name, MANY)))
    assert all(job.warm for job in arranged(jobs(name, MANY, runtime=RuntimeConfig(warm=True))))


def test_timed_ones_first_then_by_implementation() -> None:
    mixed = [job for pair in zip(jobs("torch", MANY), jobs("numpy", MANY), strict=True) for job in pair]
    timed = jobs("jax", 2, parity=ParityConfig(), train=LARGE)
    order = [job.trial.id for job in arranged([*mixed, *timed])]
    assert order[:2] == ["jax-0", "jax-1"]
    assert order[2:] == [f"torch-{seed}" for seed in range(MANY)] + [f"numpy-{seed}" for seed in range(MANY)]
