"""The process of one measurement: `python -P -m harness.worker.speed --events-fd N`.

`harness.supervisor.speed` starts it; `harness.worker.channel` describes its life. It builds, compiles, passes the gate
and warms up. After its "ready" it follows its supervisor's orders, one per line: "rate", "round", "parts" or "trace". A
job without a trial is a gauge: it measures only a library's matrix product.
"""

from __future__ import annotations

import gc
import json
import math
import time
import warnings
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import UserError
from harness.events import Event
from harness.events.processes import GaugeReadyEvent, PartsEvent, RateEvent, RoundEvent, SpeedReadyEvent, TraceEvent
from harness.worker.channel import Channel, report_timing_warnings, serve
from harness.worker.parts import first_step, turn, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.registry import Entry
    from harness.spec import Cut, EpochPlan

_SEED = 0
GATE = "L4"  # names, shapes, routing, outputs, losses, every gradient
_SETTLE_S = (
    0.05  # the previous measurement's threads spin for a moment while waiting for work, and would look like load
)


EVALUATED = 3
"""Batches evaluated per batch trained: fixed costs of an evaluation should weigh as little as in a long one."""


class ParityFailed(Exception):
    """The implementation does not compute what the specification computes, so it is not timed."""


def main() -> NoReturn:
    """Runs the job read from stdin until it is told "end"."""
    serve("One measurement", _work)


def _work(job: dict[str, Any], channel: Channel) -> None:
    report_timing_warnings(channel)
    if job["trial"] is None:
        from harness import registry

        gauge = Gauge(registry.resolve(job["impl"]), job["matmul"])
        channel.emit(GaugeReadyEvent())
        while channel.listen() != "end":
            channel.emit(RateEvent(**gauge.rate()))
        return
    measurement = Measurement(job)
    channel.emit(measurement.prepare())
    orders: dict[str, Callable[[], Event]] = {
        "round": measurement.round,
        "parts": measurement.parts,
        "trace": measurement.trace,
    }
    while (order := channel.listen()) != "end":
        time.sleep(_SETTLE_S)
        channel.emit(orders[order]())


class Gauge:
    """The rate of the matrix product of the library that `entry` uses."""

    def __init__(self, entry: Entry, size: int, precision: str = "fp32", gpu: bool = False) -> None:
        from harness.machine import rates

        self.entry, self.size, self.gpu = entry, size, gpu
        self._rates = rates
        self._product = rates.product(entry, size, precision, gpu)

    def rate(self) -> dict[str, Any]:
        """`flops_per_s`, and on a GPU `bytes_per_s`."""
        found: dict[str, Any] = {
            "library": self.entry.library,
            "flops_per_s": self._rates.product_rate(self._product, self.size),
        }
        if self.gpu and (copied := self._rates.copy_rate(self.entry)):
            found["bytes_per_s"] = copied
        return found


class Measurement:
    """One implementation in one setting, built once and measured again and again."""

    def __init__(self, job: dict[str, Any]) -> None:
        from harness.spec.trial import Trial

        self.trial = Trial.model_validate_json(json.dumps(job["trial"]))
        self.steps, self.matmul, self.gate = int(job["steps"]), int(job["matmul"]), bool(job["gate"])
        self.trace_path = Path(job["trace"]) if job["trace"] else None
        self.cores = list[int](job["cores"])

    def prepare(self) -> SpeedReadyEvent:
        """Builds, compiles, passes the gate, warms up. Raises what the implementation raises, `ParityFailed`, `UserError`."""
        import numpy as np

        from harness import data, registry
        from harness.cost.limits import emulated
        from harness.cost.operations import moved_bytes, step_flops
        from harness.machine import rates
        from harness.machine.clock import Phases, Stopwatch, peak_rss_bytes, reset_peak_rss
        from harness.machine.topology import put_back, shared
        from harness.spec import TimingWarning
        from harness.weights import initial_weights

        trial, phases = self.trial, Phases()
        for doubt in filter(None, (emulated(trial), shared(self.cores))):
            warnings.warn(doubt, TimingWarning, stacklevel=1)
        entry = registry.resolve(trial.impl)
        with phases("import_s"):
            implementation = registry.load(entry)
        train = data.load(trial.data).train
        with phases("build_s"):
            self.impl = implementation(trial.model, trial.train.optim, trial.runtime_spec())
            self.impl.load(initial_weights(trial.model, _SEED))
            self.impl.stage(train.images, train.labels)
        reset_peak_rss()
        self._labels = train.labels
        self._first = train.take(np.arange(EVALUATED * self.steps * trial.train.batch) % len(train))
        self._evaluated = data.shown(trial.data, self._first)
        del train  # the implementation has its own copy
        reset_peak_rss()
        with phases("compile_s"):
            self.impl.compile(trial.train.batch)
        compiling = peak_rss_bytes()
        if self.gate:
            self._pass_gate()
        with_gate = peak_rss_bytes()
        self.impl.load(initial_weights(trial.model, _SEED))
        reset_peak_rss()
        self._clock = Stopwatch()
        with phases("warmup_s"):
            self._train()
            self._evaluate()
        if moved := put_back(self.cores):
            warnings.warn(f"its process {moved}; it was put back before it was timed", TimingWarning, stacklevel=1)
        peak = max(compiling, peak_rss_bytes())  # the gate's memory is not the implementation's
        self.library = rates.library_of(entry)
        self._on_gpu = rates.on_gpu(self.library)
        return SpeedReadyEvent(
            import_s=phases.seconds["import_s"],
            build_s=phases.seconds["build_s"],
            compile_s=phases.seconds["compile_s"],
            warmup_s=phases.seconds["warmup_s"],
            peak_bytes=peak,
            device_peak_bytes=self.impl.peak_bytes(),
            needed_bytes=max(peak, with_gate),
            flops_per_step=step_flops(trial.model, trial.train.batch),
            bytes_per_step=moved_bytes(trial.model, trial.train.batch),
        )

    def _pass_gate(self) -> None:
        from harness.parity.setups import gate_ladder
        from harness.parity.words import sentence

        trial = self.trial
        ladder = gate_ladder(trial, self.impl, self._first)  # up to `GATE`, it does not matter which of them are staged
        ladder.climb(GATE, stop_at_failure=True)
        report = ladder.report(trial.impl)
        if not report.ok:
            raise ParityFailed(sentence(report))

    def round(self) -> RoundEvent:
        """One round: the machine's rate, a few training steps, and an evaluation of about the same length.

        An untimed step comes first, since the others' turns have displaced this one from the caches.
        """
        rate = self._gauge.rate()
        self._train_once()
        trained, evaluated = self._train(), self._evaluate()
        joules = {} if trained.joules is None else {"joules_per_step": trained.joules / self.steps}
        return RoundEvent(
            rate=rate,
            step_s=trained.seconds / self.steps,
            eval_s=evaluated.seconds / (EVALUATED * self.steps),
            **joules,
            observed=[asdict(trained.observation), asdict(evaluated.observation)],
            device_peak_bytes=self.impl.peak_bytes(),
        )

    def parts(self) -> PartsEvent:
        """Seconds of a step cut short after each of its parts, or of each part alone; neither if it does not tell them."""
        if hasattr(self.impl, "truncated"):
            gc.collect()
            self._train_once()
            step_s = self._train().seconds / self.steps
            cuts = [asdict(each) for each in turn(self._cuts, self._plan, self._clock)]
            return PartsEvent(cuts=cuts, step_s=step_s)
        if not hasattr(self.impl, "parts"):
            return PartsEvent()
        return PartsEvent(parts={name: self._clock(part)[0].seconds for name, part in self._parts.items()})

    def trace(self) -> TraceEvent:
        """Writes the profile of a few training steps; no "path" if the implementation cannot."""
        if self.trace_path is None or not hasattr(self.impl, "trace"):
            return TraceEvent()
        self.trace_path.parent.mkdir(parents=True, exist_ok=True)
        tracer: Any = self.impl
        tracer.trace(self._plan, self.trace_path)
        if not self.trace_path.is_file():
            raise UserError(f"its trace() has not written {self.trace_path}")
        return TraceEvent(path=str(self.trace_path))

    @cached_property
    def _gauge(self) -> Gauge:
        on_gpu = bool(self.trial.gpus) and self._on_gpu
        return Gauge(self.library, self.matmul, self.trial.runtime.precision if on_gpu else "fp32", on_gpu)

    @cached_property
    def _parts(self) -> dict[str, Callable[[], None]]:
        teller: Any = self.impl
        found: dict[str, Callable[[], None]] = teller.parts()
        for part in found.values():
            part()  # compiled and warm
        return found

    @cached_property
    def _cuts(self) -> list[Cut]:
        teller: Any = self.impl
        found: list[Cut] = teller.truncated()
        warm_up(found, self._plan)
        return found

    @cached_property
    def _plan(self) -> EpochPlan:
        """`steps` full batches of the training images in random order, repeated if there are not enough."""
        import numpy as np

        from harness import data
        from harness.spec.plans import plan_epoch

        model, batch = self.trial.model, self.trial.train.batch
        images, staged = self.steps * batch, len(self._labels)
        labels = self._labels[np.arange(images) % staged]
        config = self.trial.data
        plan = plan_epoch(_SEED, 1, images, batch, data.shift(config), model, labels, data.margin(config))
        return replace(plan, order=plan.order % staged)

    def _train_once(self) -> None:
        self.impl.train(first_step(self._plan))

    def _train(self) -> Any:
        sample, totals = self._clock(lambda: self.impl.train(self._plan))
        if not math.isfinite(totals.loss.total):
            raise UserError(f"the training loss is {totals.loss.total}; lower train.lr ({self.trial.train.lr:g})")
        return sample

    def _evaluate(self) -> Any:
        return self._clock(lambda: self.impl.evaluate(self._evaluated.images, self._evaluated.labels))[0]


if __name__ == "__main__":
    main()
