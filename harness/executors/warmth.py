"""Which trials a warm worker serves (`runtime.warm`), and in which order, so that one process serves many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from harness import data, registry
from harness.cost.operations import step_flops
from harness.executors.base import Job
from harness.spec.trial import Trial

TINY_FLOPS = 1e10
"""Operations of a whole training, a fraction of a second: the clock sees startup and noise, not the implementation."""
MANY = 20
"""Trials of one implementation from which `auto` counts: for fewer, imports take no time that matters."""


def arranged(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order to run them: those with a process of their own as given, then those of each warm worker."""
    fitting = {job.trial.id: _group(job.trial) for job in jobs if _fits(job.trial)}
    groups = Counter(fitting.values())
    order = {group: number for number, group in enumerate(groups)}

    def is_warm(job: Job) -> bool:
        return job.trial.id in fitting and (job.trial.runtime.warm is True or groups[fitting[job.trial.id]] >= MANY)

    warm = sorted(filter(is_warm, jobs), key=lambda job: order[fitting[job.trial.id]])
    return [*(job for job in jobs if not is_warm(job)), *(replace(job, warm=True) for job in warm)]


def _fits(trial: Trial) -> bool:
    """Whether the trial may be a fork: the suite says so, or its times are not reported or mean nothing.

    Not on a GPU, whose driver forbids it; nor unasked of code from elsewhere, which may start threads when imported.
    """
    if trial.gpus or trial.runtime.warm != "auto":
        return not trial.gpus and trial.runtime.warm is True
    if not registry.resolve(trial.impl).is_built_in:
        return False
    images, _, _ = data.sizes(trial.data)
    return not trial.parity.gate or trial.train.epochs * step_flops(trial.model, images) <= TINY_FLOPS


def _group(trial: Trial) -> tuple[object, ...]:
    """What the trials of one warm worker have in common."""
    environment = tuple(sorted(trial.runtime.environment.items()))
    return trial.impl, trial.runtime.precision, environment, trial.cpus
