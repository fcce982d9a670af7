"""The audit of a trial: samples of the training and of its claimed results, checked outside the timed regions.

The gate proves an implementation before training; the audit checks that the proven code is what then ran. Its samples
are drawn from the trial's own Philox stream, and it leaves the implementation's state unchanged. docs/parity.md says
what it finds, and with what probability.
"""

from __future__ import annotations

import itertools
import math
import time
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from harness import data
from harness.data import Dataset
from harness.machine.clock import Sample, Stopwatch, peak_rss_bytes
from harness.parity.measure import apart, moments_apart
from harness.spec import EpochPlan, EvalTotals, Impl, Moments, TrainTotals, Weights
from harness.spec.trial import Trial
from harness.weights import parameter_count
from harness.weights.progress import Ledger
from harness.worker.audit_checks import Segment, State, classified, derived, part_of, repeated, specification, together

SHARE, LEAST_S = 0.02, 0.5
"""The audit's share of the training time, and the seconds that it may take even if training is short."""
TRAINING = 0.75
"""The part of that allowance for training steps; the rest is kept for the test images."""
REPEATED, FEWEST, LONGEST = 0.005, 1, 8
"""The share of all steps so far to repeat in a row; over more, a GPU's varying rounding would grow too large."""
SAMPLE = math.ceil(math.log(0.001) / math.log(0.99))
"""Test images: if none of them is classified differently, fewer than 1% of all are, at 99.9% confidence."""

_GUESS = 6
_STREAM = zlib.crc32(b"audit")


class Audit:
    """One trial's audit: call `train` and then `settle` for each epoch, and `verdict` at the end."""

    def __init__(self, trial: Trial, impl: Impl, dataset: Dataset, ledger: Ledger | None = None) -> None:
        self._trial, self._impl, self._dataset = trial, impl, dataset
        self.ledger = ledger or Ledger()
        self.extra_bytes = 0
        """How much the audit alone has raised the process's peak memory."""
        self._epoch_s = 0.0  # the last epoch's training
        self._cost_s: float | None = None  # the last epoch's audit
        self._segment: Segment | None = None

    def train(self, plan: EpochPlan, epoch: int, clock: Stopwatch) -> tuple[Sample, TrainTotals]:
        """`impl.train(plan)`, with a segment of its steps as a separate call; the state around it is kept if there is time.

        Every epoch is split, audited or not, so that a sum of losses depends only on the plan.
        """
        if not self._trial.parity.audit:
            return clock(lambda: self._impl.train(plan))
        generator = self._generator(epoch)
        steps = -(-len(plan.order) // plan.batch)
        # Of the steps so far: how many epochs are still to come must not matter, as a longer trial may go on from this one.
        count = min(steps, LONGEST, max(FEWEST, int(REPEATED * steps * epoch)))
        start = int(generator.integers(0, steps - count, endpoint=True))
        is_due, began_s, extra_bytes = self._is_due(count / steps), self.ledger.audit_s, self.extra_bytes
        samples, totals, states, peak = list[Sample](), list[TrainTotals](), list[State](), 0
        for place, (first, end) in enumerate(itertools.pairwise((0, start, start + count, steps))):
            part = part_of(plan, first, end)
            if len(part.order):
                sample, found = clock(lambda part=part: self._impl.train(part))
                samples.append(sample)
                totals.append(found)
                if found.count != len(part.order):
                    self._fail(f"epoch {epoch}: train tells of {found.count} images, and was given {len(part.order)}")
            if is_due and place < 2:
                peak = peak or peak_rss_bytes()
                with self._timed():
                    states.append((self._impl.dump(), self._impl.dump_moments()))
        if is_due:
            before, after = states
            found = totals[1 if start else 0]
            self._segment = Segment(part_of(plan, start, start + count), before, after, found, generator)
            kept = 6 * parameter_count(self._trial.model) * self._trial.runtime_spec().dtype().itemsize
            self.extra_bytes = extra_bytes + min(kept, peak_rss_bytes() - peak)
            self._cost_s = self.ledger.audit_s - began_s
        sample = sum(samples[1:], samples[0])
        self._epoch_s = sample.seconds
        self.ledger = replace(self.ledger, trained_s=self.ledger.trained_s + sample.seconds)
        return sample, together(totals)

    def ended(self) -> State | None:
        """The state in which training has left the implementation, before anything is evaluated."""
        if not self._trial.parity.audit:
            return None
        with self._timed():
            return self._impl.dump(), self._impl.dump_moments()

    def settle(self, epoch: int, weights: Weights, moments: Moments, ended: State | None) -> None:
        """Judges the epoch that ended with `weights` and `moments`; loads them again if it has used others.

        `ended` is the state before its validation, which must not change it.
        """
        if not self._trial.parity.audit or ended is None:
            return
        if apart(ended[0], weights) or moments_apart(ended[1], moments):
            self._fail(f"the evaluation after epoch {epoch} has changed weights or moments")
        steps = epoch * -(-len(self._dataset.train) // self._trial.train.batch)
        if moments.step != steps:
            self._fail(f"epoch {epoch} ends at step {moments.step} of Adam, its plan at step {steps}")
        segment, self._segment = self._segment, None
        if segment is None:
            return
        began_s = self.ledger.audit_s
        with self._timed():
            fault = repeated(self._impl, segment, self._trial)
            fault = fault or derived(self._impl, segment, self._trial, self._dataset.train)
            self._impl.load(weights, moments)
        self._cost_s = (self._cost_s or 0.0) + self.ledger.audit_s - began_s
        self.ledger = replace(self.ledger, steps=self.ledger.steps + segment.steps)
        if fault:
            first = segment.before[1].step + 1
            those = f"step {first}" if segment.steps == 1 else f"steps {first} to {first + segment.steps - 1}"
            self._fail(f"{those} (epoch {epoch}): {fault}")

    def verdict(self, weights: Weights, test: EvalTotals) -> dict[str, Any]:
        """The "audit" of a "result" event; `test` is what `evaluate` returned for the test images with these weights."""
        if not self._trial.parity.audit:
            return {"ok": None, "note": "off (parity.audit: false)"}
        total = len(test.predicted)
        chosen = self._generator(0).permutation(total)[:SAMPLE]
        with self._timed() as spent_s:
            images, near_ties, fault = classified(
                self._trial,
                weights,
                self._dataset.test,
                test.predicted,
                chosen,
                lambda rise: self.ledger.audit_s + rise * spent_s() <= self._allowance_s(),
            )
        data.release(self._dataset.test.images)
        if fault:
            self._fail(fault)
        told = self.ledger
        return {
            "ok": told.fault is None,
            "steps": told.steps,
            "images": images,
            "bound_pct": None if told.fault else _bound_pct(images - near_ties, total),
            "near_ties": near_ties,
            "audit_s": told.audit_s,
            "share_pct": 100 * told.audit_s / told.trained_s,
            "note": told.fault or (None if told.steps else "no step repeated: training was too short for that"),
        }

    def _allowance_s(self, more_s: float = 0.0) -> float:
        """The audit's total allowance after another `more_s` of training."""
        return max(LEAST_S, SHARE * (self.ledger.trained_s + more_s))

    def _is_due(self, share: float) -> bool:
        """Whether auditing this epoch, a `share` of its steps, leaves enough of the allowance for the end."""
        if self.ledger.fault:
            return False
        allowed_s = TRAINING * self._allowance_s(self._epoch_s)
        if self._cost_s is None and self.ledger.audit_s <= allowed_s / 4:
            guess_s = self._guessed_s() + share * self._epoch_s
            return self.ledger.audit_s + guess_s <= allowed_s
        return self._cost_s is not None and self.ledger.audit_s + self._cost_s <= allowed_s

    def _guessed_s(self) -> float:
        """A generous guess at an epoch's audit time besides the steps, from the time of a dump and a forward pass."""
        with self._timed() as spent_s:
            net = specification(self._trial, "fp64")
            net.load(self._impl.dump(), self._impl.dump_moments())
            net.forward(self._dataset.test.images[:1])
            return _GUESS * spent_s()

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._trial.seed, (_STREAM << 32) | epoch]))

    @contextmanager
    def _timed(self) -> Generator[Callable[[], float]]:
        """Counts the block's time, and its memory, as the audit's; yields a clock of its seconds."""
        start, peak = time.perf_counter(), peak_rss_bytes()
        yield lambda: time.perf_counter() - start
        self.extra_bytes += peak_rss_bytes() - peak
        self.ledger = replace(self.ledger, audit_s=self.ledger.audit_s + time.perf_counter() - start)

    def _fail(self, fault: str) -> None:
        self.ledger = replace(self.ledger, fault=self.ledger.fault or fault)


def _bound_pct(compared: int, total: int) -> float:
    """The share of test images that may be classified differently, at 99.9% confidence, if none of those compared is."""
    if compared == total:
        return 0.0
    return 100 * (1 - 0.001 ** (1 / compared)) if compared else 100.0
